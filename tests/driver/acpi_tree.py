# SPDX-License-Identifier: MIT
"""What hpfeed looks at in Linux's sysfs, as files: ACPI slots, processors and memory that a test moves."""

from __future__ import annotations

import os
import select
from pathlib import Path

from harness.deadline import Deadline

BLOCK_BYTES = 128 << 20
BOOT_BLOCKS = 4


class AcpiTree:
    """Four vCPU slots, the first of them with the boot processor, and two DIMM slots, both empty."""

    def __init__(self, folder: Path) -> None:
        self.sysfs = folder / "sys"
        self.uevents = folder / "uevents"
        self._acpi = self.sysfs / "bus" / "acpi" / "devices"
        self._cpu = self.sysfs / "devices" / "system" / "cpu"
        self._memory = self.sysfs / "devices" / "system" / "memory"
        os.mkfifo(self.uevents)
        self._uevents_fd = os.open(self.uevents, os.O_RDWR)
        for slot in range(4):
            (self._acpi / f"LNXCPU:{slot:02x}").mkdir(parents=True)
            self._set_status(f"LNXCPU:{slot:02x}", present=slot == 0)
        for slot in range(2):
            (self._acpi / f"PNP0C80:{slot:02x}").mkdir()
            self._set_status(f"PNP0C80:{slot:02x}", present=False)
            self.set_uid(slot, f"0x{slot:02x}")
        self._cpu.mkdir(parents=True)
        (self._cpu / "possible").write_text("0-3\n")
        self.set_online("0")
        self._memory.mkdir()
        (self._memory / "block_size_bytes").write_text(f"{BLOCK_BYTES:x}\n")
        for block in range(BOOT_BLOCKS):
            self._add_block(block, "online")

    def set_uid(self, slot: int, uid: str | None) -> None:
        """Let the firmware say that of a DIMM slot, or nothing."""
        file = self._acpi / f"PNP0C80:{slot:02x}" / "uid"
        if uid is None:
            file.unlink()
        else:
            file.write_text(f"{uid}\n")

    def close(self) -> None:
        os.close(self._uevents_fd)

    def uevent(self, text: str) -> None:
        """Let the kernel say that."""
        os.write(self._uevents_fd, text.encode() + b"\0SUBSYSTEM=any\0")

    def plug_vcpu(self, slot: int) -> None:
        """The slot's status becomes present; Linux has not looked at it yet."""
        self._set_status(f"LNXCPU:{slot:02x}", present=True)

    def register_cpu(self, slot: int, *, link: str = "physical_node", can_start: bool = True) -> None:
        """Linux has made a processor of that slot, which is not online."""
        cpu = self._cpu / f"cpu{slot}"
        cpu.mkdir()
        if can_start:
            os.mkfifo(cpu / "online")
        if link == "physical_node":
            (self._acpi / f"LNXCPU:{slot:02x}" / link).symlink_to(f"../../../../devices/system/cpu/cpu{slot}")
        else:
            (cpu / link).symlink_to(f"../../../../bus/acpi/devices/LNXCPU:{slot:02x}")

    def unplug_vcpu(self, slot: int) -> None:
        self._set_status(f"LNXCPU:{slot:02x}", present=False)

    def online_request(self, cpu: int) -> OnlineRequest:
        """What is written to the processor's ``online`` file from now on."""
        return OnlineRequest(self._cpu / f"cpu{cpu}" / "online")

    def set_online(self, cpus: str) -> None:
        """Set the list of processors that are online."""
        new = self._cpu / "online.new"
        new.write_text(cpus + "\n")
        new.rename(self._cpu / "online")

    def plug_dimm(self, slot: int, *, blocks: int, state: str = "online") -> None:
        """The slot's status becomes present and its memory blocks are in that state."""
        self._set_status(f"PNP0C80:{slot:02x}", present=True)
        first = len(list(self._memory.glob("memory*")))
        for number in range(blocks):
            self._add_block(first + number, state)
            name = f"physical_node{number or ''}"
            target = f"../../../../devices/system/memory/memory{first + number}"
            (self._acpi / f"PNP0C80:{slot:02x}" / name).symlink_to(target)

    def bring_memory_online(self) -> None:
        for state in self._memory.glob("memory*/state"):
            state.write_text("online\n")

    def _add_block(self, number: int, state: str) -> None:
        block = self._memory / f"memory{number}"
        block.mkdir()
        (block / "state").write_text(state + "\n")

    def _set_status(self, device: str, *, present: bool) -> None:
        (self._acpi / device / "status").write_text("15\n" if present else "0\n")


class OnlineRequest:
    """The reading end of a processor's ``online`` file, which is a FIFO here."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self, deadline: Deadline) -> str:
        """Return what was written.

        :raise DeadlineExpiredError: when nothing was.
        """
        readable, _, _ = select.select([self._fd], [], [], deadline.remaining_s())
        if not readable:
            deadline.check("a write to a processor's online file")
        return os.read(self._fd, 100).decode()

    def asked(self) -> bool:
        """Return whether anything was written."""
        return bool(select.select([self._fd], [], [], 0)[0])

    def close(self) -> None:
        os.close(self._fd)
