# SPDX-License-Identifier: MIT
"""Judges the figures that every record of the driver's log has: processors and memory. Pure.

A record is made at some moment between the beginning and the end of its step, so what it may say lies between
what there was before and what there is after. What a record tells of has happened by then.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from harness.evidence.driver_rules import DriverRules
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.record import Record
from harness.evidence.witness import GuestState, StepEvidence, VmState

#: An operating system keeps some memory for itself while it boots, not always the same. Less than any DIMM.
MOST_BOOT_SLACK_BYTES = 1024 * 1024
#: By how much a system may use more than the memory ranges that it tells drivers of.
MOST_UNTOLD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Change:
    """By how much a figure rises and falls during a step."""

    come: int = 0
    gone: int = 0

    @classmethod
    def of(cls, total: int, *, gone: int) -> Self:
        return cls(max(total + gone, 0), gone)

    @property
    def total(self) -> int:
        return self.come - self.gone


class Figures:
    """Remembers what there is by the driver's own figures, from its baseline on."""

    def __init__(self, driver: DriverRules) -> None:
        self._driver = driver
        self._load: Record | None = None
        self._baseline: Record | None = None
        self._plugged_bytes = 0  #: since that baseline, with the step under way
        # Of the step under way.
        self._guest: GuestState | None = None
        self._vm: VmState | None = None
        self._processors = _Change()
        self._memory = _Change()
        self._least_dimm_bytes = 0
        self._slack_bytes = 0  #: after a boot, until the next baseline

    def copy(self) -> Self:
        """Return figures that go their own way from here."""
        return copy.copy(self)

    def begin_before_first_step(self, guest: GuestState | None, vm: VmState) -> None:
        """Begin with what was written before the first step."""
        self._guest, self._vm = guest, vm

    def begin_step(self, evidence: StepEvidence) -> None:
        """Begin with the records of a step."""
        effect = evidence.effect
        sizes = [device.size_bytes for device in effect.added if device.size_bytes is not None]
        self._guest, self._vm = evidence.guest_before, evidence.vm_before
        gone = [name for name in effect.removed if name in evidence.vm_before.vcpu_ids]
        gone_bytes = [evidence.vm_before.dimm_bytes.get(name, 0) for name in effect.removed]
        self._processors = _Change.of(effect.processors, gone=len(gone))
        self._memory = _Change.of(effect.memory_bytes, gone=sum(gone_bytes))
        self._least_dimm_bytes = min(sizes, default=0)
        if effect.boot == "new":
            self._slack_bytes = MOST_BOOT_SLACK_BYTES
        self._plugged_bytes += effect.memory_bytes

    def judge(self, about: About, record: Record) -> Iterator[Mismatch]:
        """Judge the figures of the next record."""
        if record.kind == "baseline":
            yield from self._judge_baseline(about, record)
            return
        if record.kind == "load":
            self._load = record
        yield from self._judge_processors(about, record)
        yield from self._judge_memory(about, record)

    def _judge_processors(self, about: About, record: Record) -> Iterator[Mismatch]:
        if self._guest is None:
            return
        before, change = self._guest.active_processors, self._processors
        least, most = before - change.gone, before + change.come
        if change.come and record.word in ("processor", "add_complete"):
            least += 1
        elif change.come and record.word == "add_start":
            most -= 1
        if not least <= record.active_processors <= most:
            yield about.mismatch(
                f"active processors in the record {short(record)}",
                _between(least, most),
                record.active_processors,
            )

    def _judge_memory(self, about: About, record: Record) -> Iterator[Mismatch]:
        if self._baseline is None:
            yield from self._judge_against_vm(about, record)
            return
        after = self._baseline.memory_bytes + self._plugged_bytes
        before, change = after - self._memory.total, self._memory
        least, most = before - change.gone, before + change.come
        if change.come and record.word == "memory":
            least += self._least_dimm_bytes
        if not least - self._slack_bytes <= record.memory_bytes <= most + self._slack_bytes:
            yield about.mismatch(
                f"memory in the record {short(record)} in bytes", _between(least, most), record.memory_bytes
            )

    def _judge_against_vm(self, about: About, record: Record) -> Iterator[Mismatch]:
        if self._guest is None or self._vm is None or self._driver.boot_memory_bytes is None:
            return
        least = self._guest.memory_bytes
        most = self._driver.boot_memory_bytes + self._vm.plugged_memory_bytes
        if not least - MOST_UNTOLD_BYTES <= record.memory_bytes <= most:
            yield about.mismatch(
                f"memory in the record {short(record)} in bytes",
                f"from {least}, which the guest uses, to {most}, which the vm has",
                record.memory_bytes,
            )

    def _judge_baseline(self, about: About, record: Record) -> Iterator[Mismatch]:
        if self._guest is not None:
            wanted = self._guest.active_processors + self._processors.total
            if record.active_processors != wanted:
                yield about.mismatch(
                    "active processors in the baseline", f"{wanted} as in the guest", record.active_processors
                )
        if self._baseline is not None:
            before_bytes, plugged_bytes = self._baseline.memory_bytes, self._plugged_bytes
            off_bytes = record.memory_bytes - before_bytes - plugged_bytes
            if abs(off_bytes) > self._slack_bytes:
                yield about.mismatch(
                    "memory in the baseline in bytes",
                    f"{before_bytes + plugged_bytes} ({before_bytes} + {plugged_bytes} plugged since)",
                    record.memory_bytes,
                )
        elif self._load is not None and record.memory_bytes != self._load.memory_bytes:
            yield about.mismatch(
                "memory in the baseline in bytes",
                f"{self._load.memory_bytes} as in the load record",
                record.memory_bytes,
            )
        else:
            yield from self._judge_against_vm(about, record)
        self._baseline, self._plugged_bytes, self._slack_bytes = record, 0, 0


def short(record: Record) -> str:
    """Return which record it is, for people."""
    return f"{record.word} (seq={record.seq})"


def _between(least: int, most: int) -> str:
    return str(most) if least == most else f"from {least} to {most}"
