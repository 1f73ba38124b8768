# SPDX-License-Identifier: MIT
"""What befalls guest or VM under a plan is judged at once: whose doing it was, in which step, how soon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from harness.deadline import Deadline
from harness.evidence.verdict import Verdict
from harness.guest.ssh_guest import SshGuest
from harness.run.report import failure_lines
from tests.e2e.conftest import background

Run = Callable[..., Verdict]

#: Long enough that a step which only waits for its deadline is told from one that ends at once.
TWO_DIMMS = """
within: 100 s
steps:
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory, memory]}
"""
SOON_S = 60.0

RESTARTS = "reboot -f"
PANICS = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"
SWITCHES_ITSELF_OFF = "poweroff -f"


def of_the_guest(script: str) -> Callable[[SshGuest], None]:
    """Have the guest do this to itself a moment after the next act."""
    return lambda guest: background(guest, f"sleep 0.5; {script}")


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (RESTARTS, "the guest restarted"),
        (PANICS, "the guest panicked"),  # and is told to restart then, which is all that QEMU sees
        (SWITCHES_ITSELF_OFF, "the guest powered off"),
    ],
)
def test_a_guest_that_goes_away_by_itself_has_failed_at_once(run: Run, script: str, what: str) -> None:
    verdict = run(TWO_DIMMS, sabotage={2: of_the_guest(script)})
    assert verdict.outcome == "failed", failure_lines(verdict)
    (mismatch,) = verdict.mismatches
    assert (mismatch.witness, mismatch.step) == ("guest", 2)
    assert mismatch.what.startswith(what)
    assert mismatch.what.endswith("after 'plug DIMM 128 MiB'")
    lines = failure_lines(verdict)
    assert any(line.startswith("blame     guest") for line in lines), lines
    assert [step.number for step in verdict.steps] == [1, 2]
    assert verdict.steps[1].incidents
    assert verdict.duration_s < SOON_S
    assert "seq=2" in (verdict.evidence / "driver.log").read_text()
    assert what in (verdict.evidence / "timeline.jsonl").read_text()


def test_a_guest_that_goes_away_in_the_last_step_has_failed(run: Run) -> None:
    settled = TWO_DIMMS.replace("[memory, memory]", "[memory]")
    verdict = run(settled, sabotage={2: of_the_guest(RESTARTS)})
    assert verdict.outcome == "failed", failure_lines(verdict)
    assert (verdict.mismatches[0].witness, verdict.mismatches[0].step) == ("guest", 2)


def test_a_guest_that_goes_away_before_the_first_step_has_failed(run: Run) -> None:
    def restart(guest: SshGuest) -> None:
        with guest.vm.listen("RESET") as resets:
            background(guest, RESTARTS)
            resets.get(deadline=Deadline.after(60))

    verdict = run(TWO_DIMMS, sabotage={1: restart})
    assert verdict.outcome == "failed", failure_lines(verdict)
    assert (verdict.mismatches[0].witness, verdict.mismatches[0].step) == ("guest", 0)


@pytest.mark.parametrize(
    ("command", "says"), [("stop", "paused the guest"), ("system_reset", "reset the guest")]
)
def test_what_somebody_does_to_the_vm_is_an_error_that_says_so(run: Run, command: str, says: str) -> None:
    def meddle(guest: SshGuest) -> None:
        acted = threading.Event()

        def after_the_act() -> None:
            with guest.vm.listen("ACPI_DEVICE_OST") as ost:
                acted.set()
                ost.get(deadline=Deadline.after(60))
                guest.vm.execute(command)

        threading.Thread(target=after_the_act, daemon=True).start()
        assert acted.wait(60)

    verdict = run(TWO_DIMMS, sabotage={2: meddle})
    assert verdict.outcome == "error", failure_lines(verdict)
    assert verdict.error is not None
    assert says in verdict.error
    assert "SSH" not in verdict.error
    assert verdict.duration_s < SOON_S


def test_a_qemu_that_is_told_to_end_is_an_error_that_says_so(run: Run) -> None:
    verdict = run(TWO_DIMMS, sabotage={2: lambda guest: os.kill(guest.vm.pid, signal.SIGTERM)})
    assert verdict.outcome == "error"
    assert verdict.error is not None
    assert "QEMU" in verdict.error
    assert "SSH" not in verdict.error
