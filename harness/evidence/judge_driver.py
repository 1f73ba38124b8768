# SPDX-License-Identifier: MIT
"""Judges the driver's log: told of every arrival exactly once, in order, in time, and with nothing lost.

The log is judged as one story over the whole plan: a repeated link, a gap in the sequence numbers or a wrong
baseline can only be seen against what came before. Each part of a record has a judge of its own; what they do
with every field is in ``docs/driver-log.md``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from harness.document.units import format_duration
from harness.evidence.driver_rules import DriverRules
from harness.evidence.judge_clocks import Clocks
from harness.evidence.judge_context import context_mismatches
from harness.evidence.judge_figures import Figures, short
from harness.evidence.judge_interfaces import Interfaces, Links
from harness.evidence.judge_load import Loads
from harness.evidence.judge_processors import ProcessorCalls
from harness.evidence.judge_words import word_mismatches
from harness.evidence.mismatch import BEFORE_FIRST_STEP, About, Mismatch
from harness.evidence.record import Record, find_gaps
from harness.evidence.witness import GuestState, ObservedRecord, StepEvidence, VmState


class DriverJudge:
    """Reads the log step by step and remembers what later steps are judged against."""

    def __init__(self, links: Links, driver: DriverRules) -> None:
        self._has_driver = bool(links)
        self._runs = self._has_driver
        self._is_loaded = False  #: by its own records
        self._previous: Record | None = None
        self._lost = 0
        self._driver = driver
        self._loads = Loads(driver)
        self._figures = Figures(driver)
        self._clocks = Clocks()
        self._calls = ProcessorCalls(driver)
        self._interfaces = Interfaces(links, driver)

    def copy(self) -> DriverJudge:
        """Return a judge that remembers the same and goes its own way from here."""
        twin = copy.copy(self)
        twin._loads, twin._figures, twin._clocks = (
            self._loads.copy(),
            self._figures.copy(),
            self._clocks.copy(),
        )
        twin._calls, twin._interfaces = self._calls.copy(), self._interfaces.copy()
        return twin

    def before_first_step(
        self, records: Sequence[ObservedRecord], guest: GuestState | None, vm: VmState
    ) -> Iterator[Mismatch]:
        """Judge what the driver wrote, since it was last loaded, before anything was plugged."""
        if not self._has_driver:
            return
        about = About(0, BEFORE_FIRST_STEP, "driver")
        self._figures.begin_before_first_step(guest, vm)
        words, last = [], _since_last_load(records)
        if last and last[0].record.line in [one.record.line for one in records[: -len(last)]]:
            yield about.mismatch("a load told again", "each load once", short(last[0].record))
        for observed in last:
            yield from self._judge_record(about, observed)
            if not observed.record.is_arrival:
                words.append(observed.record.word)
            elif not self._interfaces.is_registering:
                yield about.mismatch(
                    "an arrival before anything was plugged", "no arrival", short(observed.record)
                )
        yield from word_mismatches(about, ("load", "baseline"), words, order="strict", driver_runs=self._runs)
        yield from self._interfaces.end_before_first_step(about, guest, vm)

    def step(self, evidence: StepEvidence) -> Iterator[Mismatch]:
        """Judge the records of the next step."""
        about, effect = About(evidence.number, evidence.title, "driver"), evidence.effect
        for part in (self._figures, self._clocks, self._calls, self._interfaces):
            part.begin_step(evidence)
        words = []
        for observed in evidence.records:
            if not self._interfaces.is_repeated(observed.record):
                words.append(observed.record.word)
            yield from self._judge_record(about, observed)
        if evidence.refused is not None:
            wanted = "stop" if effect.driver_runs is False else "start"
            yield about.mismatch(
                f"the driver did not {wanted}", f"driver {wanted} succeeds", evidence.refused
            )
        if effect.driver_runs is not None:
            self._runs = effect.driver_runs
        yield from self._interfaces.end_step(about, evidence)
        yield from word_mismatches(about, effect.records, words, order=effect.order, driver_runs=self._runs)
        yield from _judge_lateness(about, evidence)

    def _judge_record(self, about: About, observed: ObservedRecord) -> Iterator[Mismatch]:
        record = observed.record
        yield from self._judge_completeness(about, record)
        if record.kind == "load":
            yield from self._loads.judge(about, observed)
            self._calls.load()
            self._interfaces.load()
            self._is_loaded = True
        if self._is_loaded:
            yield from self._judge_loaded(about, observed)
        # What it writes while it is not loaded is wrong as it is.
        self._is_loaded = self._is_loaded and record.kind != "unload"
        self._previous = record

    def _judge_loaded(self, about: About, observed: ObservedRecord) -> Iterator[Mismatch]:
        record = observed.record
        yield from self._clocks.judge(about, observed)
        yield from self._figures.judge(about, record)
        yield from context_mismatches(about, record, self._driver)
        if record.kind == "processor_change":
            yield from self._calls.judge(about, record)
        if record.kind == "notification":
            if record.word == "processor" and self._interfaces.tells_of_plugged(record):
                yield from self._calls.arrival(about, record)
            yield from self._interfaces.judge(about, record)

    def _judge_completeness(self, about: About, record: Record) -> Iterator[Mismatch]:
        for gap in find_gaps([self._previous, record] if self._previous else []):
            lost = f", {gap.missing} missing" if gap.missing > 0 else ""
            yield about.mismatch(
                "a gap in the log",
                f"seq={gap.before.seq + 1} after seq={gap.before.seq}",
                f"seq={record.seq}{lost}",
            )
        if record.kind == "baseline" and (self._previous is None or self._previous.kind != "load"):
            yield about.mismatch(
                "a baseline that is not the second record of its load", "seq=1", f"seq={record.seq}"
            )
        if record.kind == "load":
            self._lost = 0
        if record.lost > self._lost:
            yield about.mismatch(
                "records lost by the driver", f"lost={self._lost}", f"lost={record.lost} at seq={record.seq}"
            )
        self._lost = record.lost


def _judge_lateness(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    for observed in evidence.records:
        after_s = observed.written_at_s - evidence.due_from_s
        # Late only beyond the doubt of the clock mapping.
        is_late = after_s - observed.clock_error_s > evidence.within_s
        if is_late and observed.record.word in evidence.effect.records:
            yield about.mismatch(
                "a late record",
                f"{observed.record.word} within {format_duration(evidence.within_s)}",
                f"{short(observed.record)} after {format_duration(after_s)}",
            )


def _since_last_load(observed: Sequence[ObservedRecord]) -> Sequence[ObservedRecord]:
    # The log is kept from load to load, and an older load may have been on a vm of another shape.
    loads = [index for index, one in enumerate(observed) if one.record.kind == "load"]
    return observed[loads[-1] :] if loads else observed
