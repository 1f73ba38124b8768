# SPDX-License-Identifier: MIT
"""Judges the calls of the synchronous processor callback: in order, and before the arrival. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Self

from harness.evidence.driver_rules import DriverRules
from harness.evidence.judge_figures import short
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.record import Record
from harness.evidence.witness import GuestState, StepEvidence

#: Windows has one group, 0, of up to so many processors (learn.microsoft.com: Processor Groups).
PROCESSORS_PER_GROUP = 64


class ProcessorCalls:
    """Remembers which processor is how far, by its number; the log links no number with a device."""

    def __init__(self, driver: DriverRules) -> None:
        self._driver = driver
        self._started: dict[int, Record] = {}  #: and neither complete nor failed
        self._completed: dict[int, Record] = {}  #: in this boot
        self._completions = 0  #: in this load
        self._arrivals = 0
        # Of the step under way.
        self._guest: GuestState | None = None
        self._added = 0
        self._booted = False

    def copy(self) -> Self:
        """Return calls that go their own way from here."""
        twin = copy.copy(self)
        twin._started, twin._completed = dict(self._started), dict(self._completed)
        return twin

    def begin_step(self, evidence: StepEvidence) -> None:
        """Begin with the records of a step."""
        self._guest = evidence.guest_before
        self._added = sum(not device.is_memory for device in evidence.effect.added)
        self._booted = evidence.effect.boot == "new"

    def load(self) -> None:
        """Begin with the records of another load of the driver."""
        self._completions = self._arrivals = 0
        self._started.clear()
        if self._booted:
            self._completed.clear()

    def judge(self, about: About, record: Record) -> Iterator[Mismatch]:
        """Judge a call of the callback."""
        if not self._driver.synchronous:
            yield about.mismatch("a call of a callback that is not registered", "none", short(record))
        yield from self._judge_number(about, record)
        yield from self._judge_status(about, record)
        number, state = int(record.fields["number"]), record.fields["state"]
        started = self._started.get(number)
        if state == "add_start":
            if number in self._completed or started is not None:
                yield about.mismatch(
                    f"the start of processor {number} told again", "once", f"again at seq={record.seq}"
                )
            self._started[number] = record
        elif state in ("add_complete", "add_failure"):
            if started is None:
                yield about.mismatch(
                    f"{state} of processor {number} without its start",
                    f"add_start of number={number} before it",
                    short(record),
                )
            elif _place(started) != _place(record):
                yield about.mismatch(
                    f"the group of processor {number}",
                    _place(started),
                    f"{_place(record)} in {short(record)}",
                )
            self._started.pop(number, None)
            if state == "add_complete":
                yield from self._judge_place(about, record)
                self._completed[number] = record
                self._completions += 1

    def arrival(self, about: About, record: Record) -> Iterator[Mismatch]:
        """Judge the arrival of a processor that was plugged, against the calls before it."""
        self._arrivals += 1
        if self._driver.synchronous and self._arrivals > self._completions:
            yield about.mismatch(
                "the arrival of a processor before its completion",
                f"{self._arrivals} add_complete before {short(record)}",
                self._completions,
            )

    def _judge_number(self, about: About, record: Record) -> Iterator[Mismatch]:
        number = int(record.fields["number"])
        if self._guest is not None:
            first = self._guest.active_processors
            if not first <= number < first + self._added:
                wanted = (
                    f"one of {first} to {first + self._added - 1}" if self._added > 0 else "none in this step"
                )
                yield about.mismatch("the number of a processor", wanted, f"{number} in {short(record)}")
        group, group_number = int(record.fields["group"]), int(record.fields["group_number"])
        most = self._driver.max_processors
        one_group = most is not None and most <= PROCESSORS_PER_GROUP
        if (one_group and (group, group_number) != (0, number)) or group_number >= PROCESSORS_PER_GROUP:
            wanted = f"group=0 group_number={number}" if one_group else "a group_number up to 63"
            yield about.mismatch(
                f"the group of processor {number}", wanted, f"{_place(record)} in {short(record)}"
            )

    def _judge_place(self, about: About, record: Record) -> Iterator[Mismatch]:
        for number, other in self._completed.items():
            if number != int(record.fields["number"]) and _place(other) == _place(record):
                yield about.mismatch(
                    f"the place of processor {number} given again", f"{_place(other)} once", short(record)
                )

    @staticmethod
    def _judge_status(about: About, record: Record) -> Iterator[Mismatch]:
        # Whether NT_SUCCESS is true of it; Windows gives the status a meaning at add_failure only.
        is_success = int(record.fields["status"], 16) < 0x80000000
        if is_success == (record.fields["state"] == "add_failure"):
            wanted = "a success" if not is_success else "a failure"
            yield about.mismatch(f"the status in the record {short(record)}", wanted, record.fields["status"])


def _place(record: Record) -> str:
    return f"group={record.fields['group']} group_number={record.fields['group_number']}"
