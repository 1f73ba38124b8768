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
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, TypeVar

import psutil

from harness.errors import BenchError
from harness.plan import Plan
from harness.units import MIB, format_size

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

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What a plan needs, or what a host has for plans."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int
    files: int

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) - getattr(other, name) for name in _NAMES})

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    def fits(self, free: Amounts) -> bool:
        """Return whether there is this much."""
        return all(getattr(self, name) <= getattr(free, name) for name in _NAMES)


_NAMES = tuple(field.name for field in fields(Amounts))


def core_count() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def plans_at_once() -> int:
    """Return how many plans to run at once on this host when nobody says, if there is room for them."""
    return min(PLANS_PER_CORE * core_count(), PLANS_PER_PROCESS)


def need_of(plan: Plan) -> Amounts:
    """Return what a plan needs at its peak, when all it plugs is plugged."""
    plugs = [step.plug for step in plan.unrolled() if step.plug is not None]
    return Amounts(
        vcpus=plan.vm.vcpus + sum(plug.vcpus for plug in plugs),
        memory_bytes=plan.vm.memory_bytes + sum(sum(plug.dimms_bytes) for plug in plugs) + QEMU_BYTES,
        disk_bytes=DISK_BYTES,
        files=FILES,
    )


def host_amounts(folder: Path) -> Amounts:
    """Return what this host has free for plans whose VMs write to the folder.

    Cores are those this process may run on, memory what the host and the control group leave, files what
    this process may still open.
    """
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Amounts(
        vcpus=VCPUS_PER_CORE * core_count(),
        memory_bytes=max(0, _available_memory_bytes(_CGROUP) - KEPT_FREE_BYTES),
        disk_bytes=psutil.disk_usage(os.fspath(_existing(folder.absolute()))).free,
        files=max(0, soft_limit - len(list(Path("/proc/self/fd").iterdir())) - FILES),
    )


def within(need: Amounts, host: Amounts, *, plan: str, where: str = "this host") -> Amounts:
    """Return the need as it is counted on a host: a plan of more vCPUs than it may have takes them all.

    Such a plan runs slowly, and alone, but it runs. Memory, disk and files cannot be lent.

    :raise BenchError: the plan is too large even for a host that does nothing else.
    """
    for what, wanted, there in (
        ("memory", need.memory_bytes, host.memory_bytes),
        ("disk", need.disk_bytes, host.disk_bytes),
    ):
        if wanted > there:
            raise BenchError(
                f"{plan} is too large for {where}: it needs {what} of {format_size(_whole_mib(wanted))}"
                f" and {format_size(_whole_mib(there))} is free for plans"
            )
    if need.files > host.files:
        raise BenchError(
            f"{plan} is too large for {where}: it needs {need.files} open files"
            f" and {host.files} are left; see ulimit -n"
        )
    return Amounts(
        vcpus=min(need.vcpus, host.vcpus),
        memory_bytes=need.memory_bytes,
        disk_bytes=need.disk_bytes,
        files=need.files,
    )


def has_room_for(plan: Plan, host: Amounts) -> bool:
    """Return whether the plan can be run on the host at all."""
    try:
        within(need_of(plan), host, plan=plan.name)
    except BenchError:
        return False
    return True


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


def _available_memory_bytes(cgroup: Path) -> int:
    available: int = psutil.virtual_memory().available
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:
        return available  # no control group, or not version 2
    if limit == "max":
        return available
    # Cached files count as used, but the kernel drops them for whoever needs the memory.
    return min(available, int(limit) - used + int(stat.get("inactive_file", 0)))


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _whole_mib(size_bytes: int) -> int:
    return size_bytes // MIB * MIB
