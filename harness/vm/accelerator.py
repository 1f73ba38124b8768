# SPDX-License-Identifier: MIT
"""Choose KVM or TCG by running a guest: ``/dev/kvm`` can be there, open, and still run nothing."""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.deadline import Deadline
from harness.errors import HostError
from harness.host.answers import answer_of
from harness.host.cache import cache_folder, content_key, write_whole
from harness.host.tools import find_tool
from harness.vm.argv import AcceleratorChoice
from harness.vm.qemu_process import QemuProcess

DEFAULT_QEMU = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")

#: How long a probe guest may take. With a working KVM a boot sector takes 0.1 s and a kernel about 1 s; one
#: that needs much longer emulates, and is no gain over TCG.
BOOT_SECTOR_WITHIN_S = 3.0
KERNEL_WITHIN_S = 10.0
VERSION_WITHIN_S = 10.0

#: For how long a KVM that did not run a guest is not tried again: a busy host may have been all that was
#: wrong with it.
NO_HOLDS_FOR_S = 600.0

# QEMU docs, isa-debug-exit: the exit status is (value << 1) | 1, so nothing else ends QEMU with 85.
_PROBE_VALUE = 0x2A
_PROBE_STATUS = (_PROBE_VALUE << 1) | 1
# mov al, value; out 0xf4, al; hlt; jmp back to hlt
_PROBE_CODE = bytes([0xB0, _PROBE_VALUE, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD])

Name = Literal["kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How QEMU runs the guest's code, and why so."""

    name: Name
    reason: str

    def cpu_model(self, model: str, qemu_version: tuple[int, int, int]) -> str:
        """Return the CPU model, without what this accelerator gets wrong."""
        # TCG of QEMU 7.2 faults on a user-mode iretq with SMAP on, which kills every Wine process; 10.0.2
        # does not. Between the two it is untried, so the feature goes for all before 10.
        if self.name == "tcg" and qemu_version < (10, 0, 0) and model.split(",")[0] == "max":
            return f"{model},-smap"
        return model


@functools.cache
def find_qemu_version(qemu: str = DEFAULT_QEMU) -> tuple[int, int, int]:
    """Return the version of a QEMU without running a VM.

    :raise HostError: if it is not installed or does not say that it is QEMU, and which.
    """
    text = answer_of(qemu, "--version", deadline=Deadline.after(VERSION_WITHIN_S))
    found = re.match(r"QEMU emulator version (\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        says = textwrap.shorten(text, 80, placeholder=" ...") or "nothing"
        raise HostError(f"{qemu} --version tells no version of QEMU; it says {says}")
    major, minor, micro = (int(part) for part in found.groups())
    return major, minor, micro


def choose_accelerator(
    wanted: AcceleratorChoice,
    *,
    qemu: str = DEFAULT_QEMU,
    cache_dir: Path | None = None,
    kernel: Path | None = None,
) -> Accelerator:
    """Return the accelerator to use: KVM if it runs a guest, TCG otherwise.

    With a Linux kernel, KVM must run it to its end; without one, only a boot sector, and the reason says so.
    That it does is remembered until the host restarts or QEMU or the kernel changes; that it does not, for
    :data:`NO_HOLDS_FOR_S`, and whoever asks for KVM has it tried again at once. The reason says when it was
    tried.

    :raise HostError: if KVM is asked for and does not work, or QEMU is not installed.
    """
    if wanted == "tcg":
        return Accelerator("tcg", "asked for")
    problem = _device_problem()
    if problem is None:
        no_holds_for_s = 0.0 if wanted == "kvm" else NO_HOLDS_FOR_S
        folder = (cache_dir or cache_folder()) / "accelerator"
        found = _remembered(qemu, kernel, folder, no_holds_for_s=no_holds_for_s)
    else:
        found = Accelerator("tcg", problem)
    if wanted == "kvm" and found.name != "kvm":
        raise HostError(f"KVM was asked for and does not work on this host: {found.reason}")
    return found


def _device_problem() -> str | None:
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as err:
        return f"{KVM_DEVICE} does not open: {err.strerror}"
    return None


def _remembered(qemu: str, kernel: Path | None, folder: Path, *, no_holds_for_s: float) -> Accelerator:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    files = [Path(find_tool(qemu)).resolve(), *([kernel.resolve()] if kernel else [])]
    stats = [(os.fspath(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    # The user is part of it: one may be allowed what another is not.
    answer = folder / f"{content_key([boot_id, repr(stats), str(os.geteuid())])}.json"
    # Never asked, or damaged: ask again.
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(answer.read_text())
        # Not of the future either: the time of day may have been set back since.
        is_fresh = 0 <= time.time() - stored["tried_at_s"] < no_holds_for_s
        if stored["name"] == "kvm" or is_fresh:
            return Accelerator(stored["name"], stored["reason"])
    found = _try_kvm(qemu, kernel)
    tried_at_s = time.time()
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(tried_at_s))
    found = Accelerator(found.name, f"{found.reason} (tried {at})")
    # Without a place to keep it, it is asked for each time.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        kept = {"name": found.name, "reason": found.reason, "tried_at_s": tried_at_s}
        write_whole(answer, json.dumps(kept))
    return found


def _try_kvm(qemu: str, kernel: Path | None) -> Accelerator:
    problem = run_boot_sector("kvm", "host", qemu=qemu, within_s=BOOT_SECTOR_WITHIN_S)
    if problem is not None:
        return Accelerator("tcg", f"{KVM_DEVICE} opens, but a boot sector did not run: {problem}")
    if kernel is None:
        return Accelerator("kvm", "a boot sector ran; only that was tried, no operating system")
    problem = run_kernel("kvm", "host", kernel=kernel, qemu=qemu, within_s=KERNEL_WITHIN_S)
    if problem is not None:
        return Accelerator("tcg", f"{KVM_DEVICE} opens and a boot sector ran, but not a kernel: {problem}")
    return Accelerator("kvm", f"a boot sector and the kernel {kernel.name} ran")


def run_boot_sector(
    accelerator: Name, cpu_model: str, *, qemu: str = DEFAULT_QEMU, within_s: float = BOOT_SECTOR_WITHIN_S
) -> str | None:
    """Run a boot sector that ends QEMU with a known exit status; return what went wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="hil-probe-") as name:
        folder = Path(name)
        sector = folder / "boot.img"
        sector.write_bytes(_PROBE_CODE.ljust(510, b"\0") + b"\x55\xaa")
        arguments = [
            "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
            "-drive", f"if=ide,format=raw,readonly=off,file={sector}",
        ]  # fmt: skip
        return _run_probe(accelerator, cpu_model, qemu, arguments, folder, _PROBE_STATUS, within_s)


def run_kernel(
    accelerator: Name,
    cpu_model: str,
    *,
    kernel: Path,
    qemu: str = DEFAULT_QEMU,
    within_s: float = KERNEL_WITHIN_S,
) -> str | None:
    """Run a Linux kernel until it panics for want of a disk; return what went wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="hil-probe-") as name:
        folder = Path(name)
        serial = folder / "serial.log"
        arguments = [
            "-kernel", os.fspath(kernel),
            # A panic is the end of a kernel that has all of its start behind it; -no-reboot makes it QEMU's.
            "-append", "console=ttyS0 panic=-1",
            "-no-reboot",
            "-serial", f"file:{serial}",
        ]  # fmt: skip
        problem = _run_probe(accelerator, cpu_model, qemu, arguments, folder, 0, within_s)
        said = serial.read_bytes() if serial.exists() else b""
        if problem is None and not said.strip():
            return "it restarted without a line on its serial port"
        return problem


def _run_probe(
    accelerator: Name,
    cpu_model: str,
    qemu: str,
    arguments: Sequence[str],
    folder: Path,
    expected_status: int,
    within_s: float,
) -> str | None:
    argv = [
        qemu,
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-machine", "pc",
        "-accel", accelerator,
        "-cpu", cpu_model,
        "-m", "256M",
        *arguments,
    ]  # fmt: skip
    with QemuProcess.start(argv, folder=folder) as process:
        if not process.wait(Deadline.after(within_s)):
            return f"it hung for {within_s:g} s"
        if process.exit_status() == expected_status:
            return None
        return textwrap.shorten(process.describe_end(), 160, placeholder=" ...")
