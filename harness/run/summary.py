# SPDX-License-Identifier: MIT
"""The table of all plans that ends a run, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.document.printable import printable
from harness.run.report import PlanResult, plug_to_record_s, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """What people are told of one run of a plan: texts and numbers only."""

    name: str
    outcome: str
    seconds: str
    told: str  #: how soon the driver told, or what broke
    setting: str | None
    lost: str | None  #: what to say of the workers that were lost under it


def summary_row_of(result: PlanResult) -> SummaryRow:
    """Return a plan's line of :func:`summary_lines`."""
    verdict = result.verdict
    lost = ", ".join(verdict.lost_workers) if verdict is not None else ""
    again = (
        f"{result.name} was run again on {verdict.worker}: lost while running it: {lost}" if verdict else ""
    )
    return SummaryRow(
        name=printable(result.name),
        outcome=result.outcome,
        seconds="-" if verdict is None else f"{verdict.duration_s:.1f}",
        told=_last_column(result),
        setting=None if verdict is None else str(verdict.setting),
        lost=again if lost else None,
    )


def summary_lines(rows: Sequence[SummaryRow], *, folder: Path) -> list[str]:
    """Return a table of all plans for people: how each ended, and how soon the driver told or what broke."""
    width = max(4, *(len(row.name) for row in rows))
    lines = [f"{'plan':{width}}  {'outcome':7}  {'seconds':>7}  plug to record, median; or what broke"]
    lines += [f"{row.name:{width}}  {row.outcome:7}  {row.seconds:>7}  {row.told}" for row in rows]
    lines += [row.lost for row in rows if row.lost is not None]
    counts = Counter(row.outcome for row in rows)
    lines += ["", ", ".join(f"{count} {outcome}" for outcome, count in counts.items())]
    lines += [
        f"on {setting}" for setting in dict.fromkeys(row.setting for row in rows) if setting is not None
    ]
    return [printable(line) for line in [*lines, f"evidence in {folder}"]]


def _last_column(result: PlanResult) -> str:
    if result.verdict is None:
        return result.error or "-"
    latencies = ", ".join(
        f"{kind} {median(values):.2f} s" for kind, values in plug_to_record_s([result.verdict]).items()
    )
    return reason(result.verdict) or latencies or "-"
