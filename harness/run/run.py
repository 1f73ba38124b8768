# SPDX-License-Identifier: MIT
"""Run one plan on one bench: plug, let the four witnesses speak, judge, keep the evidence.

:func:`run_plan` is the main path of the whole project, top to bottom.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.errors import (
    BenchError,
    DeadlineExpiredError,
    DriverRefusedError,
    GuestGoneError,
    GuestUnreachableError,
    VmStalledError,
)
from harness.evidence.mismatch import Mismatch, gone_before_first_step, refused_before_first_step
from harness.evidence.verdict import Outcome, Verdict
from harness.fork.open import open_guest
from harness.guest.bench import Bench
from harness.guest.guest import Guest, blaming_vm
from harness.plan.fit import profile_for, unmet_needs
from harness.plan.plan import Plan, Step
from harness.run.bench_parts import naming_the_cause
from harness.run.conduct import Conduct
from harness.run.plan_log import plan_log
from harness.run.report import reason, write_evidence
from harness.run.unexpected import told

PLAN_FILE = "plan.yaml"

logger = logging.getLogger(__name__)

StepWatcher = Callable[[Step, Guest], None]
"""Called before each step acts."""


def run_plan(
    plan: Plan, *, bench: Bench, folder: Path, before_step: StepWatcher = lambda _step, _guest: None
) -> Verdict:
    """Run the plan in a VM of its own and return what became of it; the folder holds all evidence.

    A bench that breaks is a verdict too, ``error``, and so is what nobody foresaw. Only Ctrl-C is raised, and
    an evidence folder that cannot be written to.
    """
    bench = replace(bench, profile=profile_for(plan, bench.profile))
    _keep_plan(plan, folder)
    with plan_log(folder):
        logger.info("plan %s on %s", plan.name, bench.setting())
        verdict = _verdict(plan, bench, folder, before_step)
        logger.info("%s: %s", verdict.outcome, reason(verdict) or "everything was as planned")
    return verdict


def _verdict(plan: Plan, bench: Bench, folder: Path, before_step: StepWatcher) -> Verdict:
    started_s = time.monotonic()
    conduct = Conduct(plan, bench, folder)
    skipped = unmet_needs(plan, bench.profile)
    error: str | None = "interrupted"
    mismatches: tuple[Mismatch, ...] = ()
    try:
        if skipped is None:
            mismatches = _run(plan, bench, folder, conduct, before_step)
        error = None
    except DriverRefusedError as err:
        mismatches = (refused_before_first_step(str(err)),)
        error = None
    except GuestGoneError as err:
        mismatches = (gone_before_first_step(err.incident),)
        error = None
    except BenchError as err:
        error = str(err)
    except Exception as err:  # noqa: BLE001 - whatever it is, it is no verdict about the driver
        error = told(err, folder=folder)
    finally:
        if not (folder / PLAN_FILE).exists():
            error = f"{folder} was removed while the plan ran, and the evidence with it"
            _keep_plan(plan, folder)
        verdict = Verdict(
            plan=plan.name,
            description=plan.description or "",
            outcome="skipped" if skipped is not None else _outcome(error, mismatches),
            setting=bench.setting(),
            earlier=conduct.earlier,
            steps=tuple(conduct.steps),
            unfinished=conduct.unfinished,
            mismatches=mismatches,
            error=error,
            skipped=skipped,
            started_s=started_s,
            duration_s=time.monotonic() - started_s,
            evidence=folder,
        )
        write_evidence(verdict, folder=folder)
    return verdict


def _keep_plan(plan: Plan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN_FILE).write_text(plan.text, "utf-8")


def _run(
    plan: Plan, bench: Bench, folder: Path, conduct: Conduct, before_step: StepWatcher
) -> tuple[Mismatch, ...]:
    opened = open_guest(bench, shape=plan.vm, boot=plan.boot, driver=plan.driver, folder=folder)
    with opened as guest, blaming_vm(guest.vm), naming_the_cause(guest):
        logger.info("the guest is ready")
        _perform(plan, guest, conduct, before_step)
        found = conduct.verdict()
        guest.is_blamed = bool(found)
    if guest.vm.qmp.log.lost is not None:
        raise BenchError(f"the evidence is not whole: {guest.vm.qmp.log.lost}")
    return found


def _perform(plan: Plan, guest: Guest, conduct: Conduct, before_step: StepWatcher) -> None:
    answers = True
    try:
        with conduct.begun(guest):
            for step in plan.unrolled():
                logger.info("step %d: %s", step.number, step.title)
                before_step(step, guest)
                if conduct.perform(step, guest):
                    return
            conduct.settle(guest)
    except (DeadlineExpiredError, GuestUnreachableError, VmStalledError):
        answers = False  # one fault, one wait: it is not asked for the rest
        raise
    finally:
        conduct.keep_log(guest, answers=answers)


def _outcome(error: str | None, mismatches: tuple[Mismatch, ...]) -> Outcome:
    if error is not None:
        return "error"
    return "failed" if mismatches else "passed"
