# SPDX-License-Identifier: MIT
"""What the four witnesses said about each step: values only, no judgement.

Every ``*_s`` instant is in seconds of the host's :func:`time.monotonic`: the witnesses share one clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.evidence.effect import Announcement, DeviceKind, Effect, InterfaceClass, announced_after
from harness.evidence.incident import Incident
from harness.evidence.record import Record

Witness = Literal["vm", "ospm", "guest", "driver"]

#: In the order of blame: when several witnesses disagree with the plan, the first one broke first.
WITNESSES: tuple[Witness, ...] = get_args(Witness)


@dataclass(frozen=True, slots=True)
class PluggedDevice:
    """A device the harness plugged."""

    device_id: str
    kind: DeviceKind
    size_bytes: int | None  #: of a DIMM
    plugged_at_s: float


@dataclass(frozen=True, slots=True)
class DimmPlace:
    """Where a DIMM is, as QEMU tells it."""

    slot: int
    node: int
    address: int  #: guest-physical, of its first byte


@dataclass(frozen=True, slots=True)
class VmState:
    """Witness ``vm``: what QEMU answers when asked again, never its reply to the plug itself."""

    vcpu_ids: tuple[str, ...]  #: ids of the hot-plugged vCPUs present
    active_vcpus: int  #: all vCPUs, those present at boot included
    dimm_bytes: Mapping[str, int] = field(hash=False)  #: size by id of each DIMM present
    plugged_memory_bytes: int
    #: by id of each DIMM present
    dimm_places: Mapping[str, DimmPlace] = field(default_factory=dict, hash=False)
    run_state: str = "running"  #: QEMU's RunState, from query-status

    def present(self, kind: DeviceKind) -> dict[str, int | None]:
        """Return the hot-plugged devices of a kind by id, with their size in bytes if they have one."""
        found: dict[DeviceKind, dict[str, int | None]] = {
            "vcpu": dict.fromkeys(self.vcpu_ids),
            "dimm": dict(self.dimm_bytes),
        }
        return found[kind]


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
class AmlAct:
    """Witness ``ospm``: something that the guest's AML did, as QEMU's trace events tell it.

    It took the insertion of a device, or read what resources a DIMM has (``_CRS``).
    """

    slot_type: str
    slot: str
    what: Literal["insertion taken", "resources read"]
    at_s: float
    error_s: float  #: that instant is right within plus or minus this
    address: int | None = None  #: of the DIMM, as it was read
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The guest's own clocks at one instant, as its probe read them."""

    qpc: int
    qpc_hz: int
    time_100ns: int


@dataclass(frozen=True, slots=True)
class GuestState:
    """Witness ``guest``: what the operating system says it uses, and its clocks as they were then."""

    active_processors: int
    memory_bytes: int
    boot_id: str
    reading: ClockReading | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AnsweredCommand:
    """What QEMU said to a command of the plan's own: ``returned``, or the text by which it ``refused``."""

    command: str
    returned: Any = field(hash=False)
    refused: str | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Announced:
    """A device interface that the guest's PnP manager was made to tell of, without hardware."""

    announcement: Announcement
    link: str  #: its symbolic link, as the guest said
    at_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """Witness ``guest``: a device interface of which the guest's PnP manager told a program in user mode."""

    interface_class: InterfaceClass
    event: Literal["arrival", "removal"]
    link: str
    at_s: float  #: by the guest's performance counter
    error_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How everything was at the end of the step before: what a step's effect is counted from."""

    vm: VmState
    guest: GuestState | None  #: None for a guest that has no such witness, or is switched off
    driver_runs: bool = True
    devices: int = 0  #: how many were plugged so far, by which new ones are named
    announced: tuple[Announcement, ...] = ()  #: interfaces that are announced and not withdrawn
    qemu_version: str = "0"

    def after(self, step: StepEvidence) -> Seen:
        """Return how everything is after a step that began from here."""
        effect = step.effect
        announced = self.announced if effect.boot == "same" else ()
        for one in effect.announced:
            announced = announced_after(announced, one)
        return Seen(
            vm=step.vm_after,
            guest=step.guest_after,
            driver_runs=self.driver_runs if effect.driver_runs is None else effect.driver_runs,
            devices=self.devices + len(step.devices),
            announced=announced,
            qemu_version=self.qemu_version,
        )


@dataclass(frozen=True, slots=True)
class ObservedRecord:
    """Witness ``driver``: one log record and when it was written and read."""

    record: Record
    seen_at_s: float
    written_at_s: float  #: the guest's performance counter mapped to host time
    clock_error_s: float  #: that mapping is right within plus or minus this
    reading: ClockReading | None = None  #: of the same boot, near the time of the record


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegun:
    """What was observed about a step of a plan, whether it came to its end or not.

    :ivar due_from_s: from when ``within_s`` counts: the act, or the guest's return after it.
    :ivar aml: what the guest's AML did; None if QEMU does not tell.
    :ivar told: of what programs were told; None if that is not known, as in a step in which the guest boots.
    :ivar refused: what the guest said when the driver did not start or stop.
    :ivar incidents: what happened that no step asked for.
    """

    number: int  #: from 1
    title: str
    key: str  #: of the step's kind, as in the plan
    effect: Effect
    acted_at_s: float  #: just before the act
    due_from_s: float
    within_s: float
    devices: tuple[PluggedDevice, ...]
    vm_before: VmState
    guest_before: GuestState | None
    ospm: tuple[OspmStatus, ...]
    records: tuple[ObservedRecord, ...]
    aml: tuple[AmlAct, ...] | None = None
    told: tuple[Told, ...] | None = None
    refused: str | None = None
    answered: AnsweredCommand | None = None
    announced: tuple[Announced, ...] = ()
    incidents: tuple[Incident, ...] = ()

    def finished(self, *, vm_after: VmState, guest_after: GuestState | None) -> StepEvidence:
        """Return the evidence of the step that has come to its end."""
        observed = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return StepEvidence(**observed, vm_after=vm_after, guest_after=guest_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvidence(StepBegun):
    """All that was observed about one step that came to its end; only these are judged."""

    vm_after: VmState
    guest_after: GuestState | None  #: None for a guest that has no such witness, or is switched off
