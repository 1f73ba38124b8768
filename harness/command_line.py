# SPDX-License-Identifier: MIT
"""Say what VM is wanted, and turn that into QEMU's command line: pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from harness.plan import VmShape

#: The boot memory's backend. The migration stream names RAM by it: the same in a template and its forks.
RAM_ID = "ram0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The guest's disk.

    With ``snapshot`` the file is only read, and writes go to a nameless overlay that dies with QEMU;
    without it the file itself is written and locked.
    """

    path: Path
    format: Literal["qcow2", "raw"] = "qcow2"
    snapshot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RamFile:
    """A file as the guest's boot memory, for templates (QEMU docs/system/vm-templating.rst).

    With ``share`` the guest writes into the file; without it the file is only read and each VM has its own
    copy-on-write view. With ``read_only`` QEMU does not even open it for writing, if it knows how to
    (:func:`harness.qemu_facts.can_fork_from_read_only`).
    """

    path: Path
    share: bool
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfig:
    """All that determines a VM, apart from where its logs go."""

    shape: VmShape
    qemu: str = "qemu-system-x86_64"  #: name on PATH, or path
    machine: str = "q35"
    firmware: Path | None = None  #: None for SeaBIOS, QEMU's default
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
    extra: tuple[str, ...] = ()  #: more arguments, last on the command line


def command_line(config: VmConfig, *, folder: Path, qmp_fd: int, overlay_fd: int | None = None) -> list[str]:
    """Return QEMU's command line for a VM that logs to the folder and is controlled over a passed socket.

    A disk with ``snapshot`` needs its overlay passed as well (:mod:`harness.overlay`).
    """
    # fmt: off
    return [
        config.qemu,
        # The VM is what is said here and nothing else.
        "-nodefaults", "-no-user-config",
        "-display", "none",
        # A guest is not trusted: QEMU may start no program and gain no privilege.
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine", f"{config.machine},memory-backend={RAM_ID}",
        "-accel", f"tcg,thread={config.tcg_thread}" if config.accelerator == "tcg" else config.accelerator,
        "-cpu", config.cpu_model,
        *_vcpus_and_memory(config.shape),
        "-object", _memory_backend(config),
        # A passed socket, not a path: there is no socket file to leave behind or to be found by others.
        "-chardev", f"socket,id=qmp,fd={qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"file,id=serial,path={_escaped(folder / 'serial.log')}",
        "-serial", "chardev:serial",
        *_network(config),
        *_disk(config, overlay_fd),
        *_boot(config),
        # No -no-reboot: a guest that restarts by itself is a finding about the driver, told by its boot id;
        # ending QEMU would make it look like a broken bench.
        *config.extra,
    ]
    # fmt: on


def _vcpus_and_memory(shape: VmShape) -> list[str]:
    # One vCPU per socket: the unit of hot-plug is then a socket, as on hardware.
    smp = f"cpus={shape.vcpus},maxcpus={shape.max_vcpus},sockets={shape.max_vcpus},cores=1,threads=1"
    memory = f"size={shape.memory_bytes}B"
    if shape.slots:
        memory += f",slots={shape.slots},maxmem={shape.max_memory_bytes}B"
    return ["-smp", smp, "-m", memory]


def _memory_backend(config: VmConfig) -> str:
    size = f"id={RAM_ID},size={config.shape.memory_bytes}B"
    if config.ram_file is None:
        return f"memory-backend-ram,{size}"
    share = "on" if config.ram_file.share else "off"
    backend = f"memory-backend-file,{size},mem-path={_escaped(config.ram_file.path)},share={share}"
    # The file is opened for reading only, and yet the memory is no ROM to the guest.
    return f"{backend},readonly=on,rom=off" if config.ram_file.read_only else backend


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
    disk = config.disk
    if disk is None:
        return []
    device = ["-device", f"{config.disk_device},id=hd0,drive=disk0"]
    if not disk.snapshot:
        drive = f"if=none,id=disk0,file={_escaped(disk.path)},format={disk.format}"
        return ["-drive", drive, *device]
    if overlay_fd is None:
        raise ValueError("a disk with snapshot needs an overlay")
    # cache=unsafe: flushes of a disk that dies with QEMU protect nothing and cost most of a boot.
    overlay = f"file=/proc/self/fd/{overlay_fd},format=qcow2,cache=unsafe"
    return ["-drive", f"if=none,id=disk0,{overlay}", *device]


def _boot(config: VmConfig) -> list[str]:
    arguments = []
    if config.firmware is not None:
        pflash = f"if=pflash,format=raw,readonly=on,file={_escaped(config.firmware)}"
        arguments += ["-drive", pflash]
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


def _escaped(path: Path) -> str:
    # QEMU docs, qemu(1): a comma inside an option's value is doubled.
    return os.fspath(path).replace(",", ",,")
