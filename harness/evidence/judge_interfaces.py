# SPDX-License-Identifier: MIT
"""Judges the notifications: of which device interfaces the driver was told, each once. Pure.

With ``existing`` a load is also told of the interfaces that are there when it registers, each once or twice.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Self, get_args

from harness.evidence.driver_rules import DriverRules, existing_interfaces
from harness.evidence.effect import InterfaceClass
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.record import Record
from harness.evidence.witness import Announced, GuestState, StepEvidence, VmState

#: A regular expression for the whole of a symbolic link, by interface class; letter case does not matter.
Links = Mapping[str, str]

_Interface = tuple[str, str]  # class, and link in lower case


class Interfaces:
    """Remembers of which interfaces the driver was told.

    :ivar is_registering: a load that is told of existing interfaces began in the step under way.
    """

    def __init__(self, links: Links, driver: DriverRules) -> None:
        self._links = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in links.items()}
        self._driver = driver
        self._told: dict[_Interface, tuple[int, Record]] = {}  #: the step of each, and its record
        self._existing: dict[_Interface, int] = {}  #: how often this load was told of each that existed
        self._is_all_known = True  #: whether what was told is there still, unless its end was told
        self._announced: dict[str, Announced] = {}  #: that are there without hardware, by link
        # Of the step under way.
        self._announcing: dict[str, Announced] = {}
        self.is_registering = False

    def copy(self) -> Self:
        """Return interfaces that go their own way from here."""
        twin = copy.copy(self)
        twin._told, twin._existing = dict(self._told), dict(self._existing)
        twin._announced = dict(self._announced)
        return twin

    def begin_step(self, evidence: StepEvidence) -> None:
        """Begin with the records of a step."""
        self._announcing = {announced.link.lower(): announced for announced in evidence.announced}
        self.is_registering = False
        self._is_all_known = self._is_all_known and not evidence.effect.removed
        if evidence.effect.boot != "same":
            self._told.clear()
            self._announced.clear()

    def load(self) -> None:
        """Begin with the records of another load of the driver."""
        self._existing.clear()
        self.is_registering = self._driver.existing

    def end_before_first_step(
        self, about: About, guest: GuestState | None, vm: VmState
    ) -> Iterator[Mismatch]:
        """Judge what was told before the first step as a whole."""
        yield from self._judge_existing(about, guest, vm)

    def end_step(self, about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
        """Judge what was told in a step as a whole, and let come again what no driver was told the end of."""
        yield from self._judge_existing(about, evidence.guest_before, evidence.vm_before)
        for link, announced in self._announcing.items():
            if announced.announcement.event == "removal":
                self._told.pop((announced.announcement.interface_class, link), None)
                self._announced.pop(link, None)
            else:
                self._announced[link] = announced

    def is_repeated(self, record: Record) -> bool:
        """Return whether this is a second telling, which is none to count."""
        return record.is_arrival and self._existing.get(record.interface) == 1

    def tells_of_plugged(self, record: Record) -> bool:
        """Return whether this may be the arrival of a device that was plugged since the driver was loaded."""
        return not (
            self.is_registering
            or record.interface in self._existing
            or record.interface[1] in self._announcing
        )

    def judge(self, about: About, record: Record) -> Iterator[Mismatch]:
        """Judge the next notification."""
        yield from self._judge_what(about, record)
        if record.event == "removal":
            self._told.pop(record.interface, None)
            self._existing.pop(record.interface, None)
        elif record.is_arrival and (self.is_registering or record.interface in self._existing):
            yield from self._judge_again_existing(about, record)
        elif record.is_arrival:
            yield from self._judge_again(about, record)

    def _judge_what(self, about: About, record: Record) -> Iterator[Mismatch]:
        class_, link = record.class_ or "", record.link or ""
        announced = self._announcing.get(link.lower())
        if record.is_arrival and not self._driver.registers(class_):
            yield about.mismatch(
                "an arrival of a class that is not registered", self._driver.interfaces, f"class {class_}"
            )
        if announced is not None:
            yield from _judge_announced(about, record, announced)
        elif self._announcing and record.is_arrival:
            yield about.mismatch(
                "an arrival of something else than what was announced", ", ".join(self._announcing), link
            )
        elif not record.is_arrival:
            yield about.mismatch(
                "a notification that is no arrival of a processor or of memory",
                "arrivals only",
                " ".join(f"{key}={value}" for key, value in record.fields.items()),
            )
        elif self.is_registering and link.lower() in self._announced:
            yield from _judge_announced(about, record, self._announced[link.lower()])
        elif not self._links[class_].fullmatch(link):
            yield about.mismatch(
                f"the symbolic link of an arrival of class {class_}",
                f"a link that matches {self._links[class_].pattern}",
                link,
            )

    def _judge_again(self, about: About, record: Record) -> Iterator[Mismatch]:
        if record.interface not in self._told:
            self._told[record.interface] = about.step, record
            return
        step, first = self._told[record.interface]
        yield about.mismatch(
            "the same arrival told again",
            f"{record.link} once, as in step {step}, seq={first.seq}",
            f"again at seq={record.seq}",
        )

    def _judge_again_existing(self, about: About, record: Record) -> Iterator[Mismatch]:
        times = self._existing.get(record.interface, 0) + 1
        self._existing[record.interface] = times
        self._told.setdefault(record.interface, (about.step, record))
        if times > 2:
            yield about.mismatch(
                "an existing interface told more than twice",
                f"{record.link} once, or twice at most",
                f"again at seq={record.seq}",
            )

    def _judge_existing(self, about: About, guest: GuestState | None, vm: VmState) -> Iterator[Mismatch]:
        """Judge whether a load was told of all there was when it registered, and of nothing else."""
        if not self.is_registering:
            return
        there = [announced.announcement for announced in self._announced.values()]
        wanted = existing_interfaces(self._driver, vm, guest, there)
        told = Counter(class_ for class_, _link in self._existing)
        for class_ in get_args(InterfaceClass):
            if told[class_] != wanted[class_]:
                yield about.mismatch(
                    f"existing interfaces of class {class_}",
                    f"{wanted[class_]}, as many as there are",
                    f"{told[class_]} told",
                )
        missing = [
            record.link or "" for key, (_step, record) in self._told.items() if key not in self._existing
        ]
        if self._is_all_known and missing and told == +wanted:
            yield about.mismatch("an existing interface under another link", ", ".join(missing), "not told")


def _judge_announced(about: About, record: Record, announced: Announced) -> Iterator[Mismatch]:
    wanted = announced.announcement
    if (record.class_, record.event) != (wanted.interface_class, wanted.event):
        yield about.mismatch(
            f"what was told of the announced interface {announced.link}",
            f"{wanted.event} of class {wanted.interface_class}",
            f"{record.event} of class {record.class_}",
        )
