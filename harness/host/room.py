# SPDX-License-Identifier: MIT
"""Room in a file system, looked for before what fills it is begun."""

from __future__ import annotations

from pathlib import Path

import psutil

from harness.document.units import MIB, format_size
from harness.errors import HostError


def free_bytes(folder: Path) -> int:
    """Return what is free where a folder is, or will be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return int(psutil.disk_usage(str(place)).free)


def check_room(folder: Path, needed_bytes: int, *, purpose: str, remedy: str) -> None:
    """Do nothing if so much is free in the folder.

    :raise HostError: it is not, saying what for, how much, where, and what to do.
    """
    free = free_bytes(folder)
    if free < needed_bytes:
        raise HostError(
            f"{purpose} takes up to {_rounded(needed_bytes)} in {folder}, and {_rounded(free)} is free there;"
            f" {remedy}"
        )


def _rounded(size_bytes: int) -> str:
    return format_size(size_bytes // MIB * MIB)
