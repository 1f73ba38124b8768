# SPDX-License-Identifier: MIT
"""Every step kind: what it says must follow is what is judged, whatever it is asked to do and when.

The kinds come from ``ACTIONS``, what they are asked to do from their JSON Schema, the evidence from their
effects: a new kind is tested as soon as it is in the list.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from harness.deadline import Deadline
from harness.document.units import GIB, MIB
from harness.evidence.driver_rules import DriverRules
from harness.evidence.effect import Announcement, Answer, Device, Effect, Reply, Word
from harness.evidence.incident import Incident
from harness.evidence.judge import Mismatch, RunJudge, outstanding
from harness.evidence.witness import (
    WITNESSES,
    DimmPlace,
    GuestState,
    ObservedRecord,
    Seen,
    StepEvidence,
    VmState,
    Witness,
)
from harness.guest.driver_setup import DriverSetup
from harness.plan.plan import Expect, Step, load_plan
from harness.steps.action import Action
from harness.steps.actions import ACTIONS
from harness.steps.driver import SwitchDriver
from harness.steps.room import Room
from harness.steps.stage import Stage
from harness.vm.shape import VmShape
from tests.words.deviations import DEVIATIONS, NOT_WITNESSED, deviations
from tests.words.from_schema import undescribed, values_of
from tests.words.perfect_run import REFERENCE, Driver, perfect_run, perfect_step

of_each_kind = pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.key)
#: A VM with room for whatever is asked for.
SHAPE: dict[str, Any] = {"max_vcpus": 64, "slots": 32, "max_memory": "512 GiB"}
AT_BOOT_BYTES = GIB
thorough = settings(max_examples=60)


@dataclass(frozen=True)
class Case:
    """One step that went as it should, and what the driver had written before."""

    step: Step
    before: Seen
    room_after: Room
    earlier: list[ObservedRecord]
    stopped: list[StepEvidence]  #: the step that stopped the driver, if it is stopped
    evidence: StepEvidence
    setup: DriverSetup

    @property
    def last_seq(self) -> int:
        return len(self.earlier) + len(self.stopped) - 1

    def judge(self, evidence: StepEvidence, required: Sequence[Witness] = WITNESSES) -> tuple[Mismatch, ...]:
        judge = RunJudge(
            steps=len(self.stopped) + 1,
            required=required,
            links=REFERENCE.links.model_dump(),
            driver=DriverRules(synchronous=self.setup.synchronous),
            earlier=self.earlier,
        )
        for step in self.stopped:
            assert judge.step(step) == ()
        return judge.step(evidence)


def at_boot(vcpus: int = 1, qemu_version: str = "7.2.22") -> tuple[Seen, Room]:
    """Return how everything is before the first step."""
    shape = VmShape(vcpus=vcpus, **SHAPE)
    guest = GuestState(vcpus, shape.memory_bytes, "boot-1")
    seen = Seen(vm=VmState((), vcpus, {}, 0), guest=guest, qemu_version=qemu_version)
    return seen, Room.at_boot(shape)


@st.composite
def befores(draw: st.DrawFn) -> tuple[Seen, Room]:
    """Return how anything may be before a step: what other steps have left."""
    before, room = at_boot(draw(st.integers(1, 4)), draw(st.sampled_from(["7.2.22", "10.0.8"])))
    for kind in draw(st.lists(st.sampled_from(ACTIONS), max_size=4)):
        try:
            action, after = draw(written(kind)).spell_out(room)
        except PydanticCustomError:
            continue
        if after.guest_runs:
            step = Step(1, action, 10.0, Expect(driver=()))
            before, room = before.after(perfect_step(step, before, Driver())), after
    # Numbers of devices that are gone are not given again.
    devices = before.devices + draw(st.integers(0, 2))
    return replace(before, devices=devices, guest=draw(st.sampled_from([before.guest, None]))), room


def written(kind: type[Action]) -> st.SearchStrategy[Action]:
    """Return actions of a kind, as plans may have them."""

    def read(value: Any) -> Action:
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError:
            reject()

    return values_of(TypeAdapter(kind).json_schema()).map(read)


def spelled_out(action: Action, room: Room) -> tuple[Action, Room]:
    try:
        return action.spell_out(room)
    except PydanticCustomError:
        reject()


def words_of(effect: Effect, before: Seen, *, synchronous: bool) -> tuple[Word, ...]:
    """Return what a driver that does everything right tells of an effect."""

    def words() -> Iterator[Word]:
        for device in effect.added if before.driver_runs else ():
            if device.kind == "vcpu":
                yield from ("add_start", "add_complete") if synchronous else ()
            yield "processor" if device.kind == "vcpu" else "memory"
        for one in effect.announced if before.driver_runs else ():
            yield one.interface_class if one.event == "arrival" else _removal_of(one)
        if effect.driver_runs is False:
            yield "unload"
        if effect.driver_runs or (effect.boot == "new" and before.driver_runs):
            yield from ("load", "baseline")

    return tuple(words())


def _removal_of(announcement: Announcement) -> Word:
    return "processor_removal" if announcement.interface_class == "processor" else "memory_removal"


@st.composite
def cases_of(draw: st.DrawFn, kind: type[Action]) -> Case:
    before, room = draw(befores())
    action, room = spelled_out(draw(written(kind)), room)
    return case_of(action, before, room, synchronous=draw(st.booleans()))


def case_of(action: Action, before: Seen, room_after: Room, *, synchronous: bool = False) -> Case:
    records = words_of(action.effect(before), before, synchronous=synchronous)
    driver = Driver(
        vcpus=before.vm.active_vcpus,
        memory_bytes=AT_BOOT_BYTES + before.vm.plugged_memory_bytes,
        setup=DriverSetup(synchronous=synchronous),
    )
    earlier, stopped = driver.load(), []
    if not before.driver_runs:
        stop = Step(1, SwitchDriver("stop"), 10.0, Expect(driver=("unload",)))
        stopped.append(perfect_step(stop, replace(before, driver_runs=True), driver))
    step = Step(len(stopped) + 1, action, 10.0, Expect(driver=records))
    return Case(step, before, room_after, earlier, stopped, perfect_step(step, before, driver), driver.setup)


@of_each_kind
class TestEveryKind:
    @thorough
    @given(st.data())
    def test_evidence_of_its_effect_is_what_it_must_be(self, kind: type[Action], data: st.DataObject) -> None:
        case = data.draw(cases_of(kind))
        assert case.judge(case.evidence) == ()
        assert outstanding(case.evidence) == frozenset()

    @thorough
    @given(st.data())
    def test_each_deviation_from_it_is_blamed_on_the_witness_that_deviates(
        self, kind: type[Action], data: st.DataObject
    ) -> None:
        check_deviations(data.draw(cases_of(kind)))

    @thorough
    @given(st.data())
    def test_an_incident_is_blamed_on_the_guest_whatever_is_required(
        self, kind: type[Action], data: st.DataObject
    ) -> None:
        check_incident(data.draw(cases_of(kind)))

    @thorough
    @given(st.data())
    def test_saying_what_it_does_changes_nothing(self, kind: type[Action], data: st.DataObject) -> None:
        action, (before, room) = data.draw(written(kind)), data.draw(befores())
        originals = copy.deepcopy((action, before))
        spelled, _ = spelled_out(action, room)
        assert spelled.effect(before) == spelled.effect(before)
        assert spelled_out(action, room)[0] == spelled
        assert spelled_out(spelled, room)[0] == spelled
        assert (action, before) == originals

    @thorough
    @given(st.data())
    def test_a_plan_and_a_run_agree_on_what_there_is_afterwards(
        self, kind: type[Action], data: st.DataObject
    ) -> None:
        case = data.draw(cases_of(kind))
        after, room = case.before.after(case.evidence), case.room_after
        assert room.vcpus == after.vm.active_vcpus
        assert room.driver_runs == after.driver_runs
        assert room.announced == after.announced
        assert room.guest_runs == (case.evidence.effect.boot != "none")

    @thorough
    @given(st.data())
    def test_its_title_is_one_line(self, kind: type[Action], data: st.DataObject) -> None:
        title = data.draw(written(kind)).title()
        assert title == title.strip()
        assert title.isprintable()
        assert title.startswith(f"{kind.key} ")

    def test_its_example_is_a_step_that_goes_as_planned(self, kind: type[Action], tmp_path: Path) -> None:
        path = tmp_path / "plan.yaml"
        path.write_text(f"steps:\n  -\n{indent(kind.example, '    ')}")
        plan = load_plan(path)
        [step] = plan.unrolled()
        assert isinstance(step.action, kind)
        assert len(step.title) <= 60
        assert perfect_run(plan, REFERENCE).verify() == ()

    def test_its_summary_is_one_sentence(self, kind: type[Action]) -> None:
        assert re.fullmatch(r"[A-Z][^.]*[^. ]\.", kind.summary())
        assert "\n" not in kind.summary()

    def test_its_schema_describes_every_key(self, kind: type[Action]) -> None:
        schema = TypeAdapter(kind).json_schema()
        assert schema.get("description") or any("description" in one for one in schema["anyOf"])
        assert undescribed(schema) == []


def check_deviations(case: Case) -> None:
    for deviation in deviations(case.evidence, case.last_seq):
        found = case.judge(deviation.evidence)
        assert found, deviation.what
        assert found[0].witness == deviation.witness, (deviation.what, found)
        if deviation.waits:
            assert deviation.witness in outstanding(deviation.evidence), deviation.what


def check_incident(case: Case) -> None:
    what, at_s = "the guest restarted", case.evidence.acted_at_s + 1
    incident = Incident("RESET", what, "guest", at_s, "RESET: guest yes")
    begun = {item.name: getattr(case.evidence, item.name) for item in fields(case.evidence)}
    evidence = StepEvidence(**{**begun, "incidents": (incident,)})
    for required in WITNESSES:
        [mismatch] = case.judge(evidence, [required])
        assert (mismatch.witness, mismatch.is_incident) == ("guest", True)
        assert mismatch.what.startswith(what)


def _values(instance: Any) -> dict[str, Any]:
    return {item.name: getattr(instance, item.name) for item in fields(instance)}


# --- effects that no step kind has, or not yet ----------------------------------------------------------


class MadeUp(Action):
    """A step that leads to whatever it is told."""

    key = "made-up"

    def __init__(self, effect: Effect) -> None:
        self._effect = effect

    def title(self) -> str:
        return "made up"

    def effect(self, before: Seen) -> Effect:
        return self._effect

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        pytest.fail("only judged, never performed")


@st.composite
def made_up_cases(draw: st.DrawFn) -> Case:
    before, room = draw(befores())
    numbers = range(before.devices, before.devices + draw(st.integers(0, 3)))
    added = tuple(draw(_devices(number, before)) for number in numbers)
    there = [*before.vm.vcpu_ids, *before.vm.dimm_bytes]
    removed = draw(st.lists(st.sampled_from(there), unique=True)) if there else []
    answers = st.builds(
        Answer,
        device_id=st.just(""),
        sources=st.sampled_from([(0, 1), (3, 0x103)]),
        statuses=st.sampled_from([(0,), (0, 0x81)]),
        passing=st.sampled_from([(), (0x80,), (0x80, 0x82)]),
        required=st.booleans(),
    )
    effect = Effect(
        added=added,
        removed=tuple(removed),
        run_state=draw(st.sampled_from(["running", "paused", "postmigrate"])),
        reply=draw(st.sampled_from([None, Reply(command="x"), Reply(command="x", refused="no")])),
        answers=tuple(
            Answer(**{**_values(draw(answers)), "device_id": name})
            for name in (*(device.device_id for device in added), *removed)
        ),
        processors=sum(device.kind == "vcpu" for device in added)
        - sum(name in before.vm.vcpu_ids for name in removed),
        memory_bytes=sum(device.size_bytes or 0 for device in added)
        - sum(before.vm.dimm_bytes.get(name, 0) for name in removed),
        told_required=draw(st.booleans()),
        boot=draw(st.sampled_from(["same", "new", "none"])),
        order=draw(st.sampled_from(["per_device", "strict"])),
        driver_runs=draw(st.sampled_from([None, True, False])),
    )
    return case_of(MadeUp(effect), before, room, synchronous=draw(st.booleans()))


@st.composite
def _devices(draw: st.DrawFn, number: int, before: Seen) -> Device:
    if draw(st.booleans()):
        return Device(device_id=f"vcpu{number}", kind="vcpu")
    return Device(
        device_id=f"dimm{number}",
        kind="dimm",
        size_bytes=draw(st.integers(1, 512)) * 2 * MIB,
        slot=draw(st.none() | st.just(20 + number)),
        node=draw(st.none() | st.integers(0, 3)),
        address=draw(st.none() | st.just((64 + number) * GIB)),
    )


class TestAnyEffect:
    @thorough
    @given(made_up_cases())
    def test_evidence_of_it_is_what_it_must_be(self, case: Case) -> None:
        assert case.judge(case.evidence) == ()
        assert outstanding(case.evidence) == frozenset()

    @thorough
    @given(made_up_cases())
    def test_each_deviation_from_it_is_blamed_on_the_witness_that_deviates(self, case: Case) -> None:
        check_deviations(case)

    @thorough
    @given(made_up_cases())
    def test_an_incident_is_blamed_on_the_guest_whatever_is_required(self, case: Case) -> None:
        check_incident(case)

    def test_every_part_of_it_can_be_deviated_from(self) -> None:
        parts = {part.name for part in fields(Effect)}
        assert set(DEVIATIONS) | set(NOT_WITNESSED) == parts
        assert not set(DEVIATIONS) & set(NOT_WITNESSED)

    def test_every_list_of_deviations_has_some(self) -> None:
        announced = Announcement(interface_class="memory", event="arrival", name="announced1")
        vm = VmState(("vcpu0",), 2, {"dimm1": GIB}, GIB, dimm_places={"dimm1": DimmPlace(0, 0, 4 * GIB)})
        before = Seen(vm=vm, guest=GuestState(2, AT_BOOT_BYTES + GIB, "boot-1"), devices=2)
        plugged = Effect(
            added=(Device(device_id="dimm2", kind="dimm", size_bytes=GIB, slot=1, node=1, address=8 * GIB),),
            removed=("vcpu0",),
            answers=(Answer(device_id="dimm2"),),
            reply=Reply(command="x", returns={"a": 1}),
            driver_runs=True,
        )
        seen = {
            name
            for effect in (plugged, Effect(announced=(announced,)))
            for case in [case_of(MadeUp(effect), before, at_boot()[1])]
            for name, deviate in DEVIATIONS.items()
            if list(deviate(case.evidence, case.last_seq))
        }
        assert seen == set(DEVIATIONS)


# --- several steps in a row -----------------------------------------------------------------------------


@settings(thorough, max_examples=200)
@given(st.data())
def test_steps_that_go_as_planned_pass_in_any_order(data: st.DataObject) -> None:
    before, room = at_boot()
    driver, steps = Driver(), []
    earlier = driver.load()
    for kind in data.draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=10)):
        try:
            action, room = data.draw(written(kind)).spell_out(room)
        except PydanticCustomError:
            continue
        words = words_of(action.effect(before), before, synchronous=False)
        steps.append(perfect_step(Step(len(steps) + 1, action, 10.0, Expect(driver=words)), before, driver))
        before = before.after(steps[-1])
        if not room.guest_runs:
            break
    links = REFERENCE.links.model_dump()
    judge = RunJudge(steps=len(steps), required=WITNESSES, links=links, earlier=earlier)
    for evidence in steps:
        assert judge.step(evidence) == ()
        assert outstanding(evidence) == frozenset()
