# SPDX-License-Identifier: MIT
"""Read what QEMU says about hot-plug, in answers and in events, into typed values: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.evidence.witness import DimmPlace, OspmStatus
from harness.wires.qmp import Event

# QEMU keeps hot-plugged devices that have an id here; those of the start have no id and live elsewhere.
_PERIPHERAL = re.compile(r"/machine/peripheral/(?P<device_id>[^/]+)")

_TOPOLOGY = ("socket-id", "die-id", "cluster-id", "module-id", "core-id", "thread-id")


@dataclass(frozen=True, slots=True)
class VcpuSlot:
    """A place for a vCPU, taken or free, as QEMU's ``query-hotpluggable-cpus`` tells it."""

    driver: str  #: QEMU's device model to plug here
    props: Mapping[str, int] = field(hash=False)  #: socket, core, thread and node id
    qom_path: str | None  #: of the vCPU in it, None when free
    device_id: str | None  #: of the vCPU in it if it was hot-plugged

    @property
    def free(self) -> bool:
        """Whether a vCPU can be plugged here."""
        return self.qom_path is None


def read_vcpu_slots(entries: Iterable[Mapping[str, Any]]) -> tuple[VcpuSlot, ...]:
    """Return the answer to ``query-hotpluggable-cpus`` by ascending place; QEMU lists the highest first."""
    slots = [_vcpu_slot(entry) for entry in entries]
    return tuple(sorted(slots, key=lambda slot: [slot.props.get(name, 0) for name in _TOPOLOGY]))


def read_dimm_place(dimm: Mapping[str, Any]) -> DimmPlace:
    """Return where a DIMM of the answer to ``query-memory-devices`` is."""
    return DimmPlace(slot=dimm["slot"], node=dimm["node"], address=dimm["addr"])


def read_ospm_status(entry: Mapping[str, Any], at_s: float) -> OspmStatus:
    """Return one answer of the guest's ACPI from QEMU's ``ACPIOSTInfo``."""
    return OspmStatus(
        # An empty slot, and a vCPU that was there at boot, have no id.
        device_id=entry.get("device", ""),
        slot_type=entry["slot-type"],
        slot=entry["slot"],
        source=entry["source"],
        status=entry["status"],
        at_s=at_s,
    )


def ospm_status(event: Event) -> OspmStatus:
    """Return what an ``ACPI_DEVICE_OST`` event says."""
    return read_ospm_status(event.data["info"], event.at_s)


def _vcpu_slot(entry: Mapping[str, Any]) -> VcpuSlot:
    qom_path = entry.get("qom-path")
    plugged = _PERIPHERAL.fullmatch(qom_path or "")
    return VcpuSlot(entry["type"], entry["props"], qom_path, plugged["device_id"] if plugged else None)
