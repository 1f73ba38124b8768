# SPDX-License-Identifier: MIT
"""Evidence of perfect runs, for tests to break one thing at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

from harness.document.units import GIB
from harness.evidence.driver_rules import DriverRules, existing_interfaces
from harness.evidence.effect import PLUG_SOURCES, Announcement, Effect
from harness.evidence.judge import RunJudge
from harness.evidence.judge_told import CLASS_OF
from harness.evidence.mismatch import Mismatch
from harness.evidence.record import LogParser
from harness.evidence.witness import (
    AmlAct,
    Announced,
    AnsweredCommand,
    ClockReading,
    DimmPlace,
    GuestState,
    ObservedRecord,
    OspmStatus,
    PluggedDevice,
    Seen,
    StepEvidence,
    Told,
    VmState,
    Witness,
)
from harness.guest.driver_setup import DriverSetup
from harness.guest.profile import Profile, find_profile
from harness.plan.fit import driver_rules, required_witnesses
from harness.plan.plan import Plan, Step, load_plan

TESTPLANS = Path(__file__).parents[2] / "testplans"
REFERENCE = find_profile("reference", TESTPLANS / "guests")

PLAN = """
within: 10 s
steps:
  - {plug: {vcpus: 1}, expect: {driver: [processor]}}                                # step 1
  - {plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}                           # step 2
  - {plug: {vcpus: 1, dimms: [256 MiB]}, expect: {driver: [processor, memory]}}      # step 3
  - {driver: stop, expect: {driver: [unload]}}                                       # step 4
  - {plug: {dimms: [128 MiB]}, expect: {driver: []}}                                 # step 5
  - {driver: start, expect: {driver: [load, baseline]}}                              # step 6
"""

GUIDS = {
    "processor": "{97fadb10-4e33-40ae-359c-8bef029dbdd0}",
    "memory": "{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}",
}
IDS = {"processor": r"GenuineIntel_-_Intel64_Family_6_Model_6_-_QEMU_Virtual_CPU", "memory": "PNP0C80"}
FREE_ADDRESS = 1 << 50
SYS = Path("hpnotify.sys")
QPC_HZ = 10_000_000
#: When the guest's counter began, by the host's clock, and the time of day then.
BEGAN_AT_S = -1000.0
BEGAN_AT_100NS = 134_398_609_309_751_570


CONTEXT = "irql=0 thread=212 apcs_disabled=0 cpu=0"


def load_fields(setup: DriverSetup) -> str:
    return (
        f"format=1 driver=hpnotify/1.0.0 qpc_hz={QPC_HZ} interfaces={setup.interfaces} "
        f"synchronous={setup.synchronous:d} existing={setup.existing:d} memory_from=MmGetPhysicalMemoryRanges"
    )


LOAD = load_fields(DriverSetup())


def link_of(class_: str, slot: int) -> str:
    return rf"\??\ACPI#{IDS[class_]}#_{slot}#{GUIDS[class_]}"


def announced_link(one: Announcement) -> str:
    return rf"\??\SWD#HilHotplug#{one.name}#{GUIDS[one.interface_class]}"


def arrival(class_: str, slot: int) -> str:
    return f"class={class_} event=arrival link={link_of(class_, slot)}"


@dataclass
class Driver:
    """Writes the log of a driver that does everything right."""

    seq: int = -1
    vcpus: int = 1
    memory_bytes: int = GIB
    setup: DriverSetup = field(default_factory=DriverSetup)
    written_at_s: float = BEGAN_AT_S

    def write(self, kind: str, fields: str = "", *, at_s: float = 0.0, lost: int = 0) -> ObservedRecord:
        self.seq = 0 if kind == "load" else self.seq + 1
        self.written_at_s = max(at_s + 0.1, self.written_at_s + 0.001)
        line = (
            f"seq={self.seq} record={kind} time_100ns={time_100ns(self.written_at_s)} "
            f"qpc={qpc(self.written_at_s)} active_processors={self.vcpus} "
            f"memory_bytes={self.memory_bytes} lost={lost} {f'{fields} {CONTEXT}'.strip()}"
        )
        (record,) = LogParser().feed(f"{line.strip()}\n".encode())
        return ObservedRecord(
            record,
            seen_at_s=at_s + 0.2,
            written_at_s=self.written_at_s,
            clock_error_s=0.01,
            reading=reading(at_s + 0.15),
        )

    def load(self, *, at_s: float = 0.0) -> list[ObservedRecord]:
        """Return the records that open a load."""
        return [self.write("load", load_fields(self.setup), at_s=at_s), self.write("baseline", at_s=at_s)]


def qpc(at_s: float) -> int:
    return round((at_s - BEGAN_AT_S) * QPC_HZ)


def reading(at_s: float) -> ClockReading:
    """Return what the probe reads at that time, by the host's clock."""
    return ClockReading(qpc=qpc(at_s), qpc_hz=QPC_HZ, time_100ns=time_100ns(at_s))


def time_100ns(at_s: float) -> int:
    return BEGAN_AT_100NS + round((at_s - BEGAN_AT_S) * 10_000_000)


@dataclass
class Evidence:
    """The evidence of a run, and what it is judged by; :meth:`break_step` spoils one of the steps."""

    required: tuple[Witness, ...]
    links: Mapping[str, str]
    driver: DriverRules
    steps: list[StepEvidence]
    earlier: list[ObservedRecord]

    @property
    def planned_steps(self) -> int:
        return len(self.steps)

    def break_step(self, number: int, /, **changes: object) -> None:
        self.steps[number - 1] = replace(self.steps[number - 1], **changes)  # type: ignore[arg-type]

    def end_after(self, number: int) -> None:
        """Leave the steps after this one out, as a run does that fails with it."""
        del self.steps[number:]

    def break_records(
        self, number: int, change: Callable[[list[ObservedRecord]], Sequence[ObservedRecord]]
    ) -> None:
        self.break_step(number, records=tuple(change(list(self.steps[number - 1].records))))

    def judge(self) -> RunJudge:
        """Return a judge who has seen nothing yet."""
        return RunJudge(
            steps=self.planned_steps,
            required=self.required,
            links=self.links,
            driver=self.driver,
            earlier=self.earlier,
        )

    def verify(self) -> tuple[Mismatch, ...]:
        judge = self.judge()
        for evidence in self.steps:
            judge.step(evidence)
        return judge.verdict()


@dataclass
class Run(Evidence):
    """A plan and the evidence of its steps."""

    plan: Plan

    @property
    def planned_steps(self) -> int:
        return len(self.plan.unrolled())

    def expect(self, plan: Plan) -> None:
        """Judge the same evidence by the expectations of another plan."""
        for index, step in enumerate(plan.unrolled()):
            effect = replace(self.steps[index].effect, records=step.expect.driver, order=step.expect.order)
            self.steps[index] = replace(self.steps[index], effect=effect)


def perfect_run(plan: Plan, profile: Profile) -> Run:
    """Return the evidence of a run in which every witness saw exactly what the plan expects."""
    rules = driver_rules(plan, profile, file=SYS)
    driver = Driver(vcpus=plan.vm.vcpus, memory_bytes=plan.vm.memory_bytes, setup=plan.driver)
    earlier = driver.load()
    seen = Seen(
        vm=VmState((), plan.vm.vcpus, {}, 0),
        guest=GuestState(plan.vm.vcpus, plan.vm.memory_bytes, "boot-1", reading(99.0)),
        qemu_version="7.2.22",
    )
    there = existing_interfaces(rules, seen.vm, seen.guest)
    for class_, number in there.items():
        earlier += [driver.write("notification", arrival(class_, slot)) for slot in range(number)]
    steps = []
    for step in plan.unrolled():
        evidence = perfect_step(step, seen, driver)
        steps.append(evidence)
        seen = seen.after(evidence)
    required = required_witnesses(plan, profile)
    return Run(required, profile.link_patterns, rules, steps, earlier, plan)


def perfect_step(step: Step, before: Seen, driver: Driver) -> StepEvidence:
    """Return the evidence of a step in which every witness saw exactly its effect."""
    effect, at_s = step.effect(before), 100.0 * step.number
    vm_after = _vm(effect, before.vm)
    announced = [Announced(one, announced_link(one), at_s) for one in effect.announced]
    return StepEvidence(
        number=step.number,
        title=step.title,
        key=step.action.key,
        effect=effect,
        acted_at_s=at_s,
        due_from_s=at_s,
        within_s=step.within_s,
        devices=tuple(
            PluggedDevice(device.device_id, device.kind, device.size_bytes, at_s) for device in effect.added
        ),
        vm_before=before.vm,
        vm_after=vm_after,
        ospm=tuple(
            OspmStatus(
                answer.device_id,
                *_slot(answer.device_id, effect, before.vm, vm_after),
                answer.sources[0],
                answer.statuses[0],
                at_s + 0.1,
            )
            for answer in effect.answers
        ),
        aml=tuple(_aml(effect, before.vm, vm_after, at_s + 0.05)),
        told=tuple(_told(effect, before, announced, at_s + 0.06)) if effect.boot == "same" else None,
        guest_before=before.guest,
        guest_after=_guest(effect, before.guest, step.number, at_s + 1),
        records=tuple(_records(driver, step, before, announced, at_s)),
        answered=_answered(effect, at_s),
        announced=tuple(announced),
    )


def _aml(effect: Effect, before: VmState, after: VmState, at_s: float) -> Iterator[AmlAct]:
    plugged = [answer.device_id for answer in effect.answers if answer.sources == PLUG_SOURCES]
    for device in effect.added:
        if device.device_id in plugged:
            slot = _slot(device.device_id, effect, before, after)
            yield AmlAct(*slot, "insertion taken", at_s, 0.001)
            if device.is_memory:
                address = after.dimm_places[device.device_id].address
                yield AmlAct(*slot, "resources read", at_s + 0.01, 0.001, address, device.size_bytes)


def _told(effect: Effect, before: Seen, announced: Sequence[Announced], at_s: float) -> Iterator[Told]:
    slots = {"processor": before.vm.active_vcpus, "memory": len(before.vm.dimm_bytes)}
    for device in effect.added:
        class_ = CLASS_OF[device.kind]
        yield Told(class_, "arrival", link_of(class_, slots[class_]), at_s, 0.01)
        slots[class_] += 1
    for name in effect.removed:
        class_ = "memory" if name in before.vm.dimm_bytes else "processor"
        yield Told(class_, "removal", link_of(class_, 0), at_s, 0.01)
    for one in announced:
        # As programs see it.
        link = one.link.upper().replace("\\??\\", "\\\\?\\")
        yield Told(one.announcement.interface_class, one.announcement.event, link, at_s, 0.01)


def _vm(effect: Effect, before: VmState) -> VmState:
    vcpus = [name for name in before.vcpu_ids if name not in effect.removed]
    dimms = {name: size for name, size in before.dimm_bytes.items() if name not in effect.removed}
    places = {name: place for name, place in before.dimm_places.items() if name not in effect.removed}
    for device in effect.added:
        if device.kind == "vcpu":
            vcpus.append(device.device_id)
            continue
        # Above whatever a plan may choose.
        free = max([FREE_ADDRESS, *(place.address + dimms[name] for name, place in places.items())])
        dimms[device.device_id] = device.size_bytes or 0
        taken = {place.slot for place in places.values()}
        places[device.device_id] = DimmPlace(
            slot=min(set(range(len(taken) + 1)) - taken) if device.slot is None else device.slot,
            node=device.node or 0,
            address=free if device.address is None else device.address,
        )
    return VmState(
        tuple(vcpus),
        before.active_vcpus + effect.processors,
        dimms,
        before.plugged_memory_bytes + effect.memory_bytes,
        dimm_places=places,
        run_state=effect.run_state or before.run_state,
    )


def _slot(device_id: str, effect: Effect, before: VmState, after: VmState) -> tuple[str, str]:
    """Return type and number of the slot that a device is in."""
    if device_id in after.dimm_places:
        return "DIMM", str(after.dimm_places[device_id].slot)
    vcpus = [device.device_id for device in effect.added if device.kind == "vcpu"]
    place = vcpus.index(device_id) if device_id in vcpus else 0
    return "CPU", str(before.active_vcpus + place)


def _guest(effect: Effect, before: GuestState | None, number: int, at_s: float) -> GuestState | None:
    if before is None or effect.boot == "none":
        return None
    return GuestState(
        before.active_processors + effect.processors,
        before.memory_bytes + effect.memory_bytes,
        before.boot_id if effect.boot == "same" else f"{before.boot_id}-{number}",
        reading(at_s),
    )


def _answered(effect: Effect, at_s: float) -> AnsweredCommand | None:
    if effect.reply is None:
        return None
    refused = None if effect.reply.refused is None else re.sub(r"\\(.)", r"\1", effect.reply.refused)
    return AnsweredCommand(effect.reply.command, effect.reply.returns or {}, refused, at_s)


def _records(
    driver: Driver, step: Step, before: Seen, announced: Sequence[Announced], at_s: float
) -> list[ObservedRecord]:
    effect = step.effect(before)
    vcpus, memory_bytes = driver.vcpus + effect.processors, driver.memory_bytes + effect.memory_bytes
    first_cpu = before.vm.active_vcpus if before.guest is None else before.guest.active_processors
    there: dict[str, int] = {}
    slots = {"processor": before.vm.active_vcpus, "memory": len(before.vm.dimm_bytes)}
    calls = dict.fromkeys(("add_start", "add_complete", "add_failure"), first_cpu)
    sizes = [device.size_bytes or 0 for device in effect.added if device.kind == "dimm"]
    records = []
    for word in step.expect.driver:
        if word in ("processor", "add_complete") and driver.vcpus < vcpus:
            is_told_of_it = word == "add_complete" or "add_complete" not in step.expect.driver
            driver.vcpus += is_told_of_it
        elif word == "memory" and sizes:
            driver.memory_bytes += sizes.pop(0)
        if word in ("load", "baseline", "unload"):
            if word == "load":
                # What comes after it in this step is told of what exists, hardware first.
                there, slots = slots, {"processor": 0, "memory": 0}
            driver.vcpus, driver.memory_bytes = vcpus, memory_bytes
            records.append(driver.write(word, load_fields(driver.setup) if word == "load" else "", at_s=at_s))
        elif announced:
            one = announced[0].announcement
            told = f"class={one.interface_class} event={one.event} link={announced[0].link}"
            records.append(driver.write("notification", told, at_s=at_s))
        elif word in slots:
            told = arrival(word, slots[word])
            if slots[word] >= there.get(word, 1 << 32):
                one = [one for one in before.announced if one.interface_class == word][
                    slots[word] - there[word]
                ]
                told = f"class={word} event=arrival link={announced_link(one)}"
            records.append(driver.write("notification", told, at_s=at_s))
            slots[word] += 1
        else:
            status = "0xc000009a" if word == "add_failure" else "0x00000000"
            number = calls[word]
            place = f"group={number // 64} group_number={number % 64}"
            call = f"state={word} number={number} {place} status={status}"
            records.append(driver.write("processor_change", call, at_s=at_s))
            calls[word] += 1
    driver.vcpus, driver.memory_bytes = vcpus, memory_bytes
    return records


def plan_of(folder: Path, text: str) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return load_plan(path)


def only(mismatches: tuple[Mismatch, ...]) -> Mismatch:
    (mismatch,) = mismatches
    return mismatch


def told(mismatch: Mismatch) -> tuple[int, str, str, str, str]:
    return mismatch.step, mismatch.witness, mismatch.what, mismatch.expected, mismatch.seen


def change_fields(observed: ObservedRecord, **fields: str) -> ObservedRecord:
    return change(observed, fields={**observed.record.fields, **fields})


def change(observed: ObservedRecord, **fields: Any) -> ObservedRecord:
    return replace(observed, record=replace(observed.record, **fields))
