# SPDX-License-Identifier: MIT
"""Whether the host has the huge pages that memory backends ask for; QEMU says only that memory is short."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from harness.document.units import KIB, format_size
from harness.errors import HostError
from harness.vm.backend import Backend

#: Where the kernel tells of them (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).
HUGE_PAGES = Path("/sys/kernel/mm/hugepages")
MEMINFO = Path("/proc/meminfo")


def check_huge_pages(memories: Iterable[tuple[Backend, int]]) -> None:
    """Do nothing when the host has free all the huge pages for memories of these backends and bytes.

    :raise HostError: it has not, with the command that gets them.
    """
    wanted: Counter[int] = Counter()
    for backend, size_bytes in memories:
        if backend.huge_pages:
            page_bytes = _usual_page_bytes() if backend.huge_pages is True else backend.huge_pages
            wanted[page_bytes] += -(-size_bytes // page_bytes)
    for page_bytes, count in wanted.items():
        _check_free(page_bytes, count)


def _check_free(page_bytes: int, count: int) -> None:
    folder = HUGE_PAGES / f"hugepages-{page_bytes // KIB}kB"
    size = format_size(page_bytes)
    try:
        free, reserved, total = (
            int((folder / f"{name}_hugepages").read_text()) for name in ("free", "resv", "nr")
        )
    except OSError as err:
        kib = sorted(
            int(path.name[len("hugepages-") : -len("kB")]) for path in HUGE_PAGES.glob("hugepages-*")
        )
        known = ", ".join(format_size(size_kib * KIB) for size_kib in kib) or "none at all"
        raise HostError(f"this host has no huge pages of {size}; it knows: {known}") from err
    short = count - (free - reserved)
    if short > 0:
        raise HostError(
            f"{count} huge pages of {size} are needed and {free - reserved} are free on this host; "
            f"as root: echo {total + short} >{folder}/nr_hugepages"
        )


def _usual_page_bytes() -> int:
    found = re.search(r"^Hugepagesize: +(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    if found is None:
        raise HostError("this host's kernel has no huge pages")
    return int(found[1]) * KIB
