# SPDX-License-Identifier: MIT
"""How fast the driver's log becomes records."""

from __future__ import annotations

import time

from benchmarks.figures import Figure, median_of
from benchmarks.workplace import Workplace
from harness.evidence.record import LogParser

RECORDS, RUNS, CHUNK_BYTES = 50_000, 5, 32768

_LINK = r"\??\ACPI#PNP0C80#{slot}#{{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}}"


def parsing(place: Workplace) -> list[Figure]:
    """Parse a long log as it is read from a guest, in pieces."""
    count = 1000 if place.quick else RECORDS
    log = _log(count)
    rates = []
    for _ in place.times(RUNS):
        parser = LogParser()
        began_s = time.perf_counter()
        records = [
            record
            for start in range(0, len(log), CHUNK_BYTES)
            for record in parser.feed(log[start : start + CHUNK_BYTES])
        ]
        rates.append(len(records) / (time.perf_counter() - began_s))
        if len(records) != count:
            raise ValueError(f"{len(records)} records of {count}")
    return [median_of("parsed", rates, "records/s")]


def _log(count: int) -> bytes:
    keys = "format=1 driver=hpnotify/1.0.0 qpc_hz=10000000 interfaces=both synchronous=0"
    lines = [f"{_common(0, 'load')} {keys}", _common(1, "baseline")]
    for number in range(2, count):
        link = _LINK.format(slot=number % 256)
        lines.append(f"{_common(number, 'notification')} class=memory event=arrival link={link}")
    return "".join(f"{line}\n" for line in lines).encode()


def _common(number: int, kind: str) -> str:
    return (
        f"seq={number} record={kind} time_100ns={133_500_000_000_000_000 + number} qpc={number * 1000} "
        f"active_processors=4 memory_bytes=1073741824 lost=0"
    )
