# SPDX-License-Identifier: MIT
"""Whether the guest's clock and the host's agree on what came first. Pure.

A driver is told of a device only after the guest's ACPI has taken its insertion. Where a record is older than
that by more than both clocks can be off, one of them is wrong, and so is the order of the timeline.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.document.units import format_duration
from harness.evidence.witness import StepBegun

_CLASS_OF = {"CPU": "processor", "DIMM": "memory"}


def clocks_that_disagree(step: StepBegun) -> Iterator[str]:
    """Say of each arrival in the driver's log, by number of its kind, that it is older than its insertion."""
    for slot_type, word in _CLASS_OF.items():
        taken = sorted(
            (one for one in step.aml or () if one.what == "insertion taken" and one.slot_type == slot_type),
            key=lambda one: one.at_s,
        )
        told = sorted(
            (one for one in step.records if one.record.word == word), key=lambda one: one.written_at_s
        )
        # Which arrival is of which device only the guest knows; the first of them cannot be before the first.
        for act, observed in zip(taken, told, strict=False):
            early_s, error_s = act.at_s - observed.written_at_s, act.error_s + observed.clock_error_s
            if early_s > error_s:
                yield (
                    f"the clocks disagree: seq {observed.record.seq} in the driver's log is"
                    f" {format_duration(round(early_s, 6))} older than the insertion in {slot_type}"
                    f" {act.slot}, and both can be off by {format_duration(round(error_s, 6))} together"
                )
