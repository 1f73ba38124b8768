# SPDX-License-Identifier: MIT
"""What stands at the log's end is judged, or the plan ends with an error; a line without end is no record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.evidence.verdict import Verdict
from harness.guest.ssh_guest import SshGuest
from harness.run.report import failure_lines
from tests.e2e.conftest import background, shell

Run = Callable[..., Verdict]

LOG = "/C:/ProgramData/hpnotify/hpnotify.log"
ONE_DIMM = """
within: 3 s
steps:
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
"""
RESET = """
steps:
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
  - power: reset
    expect: {driver: [load, baseline]}
"""
TORN = "seq=3 record=notification time_100ns=13"
TEAR = f"printf '{TORN}' >>{LOG}"


def tear_after_the_arrival(guest: SshGuest) -> None:
    background(guest, f"until grep -q seq=2 {LOG}; do usleep 20000; done; {TEAR}")


def assert_error(verdict: Verdict) -> None:
    assert verdict.outcome == "error", failure_lines(verdict)
    assert verdict.error == (
        f"the driver's log does not end in a whole line: {len(TORN)} bytes without a line feed, '{TORN}'"
    )
    assert (verdict.evidence / "driver.log").read_text().endswith(f"\n{TORN}")


def test_is_an_error_when_the_log_ends_in_half_a_record(run: Run) -> None:
    assert_error(run(ONE_DIMM, sabotage={1: tear_after_the_arrival}))


def test_what_has_failed_stays_failed(run: Run) -> None:
    verdict = run(ONE_DIMM.replace("[memory]", "[memory, memory]"), sabotage={1: tear_after_the_arrival})
    assert verdict.outcome == "failed"
    few, end = verdict.mismatches
    assert (few.what, few.witness, few.step) == ("1 record too few", "driver", 1)
    assert (end.what, end.witness, end.step) == ("the end of the driver's log", "driver", 1)
    assert TORN in end.seen
    assert (verdict.evidence / "driver.log").read_text().endswith(f"\n{TORN}")


def test_is_an_error_when_it_does_before_the_guest_boots_again(run: Run) -> None:
    assert_error(run(RESET, sabotage={2: lambda guest: shell(guest, TEAR)}))


def test_what_the_reset_itself_tears_is_no_matter(run: Run) -> None:
    def tear_at_the_reset(guest: SshGuest) -> None:
        execute: Callable[..., Any] = guest.vm.execute

        def torn(command: str, *arguments: Any, **options: Any) -> Any:
            if command == "system_reset":
                shell(guest, TEAR)
            return execute(command, *arguments, **options)

        guest.vm.execute = torn  # type: ignore[method-assign]

    verdict = run(RESET, sabotage={2: tear_at_the_reset})
    assert verdict.outcome == "passed", failure_lines(verdict)


def test_the_driver_is_told_of_what_exists_and_of_nothing_else(run: Run) -> None:
    plan = "{driver: {existing: true, interfaces: %s}, steps: [{wait: 1 s, expect: {driver: []}}]}"
    verdict = run(plan % "both")
    assert verdict.outcome == "passed", failure_lines(verdict)
    words = [observed.record.word for observed in verdict.earlier]
    assert words[-3:] == ["load", "baseline", "processor"]
    verdict = run(plan % "memory")
    assert verdict.outcome == "passed", failure_lines(verdict)
    assert [observed.record.word for observed in verdict.earlier][-2:] == ["load", "baseline"]
