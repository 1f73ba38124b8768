# SPDX-License-Identifier: MIT
"""Whether guest and host agree on what came first, by a record that is moved in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.evidence.clock_order import clocks_that_disagree
from harness.evidence.witness import StepEvidence
from tests.words.perfect_run import REFERENCE, perfect_run, plan_of

PLAN = "steps: [{plug: {vcpus: 2, dimms: [128 MiB]}, expect: {driver: [processor, processor, memory]}}]"


@pytest.fixture
def step(tmp_path: Path) -> StepEvidence:
    [step] = perfect_run(plan_of(tmp_path, PLAN), REFERENCE).steps
    return step


def moved(step: StepEvidence, index: int, by_s: float, *, error_s: float = 0.01) -> StepEvidence:
    records = list(step.records)
    at_s = records[index].written_at_s + by_s
    records[index] = replace(records[index], written_at_s=at_s, clock_error_s=error_s)
    return replace(step, records=tuple(records))


def test_says_nothing_of_records_that_come_after_their_insertions(step: StepEvidence) -> None:
    assert list(clocks_that_disagree(step)) == []


@pytest.mark.parametrize(("index", "slot"), [(0, "CPU 1"), (2, "DIMM 0")])
def test_says_of_a_record_that_it_is_older_than_its_insertion(
    step: StepEvidence, index: int, slot: str
) -> None:
    [said] = clocks_that_disagree(moved(step, index, -0.5))
    assert f"older than the insertion in {slot}, and both can be off by 11 ms together" in said
    assert said.startswith(f"the clocks disagree: seq {step.records[index].record.seq} in the driver's log")


def test_says_nothing_as_long_as_their_errors_can_explain_it(step: StepEvidence) -> None:
    assert list(clocks_that_disagree(moved(step, 0, -0.5, error_s=0.6))) == []


def test_says_nothing_where_qemu_does_not_tell(step: StepEvidence) -> None:
    assert list(clocks_that_disagree(replace(moved(step, 0, -0.5), aml=None))) == []
