# SPDX-License-Identifier: MIT
"""A QEMU, or a harness, that did not run for a while: nobody is blamed for what came late of it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harness.deadline import Deadline
from harness.evidence.verdict import Verdict
from harness.guest.guest import Guest
from harness.plan.plan import Step
from tests.qtest.conftest import BeforeStep, Run

ROOT = Path(__file__).resolve().parents[2]


def plan(acpi: str, *, within: str) -> str:
    return (
        f"within: {within}\nacpi: [{acpi}]\nsteps: [{{plug: {{dimms: [128 MiB]}}, expect: {{driver: []}}}}]\n"
    )


def stopping_qemu(*, for_s: float | None) -> BeforeStep:
    """Return what stops QEMU right after it was told to plug, for so long or for good."""

    def before_step(_step: Step, guest: Guest) -> None:
        plug = guest.vm.plug_dimm

        def plug_and_stop(*args: Any, **kwargs: Any) -> object:
            done = plug(*args, **kwargs)
            os.kill(guest.vm.pid, signal.SIGSTOP)
            if for_s is not None:
                threading.Timer(for_s, os.kill, (guest.vm.pid, signal.SIGCONT)).start()
            return done

        guest.vm.plug_dimm = plug_and_stop  # type: ignore[method-assign]

    return before_step


def stalled(verdict: Verdict) -> float:
    """Return for how long QEMU did not run, by an error that must say so."""
    assert (verdict.outcome, verdict.mismatches) == ("error", ())
    assert verdict.error is not None
    found = re.match(
        r"(QEMU|the harness) got no processor time for ([\d.]+) s \(it was stopped", verdict.error
    )
    assert found is not None, verdict.error
    assert verdict.unfinished is not None
    return float(found[2])


def test_an_answer_that_is_late_because_qemu_was_stopped_blames_nobody(run: Run) -> None:
    verdict = run(plan("{late: 200 ms}", within="1 s"), before_step=stopping_qemu(for_s=3.0))
    assert 2 < stalled(verdict) < 6
    assert "in step 1 (plug DIMM 128 MiB)" in str(verdict.error)


def test_an_answer_that_is_missing_because_qemu_was_stopped_blames_nobody(run: Run) -> None:
    # It would have come after 2 s, of which the guest had one.
    verdict = run(plan("{late: 2 s}", within="2 s"), before_step=stopping_qemu(for_s=2.5))
    assert stalled(verdict) > 1.5


def test_a_guest_that_had_its_time_all_the_same_is_blamed(run: Run) -> None:
    verdict = run(plan("silent", within="500 ms"), before_step=stopping_qemu(for_s=1.5))
    assert verdict.outcome == "failed", verdict.error
    verdict = run(plan("{refuse: 0x81}", within="1 s"), before_step=stopping_qemu(for_s=3.0))
    assert verdict.outcome == "failed", verdict.error


def test_what_comes_in_time_passes_as_ever(run: Run) -> None:
    verdict = run(plan("accept", within="20 s"), before_step=stopping_qemu(for_s=1.5))
    assert verdict.outcome == "passed", verdict.error


def test_a_qemu_that_is_stopped_for_good_is_waited_for_once(run: Run) -> None:
    began_s = time.monotonic()
    verdict = run(plan("accept", within="1 s"), before_step=stopping_qemu(for_s=None))
    assert stalled(verdict) > 1
    assert "and still does not run" in str(verdict.error)
    assert time.monotonic() - began_s < 60


def test_a_harness_that_was_stopped_blames_nobody(tmp_path: Path) -> None:
    path, results = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text("guest: qtest\n" + plan("{late: 1 s}", within="2 s"))
    command = [sys.executable, "-m", "harness", "run", path, "--results", results]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as harness:
        deadline = Deadline.after(60)
        while not any('"device_add"' in log.read_text() for log in results.rglob("qmp.jsonl")):
            deadline.check("the plug")
            select.select([], [], [], 0.01)
        harness.send_signal(signal.SIGSTOP)
        threading.Timer(4.0, harness.send_signal, (signal.SIGCONT,)).start()
        said, _ = harness.communicate(timeout=60)
    assert harness.returncode == 3, said
    assert "the harness got no processor time for" in said
