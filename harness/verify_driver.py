# SPDX-License-Identifier: MIT
"""Judges the driver's log: told of every arrival exactly once, in order, in time, and with nothing lost.

The log is judged as one story over the whole plan: a repeated link, a gap in the sequence numbers or a wrong
baseline can only be seen against what came before.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.driver_log import Record, find_gaps
from harness.evidence import GuestState, ObservedRecord, StepEvidence
from harness.mismatch import Mismatch
from harness.plan import Step
from harness.profile import Profile
from harness.units import format_duration


@dataclass(frozen=True, slots=True)
class _About:
    """The step that mismatches are about."""

    step: int
    title: str

    def mismatch(self, what: str, expected: str, seen: str) -> Mismatch:
        return Mismatch(self.step, self.title, "driver", what, expected, seen)


class DriverJudge:
    """Reads the log step by step and remembers what later steps are judged against."""

    def __init__(self, profile: Profile) -> None:
        self._links = {
            "processor": re.compile(profile.links.processor, re.IGNORECASE),
            "memory": re.compile(profile.links.memory, re.IGNORECASE),
        }
        self._runs = True
        self._previous: Record | None = None
        self._lost = 0
        self._told: dict[tuple[str, str], tuple[int, Record]] = {}  # step and record by class and link
        self._baseline: Record | None = None
        self._plugged_bytes = 0  # since that baseline

    def copy(self) -> DriverJudge:
        """Return a judge that remembers the same and goes its own way from here."""
        twin = copy.copy(self)
        twin._told = dict(self._told)
        return twin

    def before_first_step(self, records: Sequence[ObservedRecord], guest: GuestState) -> Iterator[Mismatch]:
        """Judge what the driver wrote, since it was last loaded, before anything was plugged."""
        about = _About(0, "before the first step")
        for record in _since_last_load(_records(records)):
            yield from self._judge_record(about, record, guest)
            if record.is_arrival:
                yield about.mismatch("an arrival before anything was plugged", "no arrival", _short(record))

    def step(self, step: Step, evidence: StepEvidence) -> Iterator[Mismatch]:
        """Judge the records of the next step."""
        about = _About(step.number, step.title)
        self._plugged_bytes += sum(device.size_bytes or 0 for device in evidence.devices)
        for record in _records(evidence.records):
            yield from self._judge_record(about, record, evidence.guest_after)
        if evidence.refused is not None:
            yield about.mismatch(
                f"the driver did not {step.driver}", f"{step.title} succeeds", evidence.refused
            )
        if step.driver is not None:
            self._runs = step.driver == "start"
        yield from self._judge_words(about, step, evidence)
        yield from _judge_lateness(about, step, evidence)

    # --- One record against those before it ---------------------------------------------------------------

    def _judge_record(self, about: _About, record: Record, guest: GuestState) -> Iterator[Mismatch]:
        yield from self._judge_completeness(about, record)
        if record.kind == "notification":
            yield from self._judge_notification(about, record)
        if record.kind == "baseline":
            yield from self._judge_baseline(about, record, guest)
        self._previous = record

    def _judge_completeness(self, about: _About, record: Record) -> Iterator[Mismatch]:
        for gap in find_gaps([self._previous, record] if self._previous else []):
            lost = f", {gap.missing} missing" if gap.missing > 0 else ""
            yield about.mismatch(
                "a gap in the log",
                f"seq={gap.before.seq + 1} after seq={gap.before.seq}",
                f"seq={record.seq}{lost}",
            )
        if record.kind == "load":
            self._lost = 0
        if record.lost > self._lost:
            yield about.mismatch(
                "records lost by the driver", f"lost={self._lost}", f"lost={record.lost} at seq={record.seq}"
            )
        self._lost = record.lost

    def _judge_notification(self, about: _About, record: Record) -> Iterator[Mismatch]:
        class_, link = record.class_ or "", record.link or ""
        told_key = (class_, link.lower())
        if record.event == "removal":
            self._told.pop(told_key, None)
        if not record.is_arrival:
            yield about.mismatch(
                "a notification that is no arrival of a processor or of memory",
                "arrivals only",
                " ".join(f"{key}={value}" for key, value in record.fields.items()),
            )
            return
        if not self._links[class_].fullmatch(link):
            yield about.mismatch(
                f"the symbolic link of an arrival of class {class_}",
                f"a link that matches {self._links[class_].pattern}",
                link,
            )
        if told_key in self._told:
            step, first = self._told[told_key]
            yield about.mismatch(
                "the same arrival told again",
                f"{link} once, as in step {step}, seq={first.seq}",
                f"again at seq={record.seq}",
            )
        else:
            self._told[told_key] = (about.step, record)

    def _judge_baseline(self, about: _About, record: Record, guest: GuestState) -> Iterator[Mismatch]:
        if record.active_processors != guest.active_processors:
            yield about.mismatch(
                "active processors in the baseline",
                f"{guest.active_processors} as in the guest",
                f"{record.active_processors}",
            )
        if self._baseline is not None:
            before_bytes, plugged_bytes = self._baseline.memory_bytes, self._plugged_bytes
            if record.memory_bytes != before_bytes + plugged_bytes:
                yield about.mismatch(
                    "memory in the baseline in bytes",
                    f"{before_bytes + plugged_bytes} ({before_bytes} + {plugged_bytes} plugged since)",
                    f"{record.memory_bytes}",
                )
        self._baseline, self._plugged_bytes = record, 0

    # --- The records of a step against the plan -----------------------------------------------------------

    def _judge_words(self, about: _About, step: Step, evidence: StepEvidence) -> Iterator[Mismatch]:
        expected = list(step.expect.driver)
        seen = [record.word for record in _records(evidence.records)]
        # Windows promises no order between the notifications of two classes.
        any_order = step.plug is not None and step.plug.vcpus > 0 and bool(step.plug.dimms_bytes)
        if any_order and _by_class(expected) == _by_class(seen):
            return
        if expected != seen:
            yield about.mismatch(self._difference(expected, seen), _listed(expected), _listed(seen))

    def _difference(self, expected: Sequence[str], seen: Sequence[str]) -> str:
        too_few = sum((Counter(expected) - Counter(seen)).values())
        too_many = sum((Counter(seen) - Counter(expected)).values())
        if too_many and not self._runs and not expected:
            return "records while the driver is stopped"
        if not seen:
            return "the driver logged nothing"
        if too_few and too_many:
            return "other records"
        if too_few or too_many:
            number = too_few or too_many
            return f"{number} record{'s' if number > 1 else ''} too {'few' if too_few else 'many'}"
        return "records in another order"


def _judge_lateness(about: _About, step: Step, evidence: StepEvidence) -> Iterator[Mismatch]:
    for observed in evidence.records:
        after_s = observed.written_at_s - evidence.acted_at_s
        # Late only beyond the doubt of the clock mapping.
        if observed.record.word in step.expect.driver and after_s - observed.clock_error_s > step.within_s:
            yield about.mismatch(
                "a late record",
                f"{observed.record.word} within {format_duration(step.within_s)}",
                f"{_short(observed.record)} after {format_duration(after_s)}",
            )


def _records(observed: Sequence[ObservedRecord]) -> list[Record]:
    return [one.record for one in observed]


def _since_last_load(records: list[Record]) -> list[Record]:
    # The log is kept from load to load, and an older load may have been on a vm of another shape.
    loads = [index for index, record in enumerate(records) if record.kind == "load"]
    return records[loads[-1] :] if loads else records


def _by_class(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words about memory and the others, each in their order."""
    memory = [word for word in words if word.startswith("memory")]
    return memory, [word for word in words if not word.startswith("memory")]


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "no record"


def _short(record: Record) -> str:
    return f"{record.word} (seq={record.seq})"
