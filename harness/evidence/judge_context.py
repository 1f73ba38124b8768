# SPDX-License-Identifier: MIT
"""Judges in what context a driver made its records: interrupt level, thread, APCs, processor. Pure.

Microsoft documents PASSIVE_LEVEL for DriverEntry, DriverUnload and both kinds of callback. Of APCs in a
callback it says nothing; to write a file, which a driver does when it is loaded and unloaded, they must not
be disabled (``ZwWriteFile``).
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.evidence.driver_rules import DriverRules
from harness.evidence.judge_figures import short
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.record import Record


def context_mismatches(about: About, record: Record, driver: DriverRules) -> Iterator[Mismatch]:
    """Judge the context of a record, if its driver tells it."""
    said = record.context
    if not said:
        return
    if said["irql"] != 0:
        yield about.mismatch(
            f"the interrupt level of {short(record)}", "irql=0 (PASSIVE_LEVEL)", f"irql={said['irql']}"
        )
    if said["thread"] == 0:
        yield about.mismatch(f"the thread of {short(record)}", "one", "thread=0")
    if said["apcs_disabled"] != 0 and record.kind in ("load", "baseline", "unload"):
        seen = f"apcs_disabled={said['apcs_disabled']}"
        yield about.mismatch(f"APCs while {short(record)} was written", "apcs_disabled=0", seen)
    if driver.max_processors is not None and said["cpu"] >= driver.max_processors:
        wanted = f"below {driver.max_processors}, which is the most that the vm can have"
        yield about.mismatch(f"the processor of {short(record)}", wanted, f"cpu={said['cpu']}")
