# SPDX-License-Identifier: MIT
"""The shipped ``hpnotify.sys`` under Wine: load it, let interfaces arrive, read what it logged."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from harness.evidence.record import LogParser, Record
from tests.driver.wine import SERVICES_KEY, InstalledDriver, PnpFeed

GIB = 1 << 30
INTERFACES = {"processor": 1, "memory": 2, "both": 3}
CLASS_GUIDS = {
    "processor": "{97fadb10-4e33-40ae-359c-8bef029dbdd0}",
    "memory": "{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}",
}
ARRIVAL = "{cb3a4004-46f0-11d0-b08f-00609713053f}"
DEVICE_IDS = {
    "processor": "GenuineIntel_-_Intel64_Family_6_Model_6_-_QEMU_Virtual_CPU",
    "memory": "PNP0C80",
}
STOP_WITHIN_S = 30.0
DEFAULT_LOG = r"C:\ProgramData\hpnotify\hpnotify.log"


def link(interface: str, slot: int) -> str:
    """Return a symbolic link as Windows shapes it."""
    return rf"\??\ACPI#{DEVICE_IDS[interface]}#{slot}#{CLASS_GUIDS[interface]}"


@dataclass
class Hpnotify:
    """One service that runs one copy of the driver."""

    driver: InstalledDriver
    pnp: PnpFeed
    _loaded: bool = False
    _configured: bool = False
    _slots: itertools.count[int] = field(default_factory=itertools.count)
    _arrived: list[tuple[str, str]] = field(default_factory=list)

    @property
    def log_path(self) -> Path:
        return self.driver.wine.host_path(DEFAULT_LOG)

    def __enter__(self) -> Hpnotify:
        """Make the next start a first one."""
        shutil.rmtree(self.log_path.parent, ignore_errors=True)
        self.log_path.parent.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loaded:  # the test failed; the next one must find the driver stopped
            self.stop()
        while self._arrived:
            self.remove()
        if self._configured:
            self.driver.wine.reg("delete", rf"{SERVICES_KEY}\{self.driver.name}\Parameters", "/f")

    def configure(
        self,
        *,
        interfaces: str | None = None,
        synchronous: bool | None = None,
        existing: bool | None = None,
        log: Path | None = None,
    ) -> None:
        """Set these parameters and leave the others."""
        if interfaces is not None:
            self.set_parameter("Interfaces", "REG_DWORD", str(INTERFACES[interfaces]))
        if synchronous is not None:
            self.set_parameter("Synchronous", "REG_DWORD", str(int(synchronous)))
        if existing is not None:
            self.set_parameter("IncludeExisting", "REG_DWORD", str(int(existing)))
        if log is not None:
            self.set_parameter("LogPath", "REG_SZ", r"\??\unix" + str(log).replace("/", "\\"))

    def set_parameter(self, name: str, kind: str, value: str) -> None:
        key = rf"{SERVICES_KEY}\{self.driver.name}\Parameters"
        self.driver.wine.reg("add", key, "/v", name, "/t", kind, "/d", value, "/f")
        self._configured = True

    def start(self) -> None:
        assert self.driver.start(), hex(self.driver.wine.driver_entry_failure(self.driver.name) or 0)
        self._loaded = True

    def stop(self) -> None:
        deadline = Deadline.after(STOP_WITHIN_S)
        self._loaded = False
        stopped = self.driver.stop()
        while not stopped:  # the unload goes on after sc has asked for it
            deadline.check(f"the unload of {self.driver.name}")
            stopped = self.driver.state() == "STOPPED"

    def start_status(self) -> int | None:
        """Start a driver that must fail and return the status of its DriverEntry."""
        assert not self.driver.start()
        return self.driver.wine.driver_entry_failure(self.driver.name)

    def registrations(self) -> tuple[int, int]:
        """Return how many plug and play and how many synchronous callbacks are registered."""
        state = self.pnp.state()
        return state["registrations"], state["synchronous"]

    def system(self, active_processors: int, memory_bytes: int) -> None:
        self.pnp.ok(f"system {active_processors} {memory_bytes}")

    def arrive(self, interface: str) -> str:
        """Let an interface arrive and return its link."""
        arrived = link(interface, next(self._slots))
        self.pnp.ok(f"arrive {interface} {arrived}")
        self._arrived.append((interface, arrived))
        return arrived

    def remove(self) -> None:
        """Remove what arrived last, which a driver that is loaded is told of."""
        interface, arrived = self._arrived.pop()
        self.pnp.ok(f"remove {interface} {arrived}")

    def deliver(self, class_guid: str, event_guid: str, symbolic_link: str) -> int:
        """Deliver exactly this notification and return how many callbacks were called."""
        return int(self.pnp.ok(f"deliver {class_guid} {event_guid} {symbolic_link}"))

    def run(self, *arrivals: str) -> list[Record]:
        """Load, let interfaces arrive, unload; return the whole log."""
        self.start()
        for interface in arrivals:
            self.arrive(interface)
        self.stop()
        return self.records()

    def records(self) -> list[Record]:
        """Return the records in the log. The driver must be stopped: only then all are written."""
        return parse(self.log_path.read_bytes()) if self.log_path.exists() else []

    def log_openers(self) -> list[int]:
        """Return the processes of the host that have the log open."""
        return [pid for pid, target in _open_files() if target == self.log_path.resolve()]


def parse(data: bytes) -> list[Record]:
    """Return the records of a whole log; it must not end in a torn line."""
    parser = LogParser()
    records = parser.feed(data)
    assert parser.pending == b""
    return records


def words(records: Iterable[Record]) -> list[str]:
    """Return what happened in the words of a plan."""
    return [record.word for record in records]


def _open_files() -> Iterable[tuple[int, Path]]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # a process may end while it is looked at
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    yield int(process.name), descriptor.readlink()
