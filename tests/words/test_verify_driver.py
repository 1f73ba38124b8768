# SPDX-License-Identifier: MIT
"""Verify, witness driver: each way in which a driver's log can be wrong, told by its own words.

Every test starts from the evidence of a perfect run and spoils one thing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.evidence import ObservedRecord
from harness.mismatch import first_broken
from harness.units import GIB
from tests.words.perfect_run import (
    REFERENCE,
    Driver,
    Run,
    arrival,
    change,
    link_of,
    only,
    perfect_run,
    plan_of,
    told,
)

# --- driver: which records ------------------------------------------------------------------------------


def test_the_driver_logs_nothing(run: Run) -> None:
    run.end_after(1)
    run.break_records(1, lambda records: [])
    assert told(only(run.verify())) == (1, "driver", "the driver logged nothing", "processor", "no record")


@pytest.mark.parametrize(
    ("expected_words", "what", "expected"),
    [
        ("[processor, processor]", "1 record too few", "processor, processor"),
        ("[processor, memory, add_start]", "2 records too few", "processor, memory, add_start"),
        ("[]", "1 record too many", "no record"),
        ("[memory]", "other records", "memory"),
    ],
)
def test_the_plan_expects_other_arrivals_than_come(
    tmp_path: Path, expected_words: str, what: str, expected: str
) -> None:
    text = "steps: [{plug: {vcpus: 1}, expect: {driver: %s}}]"
    run = perfect_run(plan_of(tmp_path, text % "[processor]"), REFERENCE)
    run.plan = plan_of(tmp_path, text % expected_words)
    assert told(only(run.verify())) == (1, "driver", what, expected, "processor")


def test_records_in_another_order(tmp_path: Path) -> None:
    text = "steps: [{plug: {dimms: [128 MiB]}, expect: {driver: %s}}]"
    run = perfect_run(plan_of(tmp_path, text % "[processor, memory]"), REFERENCE)
    run.plan = plan_of(tmp_path, text % "[memory, processor]")
    mismatch = only(run.verify())
    assert (mismatch.what, mismatch.expected, mismatch.seen) == (
        "records in another order", "memory, processor", "processor, memory",
    )  # fmt: skip


def test_two_classes_plugged_together_come_in_any_order(tmp_path: Path) -> None:
    text = "steps: [{plug: {vcpus: 1, dimms: [128 MiB]}, expect: {driver: %s}}]"
    run = perfect_run(plan_of(tmp_path, text % "[memory, processor]"), REFERENCE)
    run.plan = plan_of(tmp_path, text % "[processor, memory]")
    assert run.verify() == ()


def test_an_arrival_told_twice(run: Run) -> None:
    run.end_after(1)
    driver = Driver(seq=2, vcpus=2)
    run.break_records(
        1, lambda records: [*records, driver.write("notification", arrival("processor", 1), at_s=100)]
    )
    again, too_many = run.verify()
    link = link_of("processor", 1)
    assert told(again) == (
        1, "driver", "the same arrival told again", f"{link} once, as in step 1, seq=2", "again at seq=3",
    )  # fmt: skip
    assert told(too_many) == (1, "driver", "1 record too many", "processor", "processor, processor")


def test_an_arrival_told_again_in_place_of_another(run: Run) -> None:
    def repeat_the_first(records: list[ObservedRecord]) -> list[ObservedRecord]:
        fields = {**records[0].record.fields, "link": link_of("processor", 1).upper()}
        return [change(records[0], fields=fields), *records[1:]]

    run.break_records(3, repeat_the_first)
    mismatch = only(run.verify())
    assert (mismatch.step, mismatch.what) == (3, "the same arrival told again")
    assert mismatch.expected.endswith("once, as in step 1, seq=2")


def test_a_removed_device_may_arrive_again(run: Run) -> None:
    run.end_after(1)
    driver = Driver(seq=2, vcpus=2)
    link = link_of("processor", 1)
    run.break_records(
        1,
        lambda records: [
            *records,
            driver.write("notification", f"class=processor event=removal link={link}", at_s=100),
            driver.write("notification", arrival("processor", 1), at_s=100),
        ],
    )
    assert "the same arrival told again" not in [mismatch.what for mismatch in run.verify()]


def test_an_arrival_with_the_other_class(run: Run) -> None:
    def with_the_other_class(records: list[ObservedRecord]) -> list[ObservedRecord]:
        return [change(records[0], fields={**records[0].record.fields, "class": "memory"})]

    run.break_records(1, with_the_other_class)
    shape, words = run.verify()
    assert (shape.step, shape.witness) == (1, "driver")
    assert shape.what == "the symbolic link of an arrival of class memory"
    assert (shape.expected, shape.seen) == (
        f"a link that matches {REFERENCE.links.memory}", link_of("processor", 1),
    )  # fmt: skip
    assert told(words) == (1, "driver", "other records", "processor", "memory")


def test_a_notification_with_an_unknown_guid(run: Run) -> None:
    fields = {"class": "processor", "event": "other", "link": "x", "event_guid": "{cb3a4009}"}
    run.break_records(1, lambda records: [change(records[0], fields=fields)])
    event, words = run.verify()
    assert told(event) == (
        1, "driver", "a notification that is no arrival of a processor or of memory", "arrivals only",
        "class=processor event=other link=x event_guid={cb3a4009}",
    )  # fmt: skip
    assert told(words) == (1, "driver", "other records", "processor", "processor other")


def test_a_record_while_the_driver_is_stopped(run: Run) -> None:
    run.end_after(5)
    driver = Driver(seq=6)
    run.break_records(5, lambda _: [driver.write("notification", arrival("memory", 3), at_s=500)])
    assert told(only(run.verify())) == (
        5, "driver", "records while the driver is stopped", "no record", "memory",
    )  # fmt: skip


# --- driver: in time, complete, and with the right figures ---------------------------------------------


def test_a_late_arrival(run: Run) -> None:
    run.break_records(1, lambda records: [replace(records[0], written_at_s=112.5)])
    assert told(only(run.verify())) == (
        1, "driver", "a late record", "processor within 10 s", "processor (seq=2) after 12.5 s",
    )  # fmt: skip


@pytest.mark.parametrize(("after_s", "is_late"), [(10.0, False), (10.009, False), (10.011, True)])
def test_late_means_late_beyond_the_doubt_of_the_clocks(run: Run, after_s: float, is_late: bool) -> None:
    run.break_records(1, lambda records: [replace(records[0], written_at_s=100.0 + after_s)])
    assert bool(run.verify()) is is_late


def test_a_gap_in_the_log(run: Run) -> None:
    run.end_after(2)
    run.break_records(2, lambda records: [change(records[0], seq=5)])
    assert told(only(run.verify())) == (
        2,
        "driver",
        "a gap in the log",
        "seq=3 after seq=2",
        "seq=5, 2 missing",
    )


def test_a_gap_behind_the_baseline(run: Run) -> None:
    run.end_after(1)
    run.break_records(1, lambda records: [change(records[0], seq=3)])
    assert told(only(run.verify())) == (
        1,
        "driver",
        "a gap in the log",
        "seq=2 after seq=1",
        "seq=3, 1 missing",
    )


def test_a_sequence_that_goes_back(run: Run) -> None:
    run.end_after(1)
    run.break_records(1, lambda records: [change(records[0], seq=1)])
    assert told(only(run.verify())) == (1, "driver", "a gap in the log", "seq=2 after seq=1", "seq=1")


def test_records_lost_by_the_driver_are_told_once(run: Run) -> None:
    for number in (2, 3):
        run.break_records(number, lambda records: [change(record, lost=4) for record in records])
    assert told(only(run.verify())) == (
        2, "driver", "records lost by the driver", "lost=0", "lost=4 at seq=3",
    )  # fmt: skip


def test_a_link_of_another_shape(run: Run) -> None:
    fields = {"class": "memory", "event": "arrival", "link": r"\??\ROOT#NOTHING"}
    run.break_records(2, lambda records: [change(records[0], fields=fields)])
    mismatch = only(run.verify())
    assert (mismatch.step, mismatch.what) == (2, "the symbolic link of an arrival of class memory")
    assert mismatch.seen == r"\??\ROOT#NOTHING"


@pytest.mark.parametrize(
    ("fields", "what", "expected", "seen"),
    [
        ({"active_processors": 2}, "active processors in the baseline", "3 as in the guest", "2"),
        ({"memory_bytes": GIB}, "memory in the baseline in bytes",
         "1610612736 (1073741824 + 536870912 plugged since)", "1073741824"),
    ],
)  # fmt: skip
def test_a_wrong_baseline(run: Run, fields: dict[str, int], what: str, expected: str, seen: str) -> None:
    run.break_records(6, lambda records: [records[0], change(records[1], **fields)])
    assert told(only(run.verify())) == (6, "driver", what, expected, seen)


def test_a_wrong_baseline_before_the_first_step(run: Run) -> None:
    run.earlier[1] = change(run.earlier[1], active_processors=2)
    mismatch = only(run.verify())
    assert (mismatch.step, mismatch.title) == (0, "before the first step")
    assert (mismatch.what, mismatch.seen) == ("active processors in the baseline", "2")


def test_an_arrival_before_anything_was_plugged(run: Run) -> None:
    run.earlier.append(Driver(seq=1).write("notification", arrival("processor", 9)))
    mismatch = first_broken(run.verify())
    assert mismatch is not None
    assert told(mismatch) == (
        0, "driver", "an arrival before anything was plugged", "no arrival", "processor (seq=2)",
    )  # fmt: skip


def test_older_loads_in_the_same_log_are_no_matter(run: Run) -> None:
    older = Driver(seq=4, vcpus=64, memory_bytes=64 * GIB)
    run.earlier[:0] = [older.write("baseline"), older.write("unload")]
    assert run.verify() == ()
