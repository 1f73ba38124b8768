# SPDX-License-Identifier: MIT
"""A good run passes; with any one thing of its evidence another, it fails and the right witness is blamed.

The runs are those of the default plans, made up and as they were captured on the reference guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from harness.evidence.mismatch import first_broken
from harness.evidence.record import Record
from harness.evidence.witness import AmlAct, DimmPlace, GuestState, ObservedRecord, OspmStatus, Told, VmState
from harness.plan.plan import load_plan
from tests.words.captured import FOLDER, captured_run
from tests.words.mutations import NOT_JUDGED, PAGE, harmless, mutations, with_table
from tests.words.perfect_run import REFERENCE, TESTPLANS, Evidence, perfect_run, plan_of

WITNESSED = (VmState, GuestState, OspmStatus, AmlAct, Told)
#: What no default plan has.
OTHERS = {
    "a synchronous burst": """
        driver: {synchronous: true}
        steps:
          - plug: {vcpus: 3, dimms: [128 MiB, 256 MiB]}
            expect: {driver: [add_start, add_complete, processor, add_start, add_complete, processor,
                              add_start, add_complete, processor, memory, memory]}
        """,
    "existing interfaces of one class": """
        vm: {vcpus: 2, max_vcpus: 64}
        driver: {existing: true, synchronous: true, interfaces: processor}
        steps:
          - {plug: {vcpus: 1}, expect: {driver: [add_start, add_complete, processor]}}
          - {driver: stop, expect: {driver: [unload]}}
          - {driver: start, expect: {driver: [load, baseline, processor, processor, processor]}}
        """,
    "existing interfaces that were announced": """
        driver: {existing: true}
        steps:
          - {announce: memory, expect: {driver: [memory]}}
          - {driver: stop, expect: {driver: [unload]}}
          - {driver: start, expect: {driver: [load, baseline, processor, memory]}}
          - {power: reset, expect: {driver: [load, baseline, processor]}}
        """,
}


def perfect_runs() -> dict[str, Evidence]:
    plans = [load_plan(path) for path in sorted(TESTPLANS.glob("*.yaml"))]
    return {plan.name: perfect_run(plan, REFERENCE) for plan in plans}


def other_runs() -> dict[str, Evidence]:
    with TemporaryDirectory() as folder:
        return {name: perfect_run(plan_of(Path(folder), text), REFERENCE) for name, text in OTHERS.items()}


def captured_runs() -> dict[str, Evidence]:
    return {f"captured {path.stem}": captured_run(path) for path in sorted(FOLDER.glob("*.json"))}


RUNS = {**perfect_runs(), **other_runs(), **captured_runs()}


@pytest.fixture(params=RUNS, scope="module")
def run(request: pytest.FixtureRequest) -> Evidence:
    return RUNS[request.param]


def test_evidence_of_default_plans_was_captured() -> None:
    captured = {name.removeprefix("captured ") for name in captured_runs()}
    assert {"all-vcpus", "synchronous", "existing-interfaces", "reset"} <= captured <= set(perfect_runs())


def test_a_good_run_passes(run: Evidence) -> None:
    assert run.verify() == ()


def test_with_any_one_thing_another_it_fails_and_the_right_witness_is_blamed(run: Evidence) -> None:
    for mutation in mutations(run):
        if mutation.witness not in run.required:
            continue
        blamed = first_broken(mutation.run.verify())
        assert blamed is not None, mutation.row
        assert blamed.witness == mutation.witness, (mutation.row, blamed)


def test_every_field_of_all_evidence_was_another() -> None:
    changed: set[tuple[str, str]] = set()
    for run in perfect_runs().values():
        for mutation in (*mutations(run), *harmless(run)):
            if mutation.to in ("left out", "there twice", "in the place of its neighbour"):
                continue
            for one, other in zip(_parts(run), _parts(mutation.run), strict=False):
                changed |= {(type(one).__name__, name) for name in _differing(one, other)}
    assert changed >= {
        *(
            (kind.__name__, item.name)
            for kind in (VmState, GuestState, OspmStatus, AmlAct)
            for item in fields(kind)
        ),
        *(("Record", item.name) for item in fields(Record) if item.name not in ("kind", "line", "fields")),
        *(("DimmPlace", item.name) for item in fields(DimmPlace)),
    }
    named = {(mutation.part, mutation.field) for run in RUNS.values() for mutation in mutations(run)}
    written = [one.record for run in RUNS.values() for one in [*run.earlier, *_records(run)]]
    for record in written:
        for key in record.fields:
            assert ("any record" if key in record.context else record.kind, key) in named


def _records(run: Evidence) -> Iterator[ObservedRecord]:
    for step in run.steps:
        yield from step.records


def _parts(run: Evidence) -> Iterator[object]:
    for observed in [*run.earlier, *_records(run)]:
        yield observed.record
    for step in run.steps:
        yield step.vm_after
        yield step.guest_after
        yield from step.ospm
        yield from step.aml or ()
        yield from step.told or ()
        yield from step.vm_after.dimm_places.values()


def _differing(one: object, other: object) -> Iterator[str]:
    if type(one) is type(other) and is_dataclass(one) and not isinstance(one, type):
        yield from (item.name for item in fields(one) if getattr(one, item.name) != getattr(other, item.name))


def test_what_the_page_says_is_not_judged_changes_no_verdict(run: Evidence) -> None:
    for mutation in harmless(run):
        assert mutation.row in NOT_JUDGED
        assert mutation.run.verify() == (), mutation.row


def test_each_that_is_not_judged_was_tried() -> None:
    tried = {mutation.row for run in RUNS.values() for mutation in harmless(run)}
    assert tried == set(NOT_JUDGED)


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page, perfect_runs().values()), "run: python -m tests.words.mutations"
