# SPDX-License-Identifier: MIT
"""Verify: a perfect run passes, and each thing that breaks is blamed on the layer it broke in.

Every test starts from the evidence of a perfect run and spoils one thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.document.units import GIB, MIB
from harness.evidence.mismatch import first_broken
from harness.plan.plan import load_plan
from tests.words.perfect_run import (
    PLAN,
    REFERENCE,
    TESTPLANS,
    Run,
    only,
    perfect_run,
    plan_of,
    told,
)


def test_a_perfect_run_has_no_mismatch(run: Run) -> None:
    assert run.verify() == ()
    assert first_broken(()) is None


@pytest.mark.parametrize("path", sorted(TESTPLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_perfect_run_of_each_default_plan_has_no_mismatch(path: Path) -> None:
    assert perfect_run(load_plan(path), REFERENCE).verify() == ()


# --- vm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        (1, {"vcpu_ids": ()}, ("hot-plugged vCPUs in the vm", "vcpu0", "none")),
        (3, {"vcpu_ids": ("vcpu0", "vcpu2", "vcpu9")},
         ("hot-plugged vCPUs in the vm", "vcpu0, vcpu2", "vcpu0, vcpu2, vcpu9")),
        (3, {"vcpu_ids": ("vcpu2",)}, ("hot-plugged vCPUs in the vm", "vcpu0, vcpu2", "vcpu2")),
        (1, {"active_vcpus": 1}, ("vCPUs in the vm", "2 (1 + 1 plugged)", "1")),
        (2, {"dimm_bytes": {}}, ("DIMMs in the vm", "dimm1 128 MiB", "none")),
        (2, {"dimm_bytes": {"dimm1": 64 * MIB}}, ("DIMMs in the vm", "dimm1 128 MiB", "dimm1 64 MiB")),
        (2, {"plugged_memory_bytes": 0},
         ("plugged memory of the vm in bytes", "134217728 (0 + 134217728 plugged)", "0")),
    ],
)  # fmt: skip
def test_a_device_missing_in_the_vm(
    run: Run, number: int, changes: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    run.end_after(number)
    run.break_step(number, vm_after=replace(run.steps[number - 1].vm_after, **changes))
    assert told(only(run.verify())) == (number, "vm", *expected)


# --- ospm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "seen"),
    [
        ([], "no answer"),
        ([1], "status 0x1 (failure without a reason given)"),
        ([0x81], "status 0x81 (the operating system could not load a driver)"),
        ([0x80], "status 0x80 (insertion still in progress)"),
        ([0x80, 0x82], "status 0x80 (insertion still in progress), "
                       "status 0x82 (the device is not supported by the operating system)"),
        ([0x1234], "status 0x1234 (unknown to ACPI 6.5)"),
        ([1, 0], "status 0x1 (failure without a reason given), status 0x0 (success)"),
    ],
)  # fmt: skip
def test_an_answer_of_the_acpi_that_is_no_success(run: Run, statuses: list[int], seen: str) -> None:
    (answer,) = run.steps[1].ospm
    run.break_step(2, ospm=tuple(replace(answer, status=status) for status in statuses))
    assert told(only(run.verify())) == (
        2, "ospm", "the guest's ACPI answer (_OST) for dimm1", "status 0x0 (success)", seen,
    )  # fmt: skip


def test_in_progress_and_then_success_is_success(run: Run) -> None:
    (answer,) = run.steps[1].ospm
    run.break_step(2, ospm=(replace(answer, status=0x80), replace(answer, source=0)))
    assert run.verify() == ()


def test_a_success_after_the_time_is_late_and_not_missing(run: Run) -> None:
    (answer,) = run.steps[1].ospm
    due_s = run.steps[1].due_from_s
    run.break_step(2, ospm=(replace(answer, status=0x80), replace(answer, at_s=due_s + 10.5)))
    assert told(only(run.verify())) == (
        2, "ospm", "a late ACPI answer (_OST) for dimm1", "status 0x0 (success) within 10 s",
        "status 0x80 (insertion still in progress), status 0x0 (success) after 10.5 s",
    )  # fmt: skip
    run.break_step(2, ospm=(replace(answer, at_s=due_s + 10.0),))
    assert run.verify() == ()


def test_a_success_that_is_repeated_is_one(run: Run) -> None:
    (answer,) = run.steps[1].ospm
    run.break_step(2, ospm=(answer, answer, replace(answer, at_s=answer.at_s + 100)))
    assert run.verify() == ()


@pytest.mark.parametrize("changes", [{"device_id": "dimm7"}, {"source": 3}], ids=["other device", "an eject"])
def test_an_answer_about_something_else_is_no_answer(run: Run, changes: dict[str, Any]) -> None:
    (answer,) = run.steps[1].ospm
    run.break_step(2, ospm=(replace(answer, **changes),))
    assert only(run.verify()).seen == "no answer"


# --- guest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "changes", "what", "expected", "seen"),
    [
        (1, {"active_processors": 1}, "active processors", "2 (1 + 1 plugged)", "1"),
        (1, {"active_processors": 3}, "active processors", "2 (1 + 1 plugged)", "3"),
        (2, {"active_processors": 3}, "active processors", "2 as before", "3"),
        (2, {"memory_bytes": GIB + 128 * MIB - 1}, "physical memory in bytes",
         "1207959552 (1073741824 + 134217728 plugged)", "1207959551 (1 too few)"),
        (2, {"memory_bytes": GIB + 128 * MIB + 1}, "physical memory in bytes",
         "1207959552 (1073741824 + 134217728 plugged)", "1207959553 (1 too many)"),
        (4, {"memory_bytes": GIB}, "physical memory in bytes", "1476395008 as before",
         "1073741824 (402653184 too few)"),
        (5, {"boot_id": "boot-2"}, "the guest booted again", "boot boot-1", "boot boot-2"),
    ],
)  # fmt: skip
def test_a_guest_that_does_not_use_exactly_what_was_plugged(
    run: Run, number: int, changes: dict[str, Any], what: str, expected: str, seen: str
) -> None:
    run.end_after(number)
    run.break_step(number, guest_after=replace(run.steps[number - 1].guest_after, **changes))
    assert told(only(run.verify())) == (number, "guest", what, expected, seen)


def test_a_boot_between_two_steps_is_noticed(run: Run) -> None:
    for number in (5, 6):
        evidence = run.steps[number - 1]
        run.break_step(
            number,
            guest_before=replace(evidence.guest_before, boot_id="boot-2"),
            guest_after=replace(evidence.guest_after, boot_id="boot-2"),
        )
    assert [mismatch.step for mismatch in run.verify()] == [5]


# --- blame ----------------------------------------------------------------------------------------------


def break_vm(run: Run) -> None:
    run.break_step(6, vm_after=replace(run.steps[5].vm_after, active_vcpus=1))


def break_guest(run: Run) -> None:
    run.break_step(6, guest_after=replace(run.steps[5].guest_after, boot_id="boot-2"))


def break_driver(run: Run) -> None:
    run.break_records(6, lambda records: records[:1])


@pytest.mark.parametrize(
    ("breaks", "witnesses"),
    [
        ([break_driver], ["driver"]),
        ([break_driver, break_guest], ["guest", "driver"]),
        ([break_driver, break_guest, break_vm], ["vm", "guest", "driver"]),
    ],
)
def test_the_first_layer_that_broke_is_blamed(
    run: Run, breaks: list[Callable[[Run], None]], witnesses: list[str]
) -> None:
    for spoil in breaks:
        spoil(run)
    mismatches = run.verify()
    assert [mismatch.witness for mismatch in mismatches] == witnesses
    assert first_broken(reversed(mismatches)) == mismatches[0]


def test_the_first_step_that_broke_is_blamed_before_a_lower_layer_of_a_later_one(run: Run) -> None:
    run.break_records(1, lambda records: [replace(records[0], written_at_s=150.0)])
    break_vm(run)
    assert [(mismatch.step, mismatch.witness) for mismatch in run.verify()] == [(1, "driver"), (6, "vm")]


def test_a_witness_that_is_not_required_gives_no_mismatch(tmp_path: Path) -> None:
    run = perfect_run(plan_of(tmp_path, PLAN + "require: [vm, driver]\n"), REFERENCE)
    run.break_step(2, ospm=(), guest_after=replace(run.steps[1].guest_after, boot_id="boot-2"))
    assert run.verify() == ()
    break_driver(run)
    assert only(run.verify()).witness == "driver"


# --- nothing passes empty -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 5])
def test_evidence_of_fewer_steps_is_no_verdict(run: Run, steps: int) -> None:
    run.end_after(steps)
    with pytest.raises(ValueError, match=f"evidence of {steps} steps for a plan of 6"):
        run.verify()


def test_evidence_of_more_steps_is_no_verdict(run: Run) -> None:
    run.steps.append(replace(run.steps[-1], number=7))
    with pytest.raises(ValueError, match="evidence of step 7 after that of 6 of 6 steps"):
        run.verify()


def test_a_run_that_ended_with_a_failing_step_is_a_verdict(run: Run) -> None:
    run.end_after(2)
    run.break_records(2, lambda records: [])
    assert told(only(run.verify())) == (2, "driver", "the driver logged nothing", "memory", "no record")


def test_evidence_of_another_step_is_no_verdict(run: Run) -> None:
    run.break_step(1, devices=())
    with pytest.raises(ValueError, match="is not of 'plug 1 vCPU'"):
        run.verify()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_evidence_that_is_not_of_the_next_step_is_no_verdict(run: Run, number: int) -> None:
    run.break_step(2, number=number)
    with pytest.raises(ValueError, match=r"evidence of step \d after that of 1 of 6"):
        run.verify()


# --- step by step ---------------------------------------------------------------------------------------


def test_a_last_step_of_which_more_is_known_is_judged_anew(run: Run) -> None:
    judge = run.judge()
    for evidence in run.steps:
        half = replace(evidence, records=evidence.records[:-1])
        assert bool(judge.step(half)) == bool(evidence.records)
        assert judge.step(evidence) == ()
        assert judge.step(evidence) == ()
    assert judge.verdict() == ()


@pytest.mark.parametrize("spoil", [break_vm, break_guest, break_driver])
def test_what_broke_is_known_as_soon_as_its_step_is_judged(run: Run, spoil: Callable[[Run], None]) -> None:
    spoil(run)
    judge = run.judge()
    found = [judge.step(evidence) for evidence in run.steps]
    assert found == [(), (), (), (), (), run.verify()]
    assert judge.verdict() == run.verify() != ()


def test_what_broke_in_a_step_stays_when_later_ones_are_judged(run: Run) -> None:
    run.break_step(1, ospm=())
    judge = run.judge()
    for evidence in run.steps:
        assert [mismatch.step for mismatch in judge.step(evidence)] == [1]
