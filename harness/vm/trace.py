# SPDX-License-Identifier: MIT
"""What a guest's ACPI does with QEMU's hot-plug registers, from QEMU's trace events.

A guest may answer a plug over ``_OST`` or not; the registers it cannot do without. Its AML, which QEMU
wrote, takes an insertion by clearing its event, and a system reads the resources of a DIMM (``_CRS``) before
it uses it (QEMU docs/specs/acpi_cpu_hotplug.rst and acpi_mem_hotplug.rst, hw/acpi/trace-events). QEMU writes
its trace events to a file if it was built with the trace backend ``log``, as Debian's and Ubuntu's are.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from harness.deadline import Deadline
from harness.errors import QmpCommandError
from harness.evidence.witness import AmlAct

TRACE_FILE = "qemu-trace.log"

#: An event that QEMU raises at any QMP command. If its line is not there, no other's will be.
_CONTROL = "handle_qmp_command"
#: Patterns, for QEMU complains of a name that it does not have, but not of a pattern.
_EVENTS = (
    "cpuhp_acpi_clear_*",
    "mhp_acpi_clear_*",
    "mhp_acpi_read_addr_*",
    "mhp_acpi_read_size_*",
    f"{_CONTROL}*",
)

#: How exact the time of day is that QEMU writes before each event, read just after it.
_STAMP_ERROR_S = 0.001

_LINE = re.compile(rb"(?:\d+@(?P<time_s>\d+\.\d+):)?(?P<event>[a-z_]+)\b(?P<rest>.*)")
_SLOT = re.compile(rb"(?:idx|slot)\[0x(?P<slot>[0-9a-f]+)\]")
_VALUE = re.compile(rb": 0x(?P<value>[0-9a-f]+)$")
_INSERTION = {b"cpuhp_acpi_clear_inserting_evt": "CPU", b"mhp_acpi_clear_insert_evt": "DIMM"}
#: The four halves of what ``_CRS`` tells, and by how much each is shifted.
_HALVES = {
    b"mhp_acpi_read_addr_lo": ("address", 0),
    b"mhp_acpi_read_addr_hi": ("address", 32),
    b"mhp_acpi_read_size_lo": ("size_bytes", 0),
    b"mhp_acpi_read_size_hi": ("size_bytes", 32),
}


class _Qmp(Protocol):
    def execute(self, command: str, arguments: dict[str, object], *, deadline: Deadline) -> Any: ...


class TraceLog:
    """The trace of one QEMU, for one thread at a time. Made by :meth:`open`.

    :ivar fd: what QEMU is to write to.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._at = 0
        self._torn = b""
        self._looked_at_s = time.monotonic()
        self._halves: dict[str, dict[tuple[str, int], int]] = {}
        self._acts: list[AmlAct] = []
        self._is_closed = False

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[TraceLog]:
        """Begin an empty trace in the folder."""
        fd = os.open(folder / TRACE_FILE, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        trace = cls(fd)
        try:
            yield trace
        finally:
            # Evidence is made up after the VM has ended, too.
            trace.acts()
            trace._is_closed = True
            os.close(fd)

    def arguments(self) -> list[str]:
        """Return what QEMU needs on its command line to write this trace."""
        events = [word for event in _EVENTS for word in ("-trace", event)]
        # By its descriptor: in a path QEMU takes a % for something else.
        return ["-msg", "timestamp=on", *events, "-D", f"/proc/self/fd/{self.fd}"]

    def works(self, qmp: _Qmp, *, deadline: Deadline) -> bool:
        """Return whether QEMU writes the trace, after it has carried out a QMP command."""
        try:
            off = {"name": _CONTROL, "enable": False}
            qmp.execute("trace-event-set-state", off, deadline=deadline)
        except QmpCommandError:
            return False
        return _CONTROL.encode() in os.pread(self.fd, 65536, 0)

    def acts(self) -> tuple[AmlAct, ...]:
        """Return all that the guest's AML has done so far, in order."""
        since_s = self._looked_at_s
        before_s, time_of_day_s, now_s = time.monotonic(), time.time(), time.monotonic()
        self._looked_at_s = now_s
        # Whoever reads two clocks can be interrupted in between.
        ahead_s, doubt_s = time_of_day_s - (before_s + now_s) / 2, (now_s - before_s) / 2
        while not self._is_closed and (data := os.pread(self.fd, 1 << 16, self._at)):
            self._at += len(data)
            *lines, self._torn = (self._torn + data).split(b"\n")
            for line in lines:
                self._acts += self._read(line, since_s, now_s, ahead_s, doubt_s)
        return tuple(self._acts)

    def _read(
        self, line: bytes, since_s: float, now_s: float, ahead_s: float, doubt_s: float
    ) -> Iterator[AmlAct]:
        found = _LINE.fullmatch(line.rstrip())
        place = None if found is None else _SLOT.search(found["rest"])
        if found is None or place is None:
            return
        slot, event = str(int(place["slot"], 16)), found["event"]
        stamp_s = None if found["time_s"] is None else float(found["time_s"]) - ahead_s
        at_s, error_s = _instant(stamp_s, _STAMP_ERROR_S + doubt_s, since_s, now_s)
        if event in _INSERTION:
            yield AmlAct(_INSERTION[event], slot, "insertion taken", at_s, error_s)
        value = _VALUE.search(found["rest"])
        if event in _HALVES and value is not None:
            halves = self._halves.setdefault(slot, {})
            halves[_HALVES[event]] = int(value["value"], 16)
            if len(halves) == len(_HALVES):
                told = {"address": 0, "size_bytes": 0}
                for (name, shift), half in halves.items():
                    told[name] |= half << shift
                halves.clear()
                # An empty slot has no size, and a system asks for all of them while it boots.
                if told["size_bytes"]:
                    yield AmlAct("DIMM", slot, "resources read", at_s, error_s, **told)


def _instant(stamp_s: float | None, error_s: float, since_s: float, now_s: float) -> tuple[float, float]:
    """Return when something was that was not there at the last look and is now, and how exact that is."""
    if stamp_s is not None and since_s - error_s <= stamp_s <= now_s + error_s:
        return stamp_s, error_s
    # Without a time of day, or with one that was set meanwhile.
    return (since_s + now_s) / 2, (now_s - since_s) / 2
