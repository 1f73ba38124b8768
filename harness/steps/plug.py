# SPDX-License-Identifier: MIT
"""``plug``: vCPUs and DIMMs, back to back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from harness.deadline import Deadline
from harness.document.model import error_at
from harness.document.units import format_size
from harness.errors import VmError
from harness.evidence.effect import Answer, Device, Effect
from harness.evidence.witness import Seen
from harness.guest.profile import Limits
from harness.host.amounts import NOTHING, Amounts
from harness.steps.action import MappingAction
from harness.steps.room import Room
from harness.vm.backend import Backend
from harness.vm.shape import Dimm

if TYPE_CHECKING:
    from harness.steps.stage import Stage


def _vcpu_count(value: object) -> object:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"{value!r} is not a number of vCPUs; allowed: a whole number of at least 1, or all")


class Plug(MappingAction):
    """Plug vCPUs and DIMMs, back to back, vCPUs first."""

    key: ClassVar[str] = "plug"
    example: ClassVar[str] = """\
plug: {vcpus: 1, dimms: [128 MiB, {size: 256 MiB, slot: 3}]}
expect: {driver: [processor, memory, memory]}
"""
    schema_rules: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"required": ["vcpus"], "properties": {"vcpus": {"not": {"type": "null"}}}},
            {"required": ["dimms"], "properties": {"dimms": {"minItems": 1}}},
        ]
    }

    vcpus: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], BeforeValidator(_vcpu_count)] | None = (
        Field(default=None, description="A number of vCPUs, or all that max_vcpus leaves room for.")
    )
    dimms: tuple[Dimm, ...] = Field(
        default=(), description="Sizes, or mappings that also say slot, node, address or backend."
    )
    paused: StrictBool = Field(
        default=False, description="Plug while QEMU has stopped the vCPUs, then let them run again."
    )

    @model_validator(mode="after")
    def _is_something(self) -> Self:
        if self.vcpus is None and not self.dimms:
            raise error_at("plug: nothing to plug; allowed: vcpus, dimms or both")
        return self

    def title(self) -> str:
        """See :class:`Action`."""
        parts = [f"{self.vcpus} vCPU{'' if self.vcpus == 1 else 's'}"] if self.vcpus else []
        if self.dimms:
            sizes = ", ".join(str(dimm).removeprefix("DIMM ") for dimm in self.dimms)
            parts.append(f"DIMM{'s' if len(self.dimms) > 1 else ''} {sizes}")
        return f"plug {', '.join(parts)}{' while paused' if self.paused else ''}"

    def spell_out(self, room: Room) -> tuple[Self, Room]:
        """See :class:`Action`."""
        vcpus, dimm_slots = self._vcpus_in(room), room.dimm_slots.copy()
        for index, dimm in enumerate(self.dimms):
            dimm_slots.take(dimm, "dimms", index)
        default = None if room.shape.backend == Backend() else room.shape.backend
        dimms = tuple(dimm.model_copy(update={"backend": dimm.backend or default}) for dimm in self.dimms)
        after = replace(room, vcpus=room.vcpus + vcpus, dimm_slots=dimm_slots)
        return self.model_copy(update={"vcpus": vcpus, "dimms": dimms}), after

    def check_fits(self, limits: Limits) -> None:
        """See :class:`Action`."""
        for index, dimm in enumerate(self.dimms):
            if dimm.size_bytes % limits.dimm_multiple_bytes:
                size, multiple = format_size(dimm.size_bytes), format_size(limits.dimm_multiple_bytes)
                raise error_at(f"DIMM of {size}; the guest allows multiples of {multiple}", "dimms", index)

    def need(self) -> Amounts:
        """See :class:`Action`."""
        in_files = [dimm.size_bytes for dimm in self.dimms if dimm.backend and dimm.backend.type == "file"]
        return replace(
            NOTHING, vcpus=self._count(), memory_bytes=self._memory_bytes(), disk_bytes=sum(in_files)
        )

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        first = before.devices
        vcpus = [Device(device_id=f"vcpu{first + n}", kind="vcpu") for n in range(self._count())]
        dimms = [
            Device(
                device_id=f"dimm{number}",
                kind="dimm",
                size_bytes=dimm.size_bytes,
                slot=dimm.slot,
                node=dimm.node,
                address=dimm.address,
            )
            for number, dimm in enumerate(self.dimms, start=first + len(vcpus))
        ]
        devices = (*vcpus, *dimms)
        return Effect(
            added=devices,
            answers=tuple(Answer(device_id=device.device_id) for device in devices),
            processors=len(vcpus),
            memory_bytes=self._memory_bytes(),
            clock="anew" if self.paused else "kept",
        )

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        with stage.paused() if self.paused else nullcontext():
            self._plug(stage)

    def _plug(self, stage: Stage) -> None:
        deadline, number = stage.command_deadline(), stage.before.devices
        slots = stage.vm.vcpu_slots(deadline=deadline) if self._count() else ()
        free = [slot for slot in slots if slot.free][: self._count()]
        if len(free) < self._count():
            raise VmError(f"QEMU has {len(free)} free places for vCPUs; the plan plugs {self._count()}")
        for slot in free:
            device_id = f"vcpu{number}"
            stage.acts.devices.append(stage.vm.plug_vcpu(slot, device_id=device_id, deadline=deadline))
            number += 1
        for dimm in self.dimms:
            stage.acts.devices.append(
                stage.vm.plug_dimm(
                    dimm.size_bytes,
                    device_id=f"dimm{number}",
                    slot=dimm.slot,
                    node=dimm.node,
                    address=dimm.address,
                    backend=dimm.backend,
                    deadline=deadline,
                )
            )
            number += 1

    def _count(self) -> int:
        return self.vcpus if isinstance(self.vcpus, int) else 0

    def _memory_bytes(self) -> int:
        return sum(dimm.size_bytes for dimm in self.dimms)

    def _vcpus_in(self, room: Room) -> int:
        if self.vcpus is None:
            return 0
        left = room.shape.max_vcpus - room.vcpus
        wanted = left if self.vcpus == "all" else self.vcpus
        if left == 0 or wanted > left:
            raise error_at(
                f"vcpus: {self.vcpus} is more than the vm has room for; "
                f"allowed here: {left} (max_vcpus {room.shape.max_vcpus}, {room.vcpus} present by then)",
                "vcpus",
            )
        return wanted
