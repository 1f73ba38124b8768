# SPDX-License-Identifier: MIT
"""How much of a host many plans may use at once: what one plan needs, what there is, who may start next.

Memory is counted as if every guest touched all it has: its boot memory, although forks share most of it
with their template, and the sum of the DIMMs plugged into it. QEMU's own part comes on top. What is free is
asked once, before the first plan; from then on the plans' needs are what is subtracted from it.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import psutil

from harness.document.units import MIB, format_size
from harness.errors import BenchError
from harness.host.amounts import Amounts
from harness.host.control_groups import Leave, leave
from harness.host.room import free_bytes

#: vCPUs per core that the host may have. A guest waits for events most of a plan's time, and most of its
#: vCPUs are idle; more than this, under TCG, and plans take longer than they may.
VCPUS_PER_CORE = 4
#: Plans per core that are worth starting at once: one keeps a core busy for less than half of its time.
PLANS_PER_CORE = 2
#: Plans that one process of Python can follow without being late: each takes 2 to 3 % of its time.
PLANS_PER_PROCESS = 16

#: QEMU without its guest: about 60 MiB, and under TCG the translated code.
QEMU_BYTES = 256 * MIB
#: What stays free for the rest of the host.
KEPT_FREE_BYTES = 256 * MIB
#: The overlay of a disk that a plan hardly writes to, and its evidence.
DISK_BYTES = 256 * MIB
#: Open files of the harness for one plan (QMP, SSH, logs, overlay), of which it needs about a dozen.
FILES = 32

T = TypeVar("T")


def core_count() -> int:
    """Return how many cores' worth of time this process may use, by its affinity and its control groups."""
    return _core_count(leave())


def plans_at_once() -> int:
    """Return how many plans to run at once on this host when nobody says, if there is room for them."""
    return min(PLANS_PER_CORE * core_count(), PLANS_PER_PROCESS)


def host_amounts(folder: Path) -> Amounts:
    """Return what this host has free for plans whose VMs write to the folder.

    Cores are those this process may run on, memory what the host and the control groups leave, files what
    this process may still open.
    """
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    groups = leave()
    return Amounts(
        vcpus=VCPUS_PER_CORE * _core_count(groups),
        memory_bytes=max(0, _available_memory_bytes(groups) - KEPT_FREE_BYTES),
        disk_bytes=free_bytes(folder),
        files=max(0, soft_limit - len(list(Path("/proc/self/fd").iterdir())) - FILES),
    )


def within(need: Amounts, host: Amounts, *, plan: str, folder: Path | None = None) -> Amounts:
    """Return the need as it is counted on a host: a plan of more vCPUs than it may have takes them all.

    Such a plan runs slowly, and alone, but it runs. Memory, disk and files cannot be lent.

    :param folder: of which file system the disk is.
    :raise BenchError: the plan is too large even for a host that does nothing else.
    """
    for what, wanted, there, where in (
        ("memory", need.memory_bytes, host.memory_bytes, ""),
        ("disk", need.disk_bytes, host.disk_bytes, "" if folder is None else f" in {folder}"),
    ):
        if wanted > there:
            raise BenchError(
                f"{plan} is too large for this host: it needs {what} of {format_size(_whole_mib(wanted))}"
                f" and {format_size(_whole_mib(there))} is free for plans{where}"
            )
    if need.files > host.files:
        raise BenchError(
            f"{plan} is too large for this host: it needs {need.files} open files"
            f" and {host.files} are left; see ulimit -n"
        )
    return Amounts(
        vcpus=min(need.vcpus, host.vcpus),
        memory_bytes=need.memory_bytes,
        disk_bytes=need.disk_bytes,
        files=need.files,
    )


class Ledger(Generic[T]):
    """Who may start: in the order of asking, as many at once as fit, at most a given number. No clock, no VM.

    Nobody overtakes one that does not fit yet, so large plans get their turn.
    """

    def __init__(self, host: Amounts, *, at_once: int | None = None) -> None:
        self.free = host
        self._at_once = at_once
        self._running = 0
        self._waiting: deque[tuple[T, Amounts]] = deque()

    def ask(self, who: T, need: Amounts) -> None:
        """Get in line with a need that :func:`within` returned for this host."""
        self._waiting.append((who, need))

    def admit(self) -> Sequence[tuple[T, Amounts]]:
        """Let those start who may now, and return them; their needs are taken."""
        admitted = []
        while self._waiting and (self._at_once is None or self._running < self._at_once):
            who, need = self._waiting[0]
            if not need.fits(self.free):
                break
            self._waiting.popleft()
            self.free -= need
            self._running += 1
            admitted.append((who, need))
        return admitted

    def give_back(self, need: Amounts) -> None:
        """Return what somebody who was admitted does not use any more."""
        self.free += need
        self._running -= 1

    def dismiss(self) -> Sequence[T]:
        """Send away all who wait, and return them."""
        dismissed = [who for who, _need in self._waiting]
        self._waiting.clear()
        return dismissed


def _core_count(groups: Leave) -> int:
    cores = len(os.sched_getaffinity(0))
    return cores if groups.cores is None else max(1, min(cores, int(groups.cores)))


def _available_memory_bytes(groups: Leave) -> int:
    available: int = psutil.virtual_memory().available
    return available if groups.memory_bytes is None else min(available, groups.memory_bytes)


def _whole_mib(size_bytes: int) -> int:
    return size_bytes // MIB * MIB
