# SPDX-License-Identifier: MIT
"""Judges the two clocks of every record of the driver's log: performance counter and time of day. Pure.

The time of day may be set while a plan runs, as time services do. The probe's readings before and after tell
that; a record is right by any of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

from harness.document.units import format_duration
from harness.evidence.judge_figures import short
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.record import Record
from harness.evidence.witness import ClockReading, ObservedRecord, StepEvidence

#: By how much the two clocks may differ in what they say of one span of time, and a hundredth of the span: a
#: guest's timer has ticks of up to 16 ms, and whoever reads both clocks can be interrupted between them.
MOST_APART_S = 0.5
MOST_APART_PART = 0.01
_PER_S = 10_000_000  # of time_100ns


class Clocks:
    """Remembers the record before, against which the next one is judged."""

    def __init__(self) -> None:
        self._previous: Record | None = None
        self._qpc_hz = 0  #: as the driver says
        self._stood_still = False  #: since that record, so that the two clocks may have gone apart
        # Of the step under way.
        self._acted_at_s: float | None = None
        self._booted = False
        self._readings: tuple[ClockReading, ...] = ()  #: at its beginning and its end, of one boot
        self._previous_readings: tuple[ClockReading, ...] = ()  #: of the step of the record before

    def copy(self) -> Self:
        """Return clocks that go their own way from here."""
        return copy.copy(self)

    def begin_step(self, evidence: StepEvidence) -> None:
        """Begin with the records of a step."""
        self._acted_at_s = evidence.acted_at_s
        self._booted = evidence.effect.boot != "same"
        self._stood_still = self._stood_still or evidence.effect.clock == "anew"
        states = (evidence.guest_after,) if self._booted else (evidence.guest_before, evidence.guest_after)
        self._readings = tuple(one.reading for one in states if one is not None and one.reading is not None)

    def judge(self, about: About, observed: ObservedRecord) -> Iterator[Mismatch]:
        """Judge the clocks of the next record."""
        record = observed.record
        if record.kind == "load":
            self._qpc_hz = int(record.fields["qpc_hz"])
            if self._booted:
                self._previous = None
        if self._previous is not None:
            was_set = _was_set((*self._previous_readings, *self._readings))
            yield from _backwards(
                about, self._previous, record, ("qpc",) if was_set else ("time_100ns", "qpc")
            )
        yield from self._judge_apart(about, observed)
        early_s = 0.0 if self._acted_at_s is None else self._acted_at_s - observed.written_at_s
        if early_s > observed.clock_error_s + MOST_APART_S:
            yield about.mismatch(
                "a record from before its step",
                f"{short(record)} written after the act",
                f"{format_duration(early_s)} before it, by its qpc",
            )
        self._previous, self._stood_still = record, False
        self._previous_readings = self._readings

    def _judge_apart(self, about: About, observed: ObservedRecord) -> Iterator[Mismatch]:
        record, previous = observed.record, self._previous
        # What was written before the first step may be of before a fork; only a later reading is of its time.
        if observed.reading is not None and self._acted_at_s is not None:
            readings = (observed.reading, *self._readings)
        elif previous is not None and not self._stood_still and self._qpc_hz:
            readings = (ClockReading(previous.qpc, self._qpc_hz, previous.time_100ns),)
        else:
            return
        now = ClockReading(record.qpc, readings[0].qpc_hz, record.time_100ns)
        if not any(_agree(one, now) for one in readings):
            apart_s = _apart_s(readings[0], now)
            yield about.mismatch(
                "the two clocks of a record apart",
                f"time_100ns and qpc of {short(record)} have advanced alike",
                f"time_100ns is {format_duration(abs(apart_s))} {'ahead' if apart_s > 0 else 'behind'}",
            )


def _apart_s(before: ClockReading, now: ClockReading) -> float:
    """Return by how much more the time of day has advanced than the counter."""
    return _time_s(before, now) - _counter_s(before, now)


def _time_s(before: ClockReading, now: ClockReading) -> float:
    return (now.time_100ns - before.time_100ns) / _PER_S


def _counter_s(before: ClockReading, now: ClockReading) -> float:
    return (now.qpc - before.qpc) / now.qpc_hz


def _agree(one: ClockReading, other: ClockReading) -> bool:
    span_s = min(abs(_counter_s(one, other)), abs(_time_s(one, other)))
    return abs(_apart_s(one, other)) <= MOST_APART_S + MOST_APART_PART * span_s


def _was_set(readings: Sequence[ClockReading]) -> bool:
    """Return whether the guest's time of day was set between any two readings that follow each other."""
    return any(not _agree(before, after) for before, after in pairwise(readings))


def _backwards(about: About, previous: Record, record: Record, keys: Sequence[str]) -> Iterator[Mismatch]:
    for key in keys:
        before, now = getattr(previous, key), getattr(record, key)
        if now < before:
            yield about.mismatch(
                "a clock that runs backwards",
                f"{key} of {short(record)} not before {before}, that of {short(previous)}",
                f"{key}={now}",
            )
