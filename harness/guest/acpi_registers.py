# SPDX-License-Identifier: MIT
"""The registers by which a guest's ACPI hears of plugs and answers them, on QEMU's q35.

What firmware and operating system do with them is done here over qtest, by the harness. They are those of
QEMU's docs/specs/acpi_cpu_hotplug.rst and acpi_mem_hotplug.rst, and for power of Intel's ICH9 datasheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.evidence.effect import DeviceKind
from harness.wires.qtest import Bits, QtestSession

#: ACPI 6.5, section 6.3.5: the source of an ``_OST`` that follows a plug.
DEVICE_CHECK = 1

#: The interrupt by which ACPI calls the operating system, and the controller that it comes to.
_SCI, _CONTROLLER = 9, "ioapic"

# Where firmware puts the power management registers, and what of them is used.
_PM_BASE = 0x600
_PM1_CONTROL = _PM_BASE + 0x04
_GPE0_STATUS, _GPE0_ENABLE = _PM_BASE + 0x20, _PM_BASE + 0x28
_SLEEP_ENABLE, _SLEEP_TYPE_SHIFT = 1 << 13, 10
#: The sleep types of q35 by ACPI state, QEMU hw/i386/acpi-build.c.
_SLEEP_TYPES = {3: 1, 5: 0}
#: General purpose events 2 and 3: something is with a vCPU, something is with a DIMM.
_VCPU_EVENT, _DIMM_EVENT = 1 << 2, 1 << 3

# Both blocks have a selector at their start. A status has bit 1 set while nobody has told of an insertion;
# writing that bit says that somebody has.
_VCPU = 0xCD8
_VCPU_STATUS, _VCPU_COMMAND, _VCPU_DATA = _VCPU + 4, _VCPU + 5, _VCPU + 8
_FIND, _OST_SOURCE, _OST_STATUS = 0, 1, 2
_DIMM = 0xA00
_DIMM_OST_SOURCE, _DIMM_OST_STATUS, _DIMM_STATUS = _DIMM + 4, _DIMM + 8, _DIMM + 0x14
#: Upper and lower half of a DIMM's address, then of its size, in the order in which ``_CRS`` reads them.
_RESOURCES: Mapping[DeviceKind, tuple[int, ...]] = {
    "vcpu": (),
    "dimm": (_DIMM + 4, _DIMM, _DIMM + 0xC, _DIMM + 8),
}
_INSERTED = 1 << 1

_RESET_CONTROL, _FULL_RESET = 0xCF9, 6
# QEMU docs/specs/pvpanic.rst
_PVPANIC = 0x505
_PANICKED, _CRASH_LOADED = 1, 2

_ISA_BRIDGE = 0x1F


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is, by ACPI's count: the number of a vCPU among all possible ones, or a DIMM's slot."""

    kind: DeviceKind
    number: int


class AcpiRegisters:
    """The ACPI of one VM, from inside. For one thread at a time; errors as of :class:`QtestSession`.

    :param dimm_slots: how many the VM has.
    """

    def __init__(self, qtest: QtestSession, *, dimm_slots: int = 0) -> None:
        self.qtest = qtest
        self._dimm_slots = dimm_slots

    def switch_on(self) -> None:
        """Do what firmware and operating system do at every boot: from now on plugs are heard of.

        What was there before is taken for present from boot on, and nothing is told of it.
        """
        # The power management registers get their address and are switched on.
        self.write_pci(_ISA_BRIDGE, 0x40, _PM_BASE | 1)
        self.write_pci(_ISA_BRIDGE, 0x44, 0x80, bits=8)
        # The first write of 0 to the selector is what switches the vCPUs' registers on.
        self.qtest.write_port(_VCPU, 0, bits=32)
        self.qtest.intercept_interrupts(_CONTROLLER)
        list(self._inserted(_VCPU_EVENT | _DIMM_EVENT))
        self.qtest.write_port(_GPE0_STATUS, 0xFF)
        self.qtest.write_port(_GPE0_ENABLE, _VCPU_EVENT | _DIMM_EVENT)
        self.qtest.raised.clear()

    @property
    def is_called(self) -> bool:
        """Whether ACPI's interrupt came since :meth:`take_inserted`."""
        return _SCI in self.qtest.raised

    def take_inserted(self) -> list[Place]:
        """Return where devices were plugged since it was last asked: vCPUs first, by number."""
        self.qtest.raised.discard(_SCI)
        found: list[Place] = []
        # The interrupt is held as long as any event stands, and only one that was let go can call again.
        while events := self.qtest.read_port(_GPE0_STATUS) & (_VCPU_EVENT | _DIMM_EVENT):
            # Cleared before anybody looks for the cause, so that a plug meanwhile is an event again.
            self.qtest.write_port(_GPE0_STATUS, events)
            found += self._inserted(events)
        return found

    def read_resources(self, place: Place) -> None:
        """Evaluate ``_CRS`` of the device at a place if it has one, as a system does that is to use it."""
        for register in _RESOURCES[place.kind]:
            self.qtest.write_port(_DIMM, place.number, bits=32)
            self.qtest.read_port(register, bits=32)

    def answer(self, place: Place, *, source: int = DEVICE_CHECK, status: int) -> None:
        """Evaluate ``_OST`` for the device at a place."""
        answers = {"vcpu": self._answer_vcpu, "dimm": self._answer_dimm}
        answers[place.kind](place.number, source, status)

    def _answer_vcpu(self, number: int, source: int, status: int) -> None:
        self.qtest.write_port(_VCPU, number, bits=32)
        for command, value in ((_OST_SOURCE, source), (_OST_STATUS, status)):
            self.qtest.write_port(_VCPU_COMMAND, command)
            self.qtest.write_port(_VCPU_DATA, value, bits=32)

    def _answer_dimm(self, number: int, source: int, status: int) -> None:
        self.qtest.write_port(_DIMM, number, bits=32)
        self.qtest.write_port(_DIMM_OST_SOURCE, source, bits=32)
        self.qtest.write_port(_DIMM_OST_STATUS, status, bits=32)

    def sleep(self, state: Literal[3, 5]) -> None:
        """Enter a sleep state: 3 suspends, 5 powers off. The registers must be switched on."""
        value = _SLEEP_ENABLE | _SLEEP_TYPES[state] << _SLEEP_TYPE_SHIFT
        self.qtest.write_port(_PM1_CONTROL, value, bits=16)

    def restart(self) -> None:
        """Reset the machine by its reset control register."""
        self.qtest.write_port(_RESET_CONTROL, _FULL_RESET)

    def panic(self, *, crash_kernel: bool = False) -> None:
        """Say over pvpanic that the operating system crashed."""
        self.qtest.write_port(_PVPANIC, _CRASH_LOADED if crash_kernel else _PANICKED)

    def write_pci(self, device: int, register: int, value: int, *, bits: Bits = 32) -> None:
        """Write a register in the PCI configuration space of a device on bus 0."""
        self.qtest.write_port(0xCF8, 1 << 31 | device << 11 | register & ~3, bits=32)
        self.qtest.write_port(0xCFC + (register & 3), value, bits=bits)

    def _inserted(self, events: int) -> Iterator[Place]:
        """Yield where devices were inserted that nobody was told of, and say that somebody was."""
        while events & _VCPU_EVENT:
            self.qtest.write_port(_VCPU, 0, bits=32)
            self.qtest.write_port(_VCPU_COMMAND, _FIND)
            if not self.qtest.read_port(_VCPU_STATUS) & _INSERTED:
                break
            number = self.qtest.read_port(_VCPU_DATA, bits=32)
            self.qtest.write_port(_VCPU_STATUS, _INSERTED)
            yield Place("vcpu", number)
        for slot in range(self._dimm_slots) if events & _DIMM_EVENT else ():
            self.qtest.write_port(_DIMM, slot, bits=32)
            if self.qtest.read_port(_DIMM_STATUS) & _INSERTED:
                self.qtest.write_port(_DIMM_STATUS, _INSERTED)
                yield Place("dimm", slot)
