# SPDX-License-Identifier: MIT
"""What programs were told of, against what drivers were: who has missed what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.evidence.judge import outstanding
from harness.evidence.judge_told import plain
from harness.evidence.mismatch import Mismatch, first_broken
from harness.evidence.witness import Told
from tests.words.perfect_run import REFERENCE, Run, change_fields, link_of, perfect_run, plan_of, told

PLAN = """
steps:
  - {plug: {vcpus: 1, dimms: [128 MiB]}, expect: {driver: [processor, memory]}}
"""
WHAT = "memory arrivals that the guest's PnP manager told to programs"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return perfect_run(plan_of(tmp_path, PLAN), REFERENCE)


def not_told(run: Run, class_: str = "memory") -> None:
    seen = run.steps[0].told or ()
    run.break_step(1, told=tuple(one for one in seen if one.interface_class != class_))


def not_recorded(run: Run, word: str = "memory") -> None:
    run.break_records(1, lambda records: [one for one in records if one.record.word != word])


def recorded_only(run: Run) -> None:
    run.break_step(1, effect=run.steps[0].effect.asking(answers=True, told=False))


def blamed(run: Run) -> Mismatch:
    first = first_broken(run.verify())
    assert first is not None
    return first


def test_the_platform_told_nobody(run: Run) -> None:
    not_told(run)
    not_recorded(run)
    assert told(blamed(run))[1:] == ("guest", WHAT, "1", "none: the platform told nobody")


def test_the_driver_missed_what_programs_were_told(run: Run) -> None:
    not_recorded(run)
    assert blamed(run).witness == "driver"


def test_the_driver_alone_was_told(run: Run) -> None:
    not_told(run)
    assert told(blamed(run))[1:] == ("guest", WHAT, "1", "none, though the driver was told")


def test_where_it_is_only_recorded_a_driver_that_was_told_suffices(run: Run) -> None:
    not_told(run)
    recorded_only(run)
    assert run.verify() == ()
    assert outstanding(run.steps[0]) == frozenset()


def test_where_it_is_only_recorded_it_tells_whom_to_blame_all_the_same(run: Run) -> None:
    not_told(run)
    not_recorded(run)
    recorded_only(run)
    assert blamed(run).witness == "guest"


def test_where_nobody_can_know_the_driver_is_blamed(run: Run) -> None:
    not_recorded(run)
    run.break_step(1, told=None)
    assert blamed(run).witness == "driver"


def test_told_more_than_once(run: Run) -> None:
    seen = run.steps[0].told or ()
    run.break_step(1, told=(*seen, seen[-1]))
    assert told(blamed(run))[1:] == ("guest", WHAT, "1", "2")


def test_told_too_late(run: Run) -> None:
    seen = run.steps[0].told or ()
    late = tuple(replace(one, at_s=one.at_s + 60) for one in seen)
    run.break_step(1, told=late)
    first = blamed(run)
    assert (first.witness, first.what) == ("guest", "a processor arrival told late to programs")
    assert first.expected == "told within 30 s"


def test_programs_see_links_in_another_spelling(run: Run) -> None:
    seen = run.steps[0].told or ()
    spelled = tuple(replace(one, link="\\\\?" + one.link[3:].upper()) for one in seen)
    assert spelled[0].link.startswith("\\\\?\\ACPI#")
    run.break_step(1, told=spelled)
    assert run.verify() == ()
    assert {plain(one.link) for one in spelled} == {plain(one.link) for one in seen}


def test_the_driver_tells_of_another_device_than_programs_were_told(run: Run) -> None:
    other = link_of("memory", 7)
    run.break_records(
        1,
        lambda records: [
            change_fields(one, link=other) if one.record.word == "memory" else one for one in records
        ],
    )
    expected = link_of("memory", 0)
    assert told(blamed(run))[1:] == ("driver", "a link that no program was told", expected, other)


def test_what_is_waited_for(run: Run) -> None:
    not_told(run)
    assert outstanding(run.steps[0]) == {"guest"}


def test_a_removal_that_nobody_made(run: Run) -> None:
    seen = run.steps[0].told or ()
    stray = Told("memory", "removal", link_of("memory", 0), seen[0].at_s, 0.0)
    run.break_step(1, told=(*seen, stray))
    first = blamed(run)
    assert (first.witness, first.expected, first.seen) == ("guest", "none", "1")
