# SPDX-License-Identifier: MIT
"""The harness says *failed* and blames the right layer, or *error* and blames nobody, each for its reason."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.evidence.verdict import Verdict
from harness.evidence.witness import Witness
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan
from harness.run.report import LONGEST_FAILURE_LINES, failure_lines
from harness.run.run import run_plan
from harness.run.session import Session
from tests.e2e.conftest import background, shell

Run = Callable[..., Verdict]

LOG = "/C:/ProgramData/hpnotify/hpnotify.log"
MEMORY_GUID = "{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"
PROCESSOR_GUID = "{97fadb10-4e33-40ae-359c-8bef029dbdd0}"
ARRIVAL_GUID = "{cb3a4004-46f0-11d0-b08f-00609713053f}"
FIRST_DIMM = rf"\??\ACPI#PNP0C80#0x00#{MEMORY_GUID}"

ONE_DIMM = """
within: 3 s
steps:
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
"""
TWO_DIMMS = """
within: 3 s
steps:
  - plug: {dimms: [128 MiB]}
    repeat: 2
    expect: {driver: [memory]}
"""


def rewrite_log(guest: SshGuest, case: str) -> None:
    """Have the harness read, of what the driver writes from now on, what a shell's case makes of a line."""
    # The driver goes on writing to the file it opened.
    shell(guest, f"cp {LOG} {LOG}.copy && mv {LOG} {LOG}.real && mv {LOG}.copy {LOG}")
    copy = f"while IFS= read -r line; do case $line in {case} esac; done"
    background(guest, f"tail -n 0 -f {LOG}.real | {copy} >>{LOG}")


def silence(guest: SshGuest) -> None:
    """Let the driver log nothing any more."""
    rewrite_log(guest, "*) ;;")


def tell(*requests: str) -> str:
    """Return the shell command that hands requests to the PnP manager in the place of the feed."""
    lines = "".join(request.replace("\\", "\\\\") + "\\n" for request in requests)
    return f"printf '{lines}' | wine64 'C:\\hil\\pnpfeed.exe'"


def assert_failed(verdict: Verdict, *, step: int, what: str, witness: Witness = "driver") -> None:
    """Check that the plan failed, who is to blame, and that people are told so briefly."""
    assert verdict.outcome == "failed", failure_lines(verdict)
    first = verdict.mismatches[0]
    assert (first.witness, first.step) == (witness, step), verdict.mismatches
    assert what in [mismatch.what for mismatch in verdict.mismatches], verdict.mismatches
    lines = failure_lines(verdict)
    assert len(lines) <= LONGEST_FAILURE_LINES
    assert any(line.startswith(f"blame     {witness}") for line in lines)
    assert_evidence(verdict.evidence)


def assert_evidence(folder: Path) -> None:
    """Check that the folder is complete and that what must not be empty is not."""
    for name in ("plan.yaml", "qemu-command.txt", "qmp.jsonl", "driver.log", "verdict.json"):
        assert (folder / name).stat().st_size > 0, name
    for name in ("serial.log", "qemu-stderr.log", "timeline.jsonl"):
        assert (folder / name).exists(), name
    assert json.loads((folder / "verdict.json").read_text())["outcome"] in ("failed", "error")


@pytest.mark.parametrize(
    ("expected", "what"), [("[memory, memory]", "1 record too few"), ("[]", "1 record too many")]
)
def test_fails_when_the_plan_expects_one_arrival_more_or_fewer(run: Run, expected: str, what: str) -> None:
    verdict = run(ONE_DIMM.replace("[memory]", expected))
    assert_failed(verdict, step=1, what=what)


def test_fails_when_the_arrival_comes_twice(run: Run) -> None:
    again = f"deliver {MEMORY_GUID} {ARRIVAL_GUID} {FIRST_DIMM}"
    verdict = run(TWO_DIMMS, sabotage={2: lambda guest: shell(guest, tell(again))})
    assert_failed(verdict, step=1, what="the same arrival told again")


def test_fails_when_the_platform_tells_late_and_not_the_driver_is_blamed(run: Run) -> None:
    def delay(guest: SshGuest) -> None:
        shell(guest, "killall -STOP hpfeed")
        background(guest, "sleep 4; killall -CONT hpfeed")

    verdict = run(ONE_DIMM, sabotage={1: delay})
    assert_failed(verdict, step=1, what="a memory arrival told late to programs", witness="guest")
    assert "a late record" in [mismatch.what for mismatch in verdict.mismatches], "as it was, too"


def test_fails_when_the_arrival_has_the_other_class(run: Run) -> None:
    def mistake(guest: SshGuest) -> None:
        rewrite_log(guest, '*) echo "$line" | sed s/class=memory/class=processor/;;')

    assert_failed(run(ONE_DIMM, sabotage={1: mistake}), step=1, what="other records")


def test_fails_when_the_driver_logs_nothing(run: Run) -> None:
    assert_failed(run(ONE_DIMM, sabotage={1: silence}), step=1, what="the driver logged nothing")


def test_fails_when_the_log_has_a_gap(run: Run) -> None:
    def lose_a_line(guest: SshGuest) -> None:
        rewrite_log(guest, 'seq=3*) ;; *) echo "$line";;')

    three = ONE_DIMM.replace("[128 MiB]", "[128 MiB, 128 MiB, 128 MiB]").replace(
        "[memory]", "[memory, memory, memory]"
    )
    assert_failed(run(three, sabotage={1: lose_a_line}), step=1, what="a gap in the log")


@pytest.mark.parametrize("date", ["2001-01-01", "2037-01-01"])
def test_passes_when_the_guests_time_of_day_is_set(run: Run, date: str) -> None:
    verdict = run(TWO_DIMMS, sabotage={2: lambda guest: shell(guest, f"date -s {date}")})
    assert verdict.outcome == "passed", failure_lines(verdict)
    before, after = (verdict.steps[number].guest_after for number in (0, 1))
    assert before is not None
    assert after is not None
    assert before.reading is not None
    assert after.reading is not None
    set_by_s = (after.reading.time_100ns - before.reading.time_100ns) / 10_000_000
    assert abs(set_by_s) > 365 * 24 * 3600, "it was"


def test_is_an_error_when_qemu_is_killed(run: Run) -> None:
    verdict = run(TWO_DIMMS, sabotage={2: lambda guest: os.kill(guest.vm.pid, signal.SIGKILL)})
    assert verdict.outcome == "error"
    assert verdict.error is not None
    assert "SIGKILL" in verdict.error
    assert_evidence(verdict.evidence)
    assert "seq=2" in (verdict.evidence / "driver.log").read_text()
    assert "after step 1: plug DIMM 128 MiB" in "\n".join(failure_lines(verdict))


def test_is_an_error_that_keeps_what_was_seen_of_the_step_it_broke_in(run: Run) -> None:
    def kill_once_acpi_has_answered(guest: SshGuest) -> None:
        shell(guest, "killall -STOP hpfeed")
        listening = threading.Event()

        def kill() -> None:
            with guest.vm.listen("ACPI_DEVICE_OST") as ost:
                listening.set()
                ost.get(deadline=Deadline.after(60))
                os.kill(guest.vm.pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        assert listening.wait(60)

    patient = TWO_DIMMS.replace("within: 3 s", "within: 60 s")
    verdict = run(patient, sabotage={2: kill_once_acpi_has_answered})
    assert verdict.outcome == "error"
    assert [step.number for step in verdict.steps] == [1]
    unfinished = verdict.unfinished
    assert unfinished is not None
    assert (unfinished.number, [device.device_id for device in unfinished.devices]) == (2, ["dimm1"])
    assert [answer.status for answer in unfinished.ospm] == [0]
    assert "in step   2: plug DIMM 128 MiB" in "\n".join(failure_lines(verdict))
    timeline = (verdict.evidence / "timeline.jsonl").read_text()
    assert "device_add dimm1" in timeline
    assert "_OST of dimm1" in timeline
    assert_evidence(verdict.evidence)


def test_is_an_error_when_ssh_dies(run: Run) -> None:
    def cut(guest: SshGuest) -> None:
        # The listener starts anew by itself; the harness's own connection does not.
        background(guest, "killall sshd")

    verdict = run(TWO_DIMMS, sabotage={2: cut})
    assert verdict.outcome == "error"
    assert verdict.error is not None
    assert "127.0.0.1" in verdict.error
    assert_evidence(verdict.evidence)


def test_is_an_error_when_the_log_vanishes(run: Run) -> None:
    verdict = run(TWO_DIMMS, sabotage={2: lambda guest: shell(guest, f"rm {LOG}")})
    assert verdict.outcome == "error"
    assert verdict.error is not None
    assert "has vanished" in verdict.error
    assert_evidence(verdict.evidence)


def test_fails_when_the_driver_does_not_start_again(run: Run) -> None:
    plan = """
within: 20 s
steps:
  - driver: stop
    expect: {driver: [unload]}
  - driver: start
    expect: {driver: [load, baseline]}
"""
    # DriverEntry fails with what ZwCreateFile tells it: the disk is full.
    verdict = run(plan, sabotage={2: lambda guest: shell(guest, tell("fail ZwCreateFile 0xc000007f"))})
    assert_failed(verdict, step=2, what="the driver did not start")


def test_fails_when_the_driver_does_not_load_at_all(
    session: Session, load: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = load(ONE_DIMM)
    broken = tmp_path / "hpnotify.sys"
    broken.write_bytes(session.bench(plan).driver.read_bytes()[:4096])
    bench = replace(session.bench(plan), driver=broken)
    verdict = run_plan(plan, bench=bench, folder=tmp_path / "evidence")
    assert verdict.outcome == "failed", failure_lines(verdict)
    (mismatch,) = verdict.mismatches
    assert (mismatch.step, mismatch.witness, mismatch.what) == (0, "driver", "the driver did not start")
    assert (verdict.evidence / "verdict.json").exists()
