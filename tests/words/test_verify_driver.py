# SPDX-License-Identifier: MIT
"""Verify, witness driver: each way in which a driver's log can be wrong, told by its own words.

Every test starts from the evidence of a perfect run and spoils one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.document.units import GIB, MIB
from harness.evidence.judge import outstanding
from harness.evidence.mismatch import first_broken
from harness.evidence.witness import GuestState, ObservedRecord
from tests.words.deviations import swapped
from tests.words.perfect_run import (
    REFERENCE,
    Driver,
    Run,
    arrival,
    change,
    change_fields,
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
    run.expect(plan_of(tmp_path, text % expected_words))
    assert told(only(run.verify())) == (1, "driver", what, expected, "processor")


def test_records_in_another_order_than_a_plan_demands(tmp_path: Path) -> None:
    text = "steps: [{plug: {vcpus: 1, dimms: [128 MiB]}, expect: {order: strict, driver: %s}}]"
    run = perfect_run(plan_of(tmp_path, text % "[processor, memory]"), REFERENCE)
    run.expect(plan_of(tmp_path, text % "[memory, processor]"))
    mismatch = only(run.verify())
    assert (mismatch.what, mismatch.expected, mismatch.seen) == (
        "records in another order", "memory, processor", "processor, memory",
    )  # fmt: skip


def test_two_classes_plugged_together_come_in_any_order(tmp_path: Path) -> None:
    text = "steps: [{plug: {vcpus: 1, dimms: [128 MiB]}, expect: {driver: %s}}]"
    run = perfect_run(plan_of(tmp_path, text % "[memory, processor]"), REFERENCE)
    run.expect(plan_of(tmp_path, text % "[processor, memory]"))
    assert run.verify() == ()


def test_the_drivers_own_records_are_in_order_with_what_it_is_told(tmp_path: Path) -> None:
    text = "{driver: {existing: true}, steps: [{driver: stop, expect: {driver: [unload]}}, %s]}"
    start = "{driver: start, expect: {driver: %s}}"
    run = perfect_run(plan_of(tmp_path, text % (start % "[load, baseline, processor]")), REFERENCE)
    run.break_records(2, lambda records: swapped(records, 1, -1))
    early, words = run.verify()
    assert told(early)[2:] == ("a baseline that is not the second record of its load", "seq=1", "seq=2")
    assert told(words)[2:] == (
        "records in another order", "load, baseline, processor", "load, processor, baseline",
    )  # fmt: skip


# --- driver: several processors at once -----------------------------------------------------------------

THREE = """
driver: {synchronous: true}
steps:
  - plug: {vcpus: 3}
    expect: {driver: [add_start, add_complete, processor, add_start, add_complete, processor,
                      add_start, add_complete, processor], order: %s}
"""


def reordered(records: Sequence[ObservedRecord], order: Sequence[int]) -> tuple[ObservedRecord, ...]:
    """Return the records with what they tell in another order; numbers and clocks are of the place."""
    kept = ("seq", "time_100ns", "qpc")
    return tuple(
        change(records[new], **{name: getattr(place.record, name) for name in kept})
        for place, new in zip(records, order, strict=True)
    )


@pytest.mark.parametrize(
    "order",
    [
        [0, 3, 6, 1, 4, 7, 2, 5, 8],  # all starts, all completions, all arrivals
        [6, 3, 0, 4, 1, 7, 8, 5, 2],
        [0, 1, 3, 4, 2, 5, 6, 7, 8],
        [3, 4, 2, 0, 1, 6, 7, 5, 8],  # an arrival may be of any of those that are complete
    ],
)
def test_processors_plugged_together_come_up_in_any_order(tmp_path: Path, order: list[int]) -> None:
    run = perfect_run(plan_of(tmp_path, THREE % "per_device"), REFERENCE)
    # The others may be up already whenever one is told of.
    run.break_records(
        1,
        lambda records: [
            change(one, active_processors=3 if one.record.word == "add_start" else 4)
            for one in reordered(records, order)
        ],
    )
    assert run.verify() == ()
    run.expect(plan_of(tmp_path, THREE % "strict"))
    assert only(run.verify()).what == "records in another order"


@pytest.mark.parametrize(
    ("order", "what"),
    [
        ([1, 0, 2, 3, 4, 5, 6, 7, 8], "add_complete of processor 1 without its start"),
        ([0, 2, 1, 3, 4, 5, 6, 7, 8], "the arrival of a processor before its completion"),
        ([0, 3, 1, 2, 5, 4, 6, 7, 8], "the arrival of a processor before its completion"),
        ([0, 1, 2, 4, 3, 5, 6, 7, 8], "add_complete of processor 2 without its start"),
        ([2, 5, 8, 0, 1, 3, 4, 6, 7], "the arrival of a processor before its completion"),
    ],
)
def test_records_of_one_processor_in_the_wrong_order(tmp_path: Path, order: list[int], what: str) -> None:
    run = perfect_run(plan_of(tmp_path, THREE % "per_device"), REFERENCE)
    run.break_records(1, lambda records: reordered(records, order))
    assert what in [mismatch.what for mismatch in run.verify()]


def test_a_start_and_its_completion_of_different_processors(tmp_path: Path) -> None:
    text = "{vm: {vcpus: 2}, driver: {synchronous: true}, steps: [{plug: {vcpus: 1}, expect: {driver: %s}}]}"
    run = perfect_run(plan_of(tmp_path, text % "[add_start, add_complete, processor]"), REFERENCE)
    other = {"number": "7", "group_number": "7"}
    run.break_records(1, lambda records: [change_fields(records[0], **other), *records[1:]])
    number, without = run.verify()
    assert told(number)[2:] == ("the number of a processor", "one of 2 to 2", "7 in add_start (seq=2)")
    assert told(without)[2:] == (
        "add_complete of processor 2 without its start",
        "add_start of number=2 before it",
        "add_complete (seq=3)",
    )


def test_a_processor_that_failed_may_be_started_again(tmp_path: Path) -> None:
    text = "{driver: {synchronous: true}, steps: [{plug: {vcpus: 1}, expect: {driver: %s}}]}"
    words = "[add_start, add_failure, add_start, add_complete, processor]"
    run = perfect_run(plan_of(tmp_path, text % words), REFERENCE)
    same = {"number": "1", "group_number": "1"}
    run.break_records(1, lambda records: [*(change_fields(one, **same) for one in records[:4]), records[4]])
    assert run.verify() == ()
    run.break_records(
        1, lambda records: [records[0], change_fields(records[1], status="0x00000000"), *records[2:]]
    )
    assert told(only(run.verify()))[2:] == (
        "the status in the record add_failure (seq=3)", "a failure", "0x00000000",
    )  # fmt: skip


def test_a_call_of_a_callback_that_is_not_registered(tmp_path: Path) -> None:
    text = "{driver: {synchronous: %s}, steps: [{plug: {vcpus: 1}, expect: {driver: %s}}]}"
    words = "[add_start, add_complete, processor]"
    run = perfect_run(plan_of(tmp_path, text % ("false", words)), REFERENCE)
    assert [mismatch.what for mismatch in run.verify()] == ["a call of a callback that is not registered"] * 2


def test_processors_of_more_than_one_group(tmp_path: Path) -> None:
    text = "{driver: {synchronous: true}, steps: [{plug: {vcpus: 2}, expect: {driver: %s}}]}"
    words = "[add_start, add_complete, processor, add_start, add_complete, processor]"
    run = perfect_run(plan_of(tmp_path, text % words), REFERENCE)
    run.driver = replace(run.driver, max_processors=65)
    other = {"group": "1", "group_number": "0"}
    run.break_records(
        1, lambda records: [*(change_fields(one, **other) for one in records[:2]), *records[2:]]
    )
    assert run.verify() == ()
    run.break_records(1, lambda records: [*records[:4], change_fields(records[4], **other), records[5]])
    assert [mismatch.what for mismatch in run.verify()] == [
        "the group of processor 2", "the place of processor 1 given again",
    ]  # fmt: skip


# --- driver: interfaces that exist ----------------------------------------------------------------------

EXISTING = """
driver: {existing: true}
steps:
  - {plug: {vcpus: 1, dimms: [128 MiB]}, expect: {driver: [processor, memory]}}
  - {driver: stop, expect: {driver: [unload]}}
  - {driver: start, expect: {driver: [load, baseline, processor, processor, memory]}}
  - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
"""


@pytest.fixture
def existing(tmp_path: Path) -> Run:
    return perfect_run(plan_of(tmp_path, EXISTING), REFERENCE)


def test_existing_interfaces_are_told_at_every_load(existing: Run) -> None:
    assert [one.record.word for one in existing.earlier] == ["load", "baseline", "processor"]
    assert existing.verify() == ()


def later(records: Sequence[ObservedRecord]) -> list[ObservedRecord]:
    """Return the records as they are after one more than there was."""
    return [change(one, seq=one.record.seq + 1) for one in records]


def again(records: Sequence[ObservedRecord], index: int, *, times: int = 1) -> list[ObservedRecord]:
    """Return the records with one told again, the numbers of all in order."""
    told = [*records[: index + 1], *[records[index]] * times, *records[index + 1 :]]
    return [change(one, seq=records[0].record.seq + number) for number, one in enumerate(told)]


def test_an_existing_interface_may_be_told_twice_and_not_three_times(existing: Run) -> None:
    start = existing.steps[2].records
    existing.earlier = again(existing.earlier, 2)
    for number in (1, 2):
        existing.break_records(number, later)
    existing.break_step(3, records=tuple(again(start, 3)))
    existing.break_records(4, later)
    assert existing.verify() == ()
    assert outstanding(existing.steps[2]) == frozenset()
    existing.end_after(3)
    existing.break_step(3, records=tuple(again(start, 3, times=2)))
    thrice, words = existing.verify()
    assert told(thrice)[2:] == (
        "an existing interface told more than twice",
        f"{link_of('processor', 1)} once, or twice at most",
        "again at seq=5",
    )
    assert words.what == "1 record too many"


def test_a_second_telling_is_not_taken_for_one_that_is_outstanding(existing: Run) -> None:
    start = existing.steps[2].records
    existing.break_step(3, records=(*start[:3], start[2], start[4]))
    assert outstanding(existing.steps[2]) == {"driver"}


@pytest.mark.parametrize(
    ("step", "index", "what", "expected", "seen"),
    [
        (0, 2, "existing interfaces of class processor", "1, as many as there are", "0 told"),
        (3, 4, "existing interfaces of class memory", "1, as many as there are", "0 told"),
    ],
)
def test_an_existing_interface_that_is_not_told(
    existing: Run, step: int, index: int, what: str, expected: str, seen: str
) -> None:
    del existing.steps[max(step, 1) :]
    if step:
        existing.break_records(step, lambda records: [*records[:index], *records[index + 1 :]])
    else:
        del existing.earlier[index]
    mismatch = first_broken(one for one in existing.verify() if one.what.startswith("existing"))
    assert mismatch is not None
    assert told(mismatch)[2:] == (what, expected, seen)


def test_an_existing_interface_under_another_link(existing: Run) -> None:
    existing.break_records(
        3,
        lambda records: [
            *records[:3],
            change_fields(records[3], link=link_of("processor", 9)),
            records[4],
        ],
    )
    assert told(only(existing.verify()))[2:] == (
        "an existing interface under another link", link_of("processor", 1), "not told",
    )  # fmt: skip


def test_a_driver_that_is_not_told_of_what_exists_though_the_plan_says_so(existing: Run) -> None:
    del existing.steps[1:]
    fields = {name: text for name, text in existing.earlier[0].record.fields.items() if name != "existing"}
    existing.earlier[0] = change(existing.earlier[0], fields=fields)
    assert told(only(existing.verify()))[2:] == (
        "existing in the load record", "1", "no key existing, as of an older driver",
    )  # fmt: skip


def test_a_load_record_without_the_later_key_is_one_of_a_driver_that_is_told_of_nothing_old(run: Run) -> None:
    fields = {name: text for name, text in run.earlier[0].record.fields.items() if name != "existing"}
    run.earlier[0] = change(run.earlier[0], fields=fields)
    assert run.verify() == ()


# --- driver: told once ----------------------------------------------------------------------------------


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
    run.earlier.append(Driver(seq=1).write("notification", arrival("processor", 9), at_s=1))
    mismatch = first_broken(run.verify())
    assert mismatch is not None
    assert told(mismatch) == (
        0, "driver", "an arrival before anything was plugged", "no arrival", "processor (seq=2)",
    )  # fmt: skip


@pytest.mark.parametrize(("index", "expected"), [(0, "load, baseline"), (1, "load, baseline")])
def test_a_log_that_does_not_begin_with_load_and_baseline(run: Run, index: int, expected: str) -> None:
    seen = run.earlier.pop(1 - index).record.word
    mismatch = next(one for one in run.verify() if one.expected == expected)
    assert (mismatch.step, mismatch.witness) == (0, "driver")
    assert mismatch.seen == ("load" if seen == "baseline" else "baseline")


def test_a_driver_that_has_logged_nothing_before_a_step_that_expects_nothing(tmp_path: Path) -> None:
    run = perfect_run(plan_of(tmp_path, "steps: [{wait: 1 s, expect: {driver: []}}]"), REFERENCE)
    run.earlier.clear()
    assert told(only(run.verify())) == (
        0, "driver", "the driver logged nothing", "load, baseline", "no record",
    )  # fmt: skip


def test_a_driver_that_was_unloaded_before_the_first_step(run: Run) -> None:
    run.earlier.append(Driver(seq=1).write("unload", at_s=1))
    mismatch = first_broken(run.verify())
    assert mismatch is not None
    assert told(mismatch) == (
        0, "driver", "1 record too many", "load, baseline", "load, baseline, unload",
    )  # fmt: skip


def test_a_load_record_of_another_configuration(tmp_path: Path) -> None:
    text = "{driver: {interfaces: memory}, steps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}]}"
    run = perfect_run(plan_of(tmp_path, text), REFERENCE)
    run.earlier[0] = change_fields(
        run.earlier[0], interfaces="both", synchronous="1", driver="other/1.0", qpc_hz="1000000"
    )
    assert [told(mismatch)[2:] for mismatch in run.verify()] == [
        ("interfaces in the load record", "memory", "both"),
        ("synchronous in the load record", "0", "1"),
        ("qpc_hz in the load record", "10000000", "1000000"),
        ("driver in the load record", "hpnotify/<version>", "other/1.0"),
    ]


def test_a_driver_may_say_the_name_of_its_file_or_of_its_service(run: Run) -> None:
    run.driver = replace(run.driver, names=("mine", "HPNOTIFY"))
    assert run.verify() == ()
    run.driver = replace(run.driver, names=("mine", "other"))
    mismatch = first_broken(run.verify())
    assert mismatch is not None
    assert (mismatch.expected, mismatch.seen) == ("mine/<version> or other/<version>", "hpnotify/1.0.0")


def test_another_driver_than_at_the_load_before(run: Run) -> None:
    run.break_records(6, lambda records: [change_fields(records[0], driver="hpnotify/2.0.0"), records[1]])
    assert told(only(run.verify()))[2:] == (
        "driver in the load record", "hpnotify/1.0.0", "hpnotify/2.0.0",
    )  # fmt: skip


# --- driver: clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "by_s", "what"),
    [
        ("qpc", -0.0101, ["a clock that runs backwards"]),
        ("time_100ns", -0.0101, ["a clock that runs backwards"]),
        ("qpc", 0.6, ["the two clocks of a record apart"]),
        ("time_100ns", 0.6, ["the two clocks of a record apart"]),
        ("time_100ns", 0.4, []),
        ("qpc", 0.4, []),
    ],
)
def test_clocks_of_a_record(tmp_path: Path, clock: str, by_s: float, what: list[str]) -> None:
    text = "steps: [{plug: {dimms: [128 MiB, 128 MiB]}, expect: {driver: [memory, memory]}}]"
    run = perfect_run(plan_of(tmp_path, text), REFERENCE)
    now = getattr(run.steps[0].records[1].record, clock) + round(by_s * 10_000_000)
    run.break_records(1, lambda records: [records[0], change(records[1], **{clock: now})])
    assert [mismatch.what for mismatch in run.verify()] == what
    if by_s > 0:
        # As of a probe that says nothing of the guest's clocks.
        run.break_records(1, lambda records: [replace(one, reading=None) for one in records])
        assert [mismatch.what for mismatch in run.verify()] == what


ONE_BY_ONE = """
steps:
  - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
  - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
  - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
"""


def test_clocks_may_go_apart_while_the_guest_stands_still_and_begin_anew_with_a_boot(tmp_path: Path) -> None:
    text = """
    steps:
      - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
      - {pause: 1 s, expect: {driver: []}}
      - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
      - {power: reset, expect: {driver: [load, baseline]}}
    """
    run = perfect_run(plan_of(tmp_path, text), REFERENCE)
    for number, behind_s in ((3, 30), (4, 1500)):
        run.break_records(
            number,
            lambda records, behind_s=behind_s: [
                replace(change(one, qpc=one.record.qpc - behind_s * 10_000_000), reading=None)
                for one in records
            ],
        )
    assert run.verify() == ()


@pytest.mark.parametrize("by_s", [-3600, 3600], ids=["back", "forward"])
def test_the_guests_time_of_day_may_be_set_while_a_plan_runs(tmp_path: Path, by_s: int) -> None:
    run = perfect_run(plan_of(tmp_path, ONE_BY_ONE), REFERENCE)
    # In the second step, before its record was written and after the probe was last asked.
    for number in (2, 3):
        run.break_records(number, lambda records: [set_later(one, by_s) for one in records])
    unseen = ["the two clocks of a record apart", *(["a clock that runs backwards"] if by_s < 0 else [])]
    assert {one.what for one in run.verify()} == set(unseen), "the driver alone says so"
    for number in (2, 3):
        run.break_step(number, guest_after=read_later(run.steps[number - 1].guest_after, by_s))
    run.break_step(3, guest_before=run.steps[1].guest_after)
    assert run.verify() == ()


def set_later(observed: ObservedRecord, by_s: int) -> ObservedRecord:
    """Return a record by a time of day that was set meanwhile."""
    return change(observed, time_100ns=observed.record.time_100ns + by_s * 10_000_000)


def read_later(guest: GuestState | None, by_s: int) -> GuestState:
    """Return the state of a guest whose time of day was set meanwhile."""
    assert guest is not None
    assert guest.reading is not None
    now = guest.reading.time_100ns + by_s * 10_000_000
    return replace(guest, reading=replace(guest.reading, time_100ns=now))


def test_a_record_from_before_its_step(run: Run) -> None:
    run.break_records(1, lambda records: [replace(records[0], written_at_s=99.0)])
    assert told(only(run.verify()))[2:] == (
        "a record from before its step",
        "processor (seq=2) written after the act",
        "1 s before it, by its qpc",
    )


# --- driver: figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "fields", "expected"),
    [
        (1, {"active_processors": 1}, "2"),
        (1, {"memory_bytes": GIB + 1}, "1073741824"),
        (2, {"memory_bytes": GIB}, "1207959552"),
        (2, {"memory_bytes": 0}, "1207959552"),
        (2, {"active_processors": 1}, "2"),
        (4, {"active_processors": 2}, "3"),
    ],
)
def test_a_figure_that_is_not_that_of_the_step(
    run: Run, step: int, fields: dict[str, int], expected: str
) -> None:
    run.break_records(step, lambda records: [change(records[0], **fields), *records[1:]])
    mismatch = only(run.verify())
    assert (mismatch.step, mismatch.witness, mismatch.expected) == (step, "driver", expected)
    assert mismatch.what.startswith(("active processors in the record", "memory in the record"))


@pytest.mark.parametrize(
    ("memory_bytes", "is_wrong"),
    [(GIB, False), (GIB + 1, True), (GIB - 16 * MIB, False), (GIB - 16 * MIB - 1, True)],
)
def test_the_first_figures_fit_what_the_vm_has_and_the_system_uses(
    tmp_path: Path, memory_bytes: int, is_wrong: bool
) -> None:
    run = perfect_run(plan_of(tmp_path, "steps: [{wait: 1 s, expect: {driver: []}}]"), REFERENCE)
    run.earlier = [change(one, memory_bytes=memory_bytes) for one in run.earlier]
    assert {mismatch.step for mismatch in run.verify()} == ({0} if is_wrong else set())


def test_a_boot_may_leave_a_little_more_or_less_memory(tmp_path: Path) -> None:
    text = """
    steps:
      - {power: reset, expect: {driver: [load, baseline]}}
      - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}
    """
    run = perfect_run(plan_of(tmp_path, text), REFERENCE)
    for number in (1, 2):
        run.break_records(
            number,
            lambda records: [change(one, memory_bytes=one.record.memory_bytes - MIB) for one in records],
        )
    assert run.verify() == ()
    run.break_records(2, lambda records: [change(one, memory_bytes=GIB + 128 * MIB) for one in records])
    assert only(run.verify()).step == 2


def test_older_loads_in_the_same_log_are_no_matter(run: Run) -> None:
    older = Driver(seq=4, vcpus=64, memory_bytes=64 * GIB)
    run.earlier[:0] = [older.write("baseline"), older.write("unload")]
    assert run.verify() == ()
