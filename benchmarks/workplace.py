# SPDX-License-Identifier: MIT
"""What all benchmarks share: the bench, a folder of their own, and plans from text."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.evidence.verdict import Verdict
from harness.fork.open import open_guest
from harness.fork.template import find_template
from harness.guest.bench import SshBench, with_system
from harness.guest.guest import Guest
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan, Step
from harness.run.run import run_plan
from harness.run.session import Session

ONE_VCPU_ONE_DIMM = """
steps:
  - plug: {vcpus: 1}
    expect: {driver: [processor]}
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
"""


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A plan that ran and passed.

    :ivar step_began_s: when each step began, on the clock of the verdict; the step before it was judged then.
    :ivar ended_s: when the verdict was there and the VM gone.
    """

    verdict: Verdict
    step_began_s: tuple[float, ...]
    ended_s: float

    def qmp_at_s(self, command: str) -> float:
        """Return when the last QMP command of this name was sent."""
        sent = [
            message["at_s"]
            for message in map(json.loads, (self.verdict.evidence / "qmp.jsonl").read_text().splitlines())
            if message.get("sent", {}).get("execute") == command
        ]
        return float(sent[-1])


@dataclass(slots=True)
class Workplace:
    """Where benchmarks run.

    :ivar quick: each thing is done once, to see that it works; the figures mean nothing.
    """

    folder: Path
    quick: bool
    _session: Session = field(init=False)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._session = Session(results=self.folder)

    def times(self, wanted: int) -> range:
        """Return as many rounds as wanted, or one."""
        return range(1 if self.quick else wanted)

    def new_folder(self) -> Path:
        """Return a new empty folder."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir(parents=True)
        return folder

    def plan(self, text: str, *, name: str = "plan") -> Plan:
        """Load a plan from its text and build what it needs, so that running it does nothing but run it."""
        path = self.new_folder() / f"{name}.yaml"
        path.write_text(text)
        plan = self._session.load(path)
        find_template(self.bench(plan), plan.vm, folder=path.parent)
        return plan

    def bench(self, plan: Plan) -> SshBench:
        """Return the bench for the plan."""
        return with_system(self._session.bench(plan))

    @contextmanager
    def open(self, plan: Plan) -> Iterator[SshGuest]:
        """Give a guest for the plan, as a run does."""
        opened = open_guest(
            self.bench(plan), shape=plan.vm, boot=plan.boot, driver=plan.driver, folder=self.new_folder()
        )
        with opened as guest:
            assert isinstance(guest, SshGuest)
            yield guest

    def run(self, plan: Plan) -> TimedRun:
        """Run a plan.

        :raise BenchError: it did not pass, so that its times mean nothing.
        """
        began_s: list[float] = []

        def before_step(_step: Step, _guest: Guest) -> None:
            began_s.append(time.monotonic())

        verdict = run_plan(
            plan, bench=self.bench(plan), folder=self.new_folder() / "evidence", before_step=before_step
        )
        ended_s = time.monotonic()
        if verdict.outcome != "passed":
            reason = verdict.error or "; ".join(str(mismatch) for mismatch in verdict.mismatches[:3])
            raise BenchError(f"the plan of a benchmark {verdict.outcome}: {reason}")
        return TimedRun(verdict, tuple(began_s), ended_s)

    def setting(self) -> dict[str, Any]:
        """Return what was measured: guest, accelerator, QEMU."""
        setting = self.bench(self.plan(ONE_VCPU_ONE_DIMM)).setting()
        return {name: str(value) for name, value in setting.properties()}
