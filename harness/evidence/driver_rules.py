# SPDX-License-Identifier: MIT
"""What a driver's log is judged by, beside the steps: how the driver was set up, and on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.evidence.effect import Announcement, InterfaceClass
from harness.evidence.record import Record
from harness.evidence.witness import GuestState, VmState


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRules:
    """How the driver under test was configured, and the most that its VM can be.

    :ivar names: what may come before the slash in the load record's ``driver``, in any letter case.
    :ivar boot_memory_bytes: the VM's memory without DIMMs; None if nothing is known of it.
    :ivar max_processors: with all vCPUs plugged; None if nothing is known of it.
    """

    interfaces: Literal["both", "processor", "memory"] = "both"
    synchronous: bool = False
    existing: bool = False
    names: tuple[str, ...] = ()
    boot_memory_bytes: int | None = None
    max_processors: int | None = None

    def registers(self, class_: str | None) -> bool:
        """Return whether the driver is to be told of interfaces of a class."""
        return self.interfaces == "both" or self.interfaces == class_


def existing_interfaces(
    driver: DriverRules, vm: VmState, guest: GuestState | None, announced: Iterable[Announcement] = ()
) -> Counter[InterfaceClass]:
    """Return of how many existing interfaces of each class a load of the driver is told, each at least once.

    Those of the processors in use, of the DIMMs present (boot memory has none) and of what is announced.
    """
    there: Counter[InterfaceClass] = Counter(one.interface_class for one in announced)
    there["processor"] += vm.active_vcpus if guest is None else guest.active_processors
    there["memory"] += len(vm.dimm_bytes)
    return Counter(
        {class_: number for class_, number in there.items() if driver.existing and driver.registers(class_)}
    )


def told_once(records: Iterable[Record]) -> list[Record]:
    """Return the records without what a load told of existing interfaces a second time.

    Windows may call the callback twice for one interface that exists at registration ("ignore the second
    call", wdm.h: IoRegisterPlugPlayNotification).
    """
    told: set[tuple[str, str]] | None = None
    kept = []
    for record in records:
        if record.kind == "load":
            told = set() if record.tells_existing else None
        if told is not None and record.is_arrival:
            if record.interface in told:
                continue
            told.add(record.interface)
        kept.append(record)
    return kept


def is_told_of_existing(records: Sequence[Record], wanted: Counter[InterfaceClass]) -> bool:
    """Return whether the last load has been told of so many existing interfaces."""
    loads = [index for index, record in enumerate(records) if record.kind == "load"]
    last = told_once(records[loads[-1] :] if loads else records)
    told = Counter(record.class_ for record in last if record.is_arrival)
    return all(told[class_] >= number for class_, number in wanted.items())
