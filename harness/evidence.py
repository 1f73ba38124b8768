# SPDX-License-Identifier: MIT
"""What the four witnesses said about each step: values only, no judgement.

Every ``*_s`` instant is in seconds of the host's :func:`time.monotonic`: the witnesses share one clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from harness.driver_log import Record

Witness = Literal["vm", "ospm", "guest", "driver"]

#: In the order of blame: when several witnesses disagree with the plan, the first one broke first.
WITNESSES: tuple[Witness, ...] = get_args(Witness)


@dataclass(frozen=True, slots=True)
class PluggedDevice:
    """A device the harness plugged."""

    device_id: str
    kind: Literal["vcpu", "dimm"]
    size_bytes: int | None  #: of a DIMM
    plugged_at_s: float


@dataclass(frozen=True, slots=True)
class VmState:
    """Witness ``vm``: what QEMU answers when asked again, never its reply to the plug itself."""

    vcpu_ids: tuple[str, ...]  #: ids of the hot-plugged vCPUs present
    active_vcpus: int  #: all vCPUs, those present at boot included
    dimm_bytes: Mapping[str, int] = field(hash=False)  #: size by id of each DIMM present
    plugged_memory_bytes: int


@dataclass(frozen=True, slots=True)
class OspmStatus:
    """Witness ``ospm``: one answer of the guest's ACPI, an ``_OST`` evaluation seen by QEMU."""

    device_id: str
    slot_type: str
    slot: str
    source: int
    status: int
    at_s: float


@dataclass(frozen=True, slots=True)
class GuestState:
    """Witness ``guest``: what the operating system says it uses."""

    active_processors: int
    memory_bytes: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class ObservedRecord:
    """Witness ``driver``: one log record and when it was written and read."""

    record: Record
    seen_at_s: float
    written_at_s: float  #: the guest's performance counter mapped to host time
    clock_error_s: float  #: that mapping is right within plus or minus this


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegun:
    """What was observed about a step of a plan, whether it came to its end or not."""

    number: int  #: from 1
    title: str
    acted_at_s: float  #: just before the act
    within_s: float
    devices: tuple[PluggedDevice, ...]
    vm_before: VmState
    guest_before: GuestState
    ospm: tuple[OspmStatus, ...]
    records: tuple[ObservedRecord, ...]
    refused: str | None = None  #: what the guest said when the driver did not start or stop

    def finished(self, *, vm_after: VmState, guest_after: GuestState) -> StepEvidence:
        """Return the evidence of the step that has come to its end."""
        observed = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return StepEvidence(**observed, vm_after=vm_after, guest_after=guest_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvidence(StepBegun):
    """All that was observed about one step that came to its end; only these are judged."""

    vm_after: VmState
    guest_after: GuestState
