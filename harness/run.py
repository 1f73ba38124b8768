# SPDX-License-Identifier: MIT
"""Run one plan on one bench: plug, let the four witnesses speak, judge, keep the evidence.

:func:`run_plan` is the main path of the whole project, top to bottom.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from harness.conduct import Conduct
from harness.errors import BenchError, DriverRefusedError
from harness.guest import Bench, Guest, blaming_vm
from harness.plan import Plan, Step
from harness.report import write_evidence
from harness.template import open_guest
from harness.verdict import Outcome, Verdict
from harness.verify import Mismatch, refused_before_first_step

StepWatcher = Callable[[Step, Guest], None]
"""Called before each step acts."""


def run_plan(
    plan: Plan, *, bench: Bench, folder: Path, before_step: StepWatcher = lambda _step, _guest: None
) -> Verdict:
    """Run the plan in a VM of its own and return what became of it; the folder holds all evidence.

    A bench that breaks is a verdict too: ``error``. Only what nobody can expect is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(plan.source, folder / "plan.yaml")
    started_s = time.monotonic()
    conduct = Conduct(plan, bench, folder)
    error: str | None = "interrupted"
    mismatches: tuple[Mismatch, ...] = ()
    try:
        with open_guest(bench, plan, folder=folder) as guest, blaming_vm(guest.vm):
            try:
                conduct.begin(guest)
                for step in plan.unrolled():
                    before_step(step, guest)
                    mismatches = conduct.perform(step, guest)
                    if mismatches:
                        break
                if not mismatches:
                    conduct.settle(guest)
            finally:
                conduct.keep_log(guest)
        mismatches = conduct.verdict()
        error = None
    except DriverRefusedError as err:
        mismatches = (refused_before_first_step(str(err)),)
        error = None
    except BenchError as err:
        error = str(err)
    finally:
        verdict = Verdict(
            plan=plan.name,
            description=plan.description or "",
            outcome=_outcome(error, mismatches),
            setting=bench.setting(),
            steps=tuple(conduct.steps),
            unfinished=conduct.unfinished,
            mismatches=mismatches,
            error=error,
            started_s=started_s,
            duration_s=time.monotonic() - started_s,
            evidence=folder,
        )
        write_evidence(verdict, folder=folder)
    return verdict


def _outcome(error: str | None, mismatches: tuple[Mismatch, ...]) -> Outcome:
    if error is not None:
        return "error"
    return "failed" if mismatches else "passed"
