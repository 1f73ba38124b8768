# SPDX-License-Identifier: MIT
"""Judges what QEMU says when asked again: the step's devices were added, and nothing else changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import get_args

from harness.document.units import format_size
from harness.evidence.effect import Device, DeviceKind, Effect
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.witness import StepEvidence, VmState

_DEVICES_OF_KIND = {"vcpu": "hot-plugged vCPUs in the vm", "dimm": "DIMMs in the vm"}


def vm_mismatches(evidence: StepEvidence) -> Iterator[Mismatch]:
    """What QEMU says of devices, their places, their sums and its run state."""
    before, after, effect = evidence.vm_before, evidence.vm_after, evidence.effect
    about = About(evidence.number, evidence.title, "vm")
    for kind in get_args(DeviceKind):
        wanted = _present(before, effect, kind)
        if wanted != after.present(kind):
            yield about.mismatch(_DEVICES_OF_KIND[kind], _listed(wanted), _listed(after.present(kind)))
    if before.active_vcpus + effect.processors != after.active_vcpus:
        yield about.mismatch(
            "vCPUs in the vm", with_more(before.active_vcpus, effect.processors), after.active_vcpus
        )
    if before.plugged_memory_bytes + effect.memory_bytes != after.plugged_memory_bytes:
        yield about.mismatch(
            "plugged memory of the vm in bytes",
            with_more(before.plugged_memory_bytes, effect.memory_bytes),
            after.plugged_memory_bytes,
        )
    yield from _places(about, evidence)
    if after.run_state != wanted_run_state(evidence):
        yield about.mismatch("the run state of the vm", wanted_run_state(evidence), after.run_state)


def wanted_run_state(evidence: StepEvidence) -> str:
    """Return the run state that the vm must be in after the step."""
    return evidence.effect.run_state or evidence.vm_before.run_state


def with_more(before: int, more: int) -> str:
    """Return for people what a figure must be, and why."""
    return f"{before + more} ({before} + {more} plugged)" if more else f"{before} as before"


def _places(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    before, after, effect = evidence.vm_before, evidence.vm_after, evidence.effect
    taken = {place.slot for name, place in before.dimm_places.items() if name not in effect.removed}
    for device in effect.added:
        if device.is_memory:
            # QEMU takes the lowest free slot and node 0 (hw/mem/pc-dimm.c); the address is its own choice.
            free = next(slot for slot in count() if slot not in taken)
            slot = free if device.slot is None else device.slot
            wanted = {"slot": slot, "node": device.node or 0, "address": device.address}
            taken.add(slot)
            yield from _place(about, after, device, wanted)
    for device_id, was in before.dimm_places.items():
        now = after.dimm_places.get(device_id, was)
        if now != was:
            yield about.mismatch(f"the place of {device_id}", was, now)


def _place(
    about: About, after: VmState, device: Device, wanted: Mapping[str, int | None]
) -> Iterator[Mismatch]:
    place, size_bytes = after.dimm_places.get(device.device_id), device.size_bytes or 0
    if place is None:
        return
    for name, value in wanted.items():
        if value is not None and getattr(place, name) != value:
            yield about.mismatch(f"{name} of {device.device_id}", value, getattr(place, name))
    for other_id, other in after.dimm_places.items():
        if other_id != device.device_id and (
            place.address < other.address + after.dimm_bytes.get(other_id, 0)
            and other.address < place.address + size_bytes
        ):
            yield about.mismatch(
                f"address of {device.device_id}",
                f"none that {other_id} has, {other.address:#x}",
                f"{place.address:#x}",
            )


def _present(before: VmState, effect: Effect, kind: DeviceKind) -> dict[str, int | None]:
    added = {device.device_id: device.size_bytes for device in effect.added if device.kind == kind}
    kept = {name: size for name, size in before.present(kind).items() if name not in effect.removed}
    return {**kept, **added}


def _listed(devices: Mapping[str, int | None]) -> str:
    named = (
        f"{name} {format_size(size)}" if size is not None else name for name, size in sorted(devices.items())
    )
    return ", ".join(named) or "none"
