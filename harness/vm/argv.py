# SPDX-License-Identifier: MIT
"""Say what VM is wanted, and turn that into QEMU's command line: pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.vm.backend import Backend, Properties
from harness.vm.image_format import ImageFormat
from harness.vm.serial import SERIAL_LOG_FILE

#: What a person may ask for; ``auto`` is for :func:`harness.vm.accelerator.choose_accelerator` to decide.
AcceleratorChoice = Literal["auto", "kvm", "tcg"]

if TYPE_CHECKING:
    from harness.vm.shape import BootMemory, VmShape

#: The backends of the boot memory: this and a number. The migration stream names RAM by it: the same in a
#: template and its forks.
RAM_ID = "ram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """An image: the guest's disk, its firmware, or what that keeps, which :mod:`image_format` tells of.

    With ``snapshot`` the file is only read, and writes go to a nameless overlay that dies with QEMU;
    without it the file itself is written and locked. Firmware is only read in any case.
    """

    path: Path
    format: ImageFormat = "qcow2"
    snapshot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RamFile:
    """A file as the guest's boot memory, for templates (QEMU docs/system/vm-templating.rst).

    It takes the place of the shape's backends. Where the boot memory is in several pieces, those after the
    first are in files of their own beside it: with :attr:`path` ``ram``, in ``ram1``, ``ram2`` and so on.

    With ``share`` the guest writes into the file; without it the file is only read and each VM has its own
    copy-on-write view. With ``read_only`` QEMU does not even open it for writing, if it knows how to
    (:func:`harness.vm.qemu_facts.can_fork_from_read_only`).
    """

    path: Path
    share: bool
    read_only: bool = False

    def piece(self, number: int) -> Path:
        """Return the file of one piece of the boot memory."""
        return self.path if number == 0 else self.path.with_name(f"{self.path.name}{number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfig:
    """All that determines a VM, apart from where its logs go."""

    shape: VmShape
    qemu: str = "qemu-system-x86_64"  #: name on PATH, or path
    machine: str = "q35"
    firmware: Disk | None = None  #: its code; None for SeaBIOS, QEMU's default
    variables: Disk | None = None  #: what that firmware keeps from one boot to the next
    accelerator: Literal["kvm", "tcg"] = "tcg"
    tcg_thread: Literal["single", "multi"] = "multi"  #: emulated vCPUs take turns on one thread, or not
    cpu_model: str = "max"
    disk: Disk | None = None
    disk_device: str = "virtio-blk-pci"
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    network_device: str | None = "virtio-net-pci"  #: None for a VM without network
    ssh_guest_port: int = 22
    ram_file: RamFile | None = None
    incoming: bool = False  #: wait for Vm.restore_state instead of booting
    paused: bool = False  #: do not start the vCPUs before Vm.resume
    qtest: bool = False  #: let ports and memory be read and written, and interrupts be heard of: Vm.qtest
    extra: tuple[str, ...] = ()  #: more arguments, last on the command line


def command_line(
    config: VmConfig,
    *,
    folder: Path,
    qmp_fd: int,
    overlay_fd: int | None = None,
    variables_fd: int | None = None,
    qtest_fd: int | None = None,
    trace: Sequence[str] = (),
) -> list[str]:
    """Return QEMU's command line for a VM that logs to the folder and is controlled over a passed socket.

    A disk with ``snapshot``, and variables with it, need their overlays passed as well
    (:mod:`harness.vm.overlay`), and ``qtest`` a second socket.

    :param trace: what :mod:`harness.vm.trace` needs.
    """
    memories = config.shape.boot_memories
    # fmt: off
    return [
        config.qemu,
        # The VM is what is said here and nothing else.
        "-nodefaults", "-no-user-config",
        "-display", "none",
        # A guest is not trusted: QEMU may start no program and gain no privilege.
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        # What a guest does to itself is a finding about the driver. It restarts for real, and after a
        # power-off or a panic QEMU stays, paused, to be asked; ending, it would look like a broken bench.
        "-action", "reboot=reset,shutdown=pause,panic=pause",
        *trace,
        # In a VM with NUMA nodes, each names its own memory.
        "-machine", config.machine if config.shape.nodes else f"{config.machine},memory-backend={RAM_ID}0",
        "-accel", f"tcg,thread={config.tcg_thread}" if config.accelerator == "tcg" else config.accelerator,
        "-cpu", config.cpu_model,
        *_vcpus_and_memory(config.shape),
        *(word for number, memory in enumerate(memories) for word in _memory(config, number, memory, folder)),
        *_nodes(config.shape),
        # A passed socket, not a path: there is no socket file to leave behind or to be found by others.
        "-chardev", f"socket,id=qmp,fd={qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"file,id=serial,path={_escaped(folder / SERIAL_LOG_FILE)}",
        "-serial", "chardev:serial",
        *_network(config),
        *_disk(config, overlay_fd),
        *_firmware(config, variables_fd),
        *_boot(config),
        *_qtest(config, qtest_fd),
        *config.extra,
    ]
    # fmt: on


def option_text(properties: Properties) -> str:
    """Return a memory backend's properties as the value of ``-object``."""
    parts = []
    for key, value in properties.items():
        for item in value if isinstance(value, list) else [value]:
            written = ("on" if item else "off") if isinstance(item, bool) else _escaped(item)
            parts.append(written if key == "qom-type" else f"{key}={written}")
    return ",".join(parts)


def _vcpus_and_memory(shape: VmShape) -> list[str]:
    of = shape.division
    smp = f"cpus={shape.vcpus},maxcpus={shape.max_vcpus}"
    smp += f",sockets={of.sockets},dies={of.dies},cores={of.cores},threads={of.threads}"
    memory = f"size={shape.memory_bytes}B"
    if shape.slots:
        memory += f",slots={shape.slots},maxmem={shape.max_memory_bytes}B"
    return ["-smp", smp, "-m", memory]


def _memory(config: VmConfig, number: int, memory: BootMemory, folder: Path) -> list[str]:
    backend_id, ram = f"{RAM_ID}{number}", config.ram_file
    if ram is None:
        properties = memory.backend.properties(backend_id, memory.size_bytes, mem_path=folder)
    else:
        file = Backend(type="file", share=ram.share)
        properties = file.properties(backend_id, memory.size_bytes, mem_path=ram.piece(number))
        if ram.read_only:
            # The file is opened for reading only, and yet the memory is no ROM to the guest.
            properties |= {"readonly": True, "rom": False}
    return ["-object", option_text(properties)]


def _nodes(shape: VmShape) -> list[str]:
    backend_ids = {memory.node: f"{RAM_ID}{number}" for number, memory in enumerate(shape.boot_memories)}
    arguments, place = [], 0
    for number, node in enumerate(shape.nodes):
        told = f"node,nodeid={number}"
        if number in backend_ids:
            told += f",memdev={backend_ids[number]}"
        if node.vcpus:
            # QEMU numbers the places by ascending socket, die, core and thread.
            told += f",cpus={place}-{place + node.vcpus - 1}"
        place += node.vcpus
        arguments += ["-numa", told]
    return arguments


def _network(config: VmConfig) -> list[str]:
    if config.network_device is None:
        return []
    # restrict=on: the guest reaches neither the host nor the network behind it. Host port 0: the kernel
    # chooses a free one, on loopback only, so no two VMs race for a port (see Vm.ssh_port).
    forward = f"hostfwd=tcp:127.0.0.1:0-:{config.ssh_guest_port}"
    return [
        "-netdev", f"user,id=net0,restrict=on,{forward}",
        # Without a boot ROM: nobody boots from this network, and looking for a server costs seconds.
        "-device", f"{config.network_device},id=nic0,netdev=net0,romfile=",
    ]  # fmt: skip


def _disk(config: VmConfig, overlay_fd: int | None) -> list[str]:
    if config.disk is None:
        return []
    drive = f"if=none,id=disk0,{_written_to(config.disk, overlay_fd)}"
    return ["-drive", drive, "-device", f"{config.disk_device},id=hd0,drive=disk0"]


def _firmware(config: VmConfig, variables_fd: int | None) -> list[str]:
    arguments = []
    if config.firmware is not None:
        code = f"file={_escaped(config.firmware.path)},format={config.firmware.format}"
        arguments += ["-drive", f"if=pflash,unit=0,readonly=on,{code}"]
    if config.variables is not None:
        arguments += ["-drive", f"if=pflash,unit=1,{_written_to(config.variables, variables_fd)}"]
    return arguments


def _written_to(disk: Disk, overlay_fd: int | None) -> str:
    if not disk.snapshot:
        return f"file={_escaped(disk.path)},format={disk.format}"
    if overlay_fd is None:
        raise ValueError("a disk with snapshot needs an overlay")
    # cache=unsafe: flushes of a disk that dies with QEMU protect nothing and cost most of a boot.
    return f"file=/proc/self/fd/{overlay_fd},format=qcow2,cache=unsafe"


def _boot(config: VmConfig) -> list[str]:
    arguments = []
    if config.kernel is not None:
        arguments += ["-kernel", os.fspath(config.kernel)]
        if config.append:
            arguments += ["-append", config.append]
        if config.initrd is not None:
            arguments += ["-initrd", os.fspath(config.initrd)]
    if config.incoming:
        arguments += ["-incoming", "defer"]
    if config.paused:
        arguments += ["-S"]
    return arguments


def _qtest(config: VmConfig, fd: int | None) -> list[str]:
    if not config.qtest:
        return []
    if fd is None:
        raise ValueError("qtest needs a socket")
    return [
        # QEMU 7.2 finds the passed socket only under this very name.
        "-chardev", f"socket,id=qtest,fd={fd}",
        "-qtest", "chardev:qtest",
        "-qtest-log", "none",
    ]  # fmt: skip


def _escaped(value: Path | str | int) -> str:
    # QEMU docs, qemu(1): a comma inside an option's value is doubled.
    return str(value).replace(",", ",,")
