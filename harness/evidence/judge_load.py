# SPDX-License-Identifier: MIT
"""Judges what a load record says of the driver: its configuration, its name, its clock. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Self

from harness.evidence.driver_rules import DriverRules
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.record import FORMAT, Record
from harness.evidence.witness import ObservedRecord


class Loads:
    """Remembers the first load, which the others must be like."""

    def __init__(self, driver: DriverRules) -> None:
        self._driver = driver
        self._first: Record | None = None

    def copy(self) -> Self:
        """Return loads that go their own way from here."""
        return copy.copy(self)

    def judge(self, about: About, observed: ObservedRecord) -> Iterator[Mismatch]:
        """Judge a load record."""
        said = observed.record.fields
        for key, wanted in self._wanted(observed).items():
            if said.get(key, wanted if key == "existing" and wanted == "0" else "") != wanted:
                yield about.mismatch(
                    f"{key} in the load record", wanted, said.get(key, f"no key {key}, as of an older driver")
                )
        name = said["driver"].partition("/")[0]
        names = self._driver.names
        if names and name.lower() not in [one.lower() for one in names]:
            wanted = " or ".join(f"{one}/<version>" for one in names)
            yield about.mismatch("driver in the load record", wanted, said["driver"])
        self._first = self._first or observed.record

    def _wanted(self, observed: ObservedRecord) -> dict[str, str]:
        wanted = {
            "format": str(FORMAT),
            "interfaces": self._driver.interfaces,
            "synchronous": str(int(self._driver.synchronous)),
            "existing": str(int(self._driver.existing)),
        }
        if observed.reading is not None:
            wanted["qpc_hz"] = str(observed.reading.qpc_hz)
        if self._first is not None:
            wanted["driver"] = self._first.fields["driver"]
            wanted.setdefault("qpc_hz", self._first.fields["qpc_hz"])
            if "memory_from" in self._first.fields:
                wanted["memory_from"] = self._first.fields["memory_from"]
        return wanted
