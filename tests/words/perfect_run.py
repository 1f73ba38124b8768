# SPDX-License-Identifier: MIT
"""Evidence of perfect runs, for tests to break one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

from harness.driver_log import LogParser
from harness.evidence import (
    GuestState,
    ObservedRecord,
    OspmStatus,
    PluggedDevice,
    StepEvidence,
    VmState,
)
from harness.mismatch import Mismatch
from harness.plan import Plan, Step, load_plan
from harness.profile import Profile, find_profile
from harness.units import GIB
from harness.verify import verify

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
LOAD = "format=1 driver=hpnotify/1.0.0 qpc_hz=10000000 interfaces=both synchronous=0"


def link_of(class_: str, slot: int) -> str:
    return rf"\??\ACPI#{IDS[class_]}#_{slot}#{GUIDS[class_]}"


def arrival(class_: str, slot: int) -> str:
    return f"class={class_} event=arrival link={link_of(class_, slot)}"


@dataclass
class Driver:
    """Writes the log of a driver that does everything right."""

    seq: int = -1
    vcpus: int = 1
    memory_bytes: int = GIB

    def write(self, kind: str, fields: str = "", *, at_s: float = 0.0, lost: int = 0) -> ObservedRecord:
        self.seq = 0 if kind == "load" else self.seq + 1
        line = (
            f"seq={self.seq} record={kind} time_100ns=1 qpc=1 active_processors={self.vcpus} "
            f"memory_bytes={self.memory_bytes} lost={lost} {fields}"
        )
        (record,) = LogParser().feed(f"{line.strip()}\n".encode())
        return ObservedRecord(record, seen_at_s=at_s + 0.2, written_at_s=at_s + 0.1, clock_error_s=0.01)


@dataclass
class Run:
    """A plan and the evidence of its steps; :meth:`break_step` spoils one of them."""

    plan: Plan
    profile: Profile
    steps: list[StepEvidence]
    earlier: list[ObservedRecord]

    def break_step(self, number: int, /, **changes: object) -> None:
        self.steps[number - 1] = replace(self.steps[number - 1], **changes)  # type: ignore[arg-type]

    def end_after(self, number: int) -> None:
        """Leave the steps after this one out, as a run does that fails with it."""
        del self.steps[number:]

    def break_records(
        self, number: int, change: Callable[[list[ObservedRecord]], Sequence[ObservedRecord]]
    ) -> None:
        self.break_step(number, records=tuple(change(list(self.steps[number - 1].records))))

    def verify(self) -> tuple[Mismatch, ...]:
        return verify(self.plan, self.profile, self.steps, earlier=self.earlier)


def perfect_run(plan: Plan, profile: Profile) -> Run:
    """Return the evidence of a run in which every witness saw exactly what the plan expects."""
    driver = Driver(vcpus=plan.vm.vcpus, memory_bytes=plan.vm.memory_bytes)
    earlier = [driver.write("load", LOAD), driver.write("baseline")]
    vm = VmState((), plan.vm.vcpus, {}, 0)
    guest = GuestState(plan.vm.vcpus, plan.vm.memory_bytes, "boot-1")
    steps = []
    for step in plan.unrolled():
        at_s = 100.0 * step.number
        devices = _devices(step, vm, at_s)
        dimms = {device.device_id: device.size_bytes or 0 for device in devices if device.kind == "dimm"}
        vcpu_ids = tuple(device.device_id for device in devices if device.kind == "vcpu")
        vm_after = VmState(
            vm.vcpu_ids + vcpu_ids,
            vm.active_vcpus + len(vcpu_ids),
            {**vm.dimm_bytes, **dimms},
            vm.plugged_memory_bytes + sum(dimms.values()),
        )
        guest_after = GuestState(
            guest.active_processors + len(vcpu_ids), guest.memory_bytes + sum(dimms.values()), guest.boot_id
        )
        driver.vcpus, driver.memory_bytes = guest_after.active_processors, guest_after.memory_bytes
        slots = {"processor": len(vm.vcpu_ids), "memory": len(vm.dimm_bytes)}
        steps.append(
            StepEvidence(
                number=step.number,
                title=step.title,
                acted_at_s=at_s,
                within_s=step.within_s,
                devices=devices,
                vm_before=vm,
                vm_after=vm_after,
                ospm=tuple(OspmStatus(device.device_id, "CPU", "1", 1, 0, at_s + 0.1) for device in devices),
                guest_before=guest,
                guest_after=guest_after,
                records=tuple(_records(driver, step, slots, at_s)),
            )
        )
        vm, guest = vm_after, guest_after
    return Run(plan, profile, steps, earlier)


def _devices(step: Step, vm: VmState, at_s: float) -> tuple[PluggedDevice, ...]:
    if step.plug is None:
        return ()
    first_vcpu, first_dimm = len(vm.vcpu_ids) + 1, len(vm.dimm_bytes) + 1
    return (
        *(PluggedDevice(f"cpu{first_vcpu + n}", "vcpu", None, at_s) for n in range(step.plug.vcpus)),
        *(
            PluggedDevice(f"dimm{first_dimm + n}", "dimm", size_bytes, at_s)
            for n, size_bytes in enumerate(step.plug.dimms_bytes)
        ),
    )


def _records(driver: Driver, step: Step, slots: dict[str, int], at_s: float) -> list[ObservedRecord]:
    records = []
    for word in step.expect.driver:
        if word in slots:
            slots[word] += 1
            records.append(driver.write("notification", arrival(word, slots[word]), at_s=at_s))
        elif word.startswith("add_"):
            change = f"state={word} number=1 group=0 group_number=1 status=0x00000000"
            records.append(driver.write("processor_change", change, at_s=at_s))
        else:
            records.append(driver.write(word, LOAD if word == "load" else "", at_s=at_s))
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


def change(observed: ObservedRecord, **fields: Any) -> ObservedRecord:
    return replace(observed, record=replace(observed.record, **fields))
