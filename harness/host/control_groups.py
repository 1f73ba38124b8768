# SPDX-License-Identifier: MIT
"""What the control groups of a process leave it: a container's or a unit's limits on memory and processors.

Every group counts, from the process's own up to the topmost that can be seen, for each may be limited by
itself. Both versions are read, as a host may mount either, or one of each (Linux
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/, proc(5), cgroups(7)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROCESS = Path("/proc/self")
#: Version 1 writes the largest number of whole pages for no limit at all; no host has that much.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Leave:
    """What control groups leave; None for what they do not limit."""

    memory_bytes: int | None
    cores: float | None


def leave(process: Path = _PROCESS, *, root: Path = Path("/")) -> Leave:
    """Return what the control groups of a process leave for more, at this moment.

    :param process: its folder in ``/proc``.
    :param root: where the mount points that its ``mountinfo`` names are looked for.
    """
    memory = [left for group in _groups(process, root, "memory") for left in _memory_left(group)]
    cores = [share for group in _groups(process, root, "cpu") for share in _cores(group)]
    return Leave(
        memory_bytes=max(0, min(memory)) if memory else None,
        cores=min(cores) if cores else None,
    )


def _groups(process: Path, root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that may limit a process, its own first, of either version."""
    try:
        memberships = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return  # a kernel without control groups
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mounted, mount_point in _mounts(mounts, controller if controllers else None):
            top = root / mount_point.lstrip("/")
            own = top / _below(path, mounted)
            # What lies beyond a container's own groups cannot be seen from in it.
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _mounts(mounts: list[str], controller: str | None) -> Iterator[tuple[str, str]]:
    """Yield which group is mounted and where, of version 2 or of a controller of version 1."""
    for mount in mounts:
        where, _, what = mount.partition(" - ")
        kind, *_, options = what.split(" ")
        if kind == "cgroup2" if controller is None else kind == "cgroup" and controller in options.split(","):
            _, _, _, mounted, mount_point, *_ = where.split(" ")
            yield _unescaped(mounted), _unescaped(mount_point)


def _below(path: str, mounted: str) -> str:
    """Return a group's path below the one that is mounted; the mounted one itself for one elsewhere."""
    # In a container without a namespace of its own the paths are those of the host.
    if ".." in path.split("/") or not Path(path).is_relative_to(mounted):
        return "."
    return str(Path(path).relative_to(mounted))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _memory_left(group: Path) -> Iterator[int]:
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory.high", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        # Not there in the other version and in the topmost group; "max" is no number.
        with suppress(OSError, ValueError):
            limit_bytes = int((group / limit_file).read_text())
            used_bytes = int((group / used_file).read_text())
            if limit_bytes < _NO_LIMIT_BYTES:
                yield limit_bytes - used_bytes + _droppable_bytes(group)


def _droppable_bytes(group: Path) -> int:
    """Return the cached files of a group: they count as used, but the kernel drops them for who needs it."""
    with suppress(OSError, ValueError):
        lines = (group / "memory.stat").read_text().splitlines()
        stat = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
        # Version 1 counts the groups below only in the total.
        return stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return 0


def _cores(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota_us = int((group / "cpu.cfs_quota_us").read_text())
        if quota_us > 0:
            yield quota_us / int((group / "cpu.cfs_period_us").read_text())
