# SPDX-License-Identifier: MIT
"""Say what became of a plan: to people in a few lines, to machines as JSON, and on one timeline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from harness.evidence import WITNESSES, StepBegun
from harness.verdict import Verdict

VERDICT_FILE = "verdict.json"
TIMELINE_FILE = "timeline.jsonl"
RESULTS_FILE = "results.json"
LONGEST_FAILURE_LINES = 25
_MOST_MISMATCHES = 5


def write_evidence(verdict: Verdict, *, folder: Path) -> None:
    """Write ``verdict.json`` and ``timeline.jsonl`` into the evidence folder."""
    (folder / VERDICT_FILE).write_text(json.dumps(verdict.to_json(), indent=1) + "\n")
    with (folder / TIMELINE_FILE).open("w") as file:
        for entry in timeline(verdict):
            file.write(json.dumps(entry) + "\n")


def timeline(verdict: Verdict) -> list[dict[str, Any]]:
    """Return what happened in order, ``at_s`` counted from the start of the plan.

    Guest times are the guest's performance counter mapped to the host's clock, right within ``error_s``.
    """
    begun = [*verdict.steps, *([verdict.unfinished] if verdict.unfinished else [])]
    entries = [entry for step in begun for entry in _step_entries(step)]
    for entry in entries:
        entry["at_s"] = round(entry["at_s"] - verdict.started_s, 6)
    return sorted(entries, key=lambda entry: entry["at_s"])


def failure_lines(verdict: Verdict) -> list[str]:
    """Return why a plan did not pass, for people, in at most 25 lines: the first broken layer first."""
    lines = [f"{verdict.plan} {verdict.outcome}: {reason(verdict)}", f"setting   {verdict.setting}"]
    if verdict.error is not None:
        lines += ["error     the bench broke: this says nothing about the driver", _where_it_broke(verdict)]
    if verdict.mismatches:
        first = verdict.mismatches[0]
        lines += [
            f"blame     {first.witness} - the first of {', '.join(WITNESSES)} that is not as planned",
            f"in step   {first.step}: {first.title}",
        ]
    for mismatch in verdict.mismatches[:_MOST_MISMATCHES]:
        lines += [
            f"  {mismatch.witness}: {mismatch.what}",
            f"    expected {mismatch.expected}",
            f"    seen     {mismatch.seen}",
        ]
    more = len(verdict.mismatches) - _MOST_MISMATCHES
    if more > 0:
        lines.append(f"  and {more} more in {VERDICT_FILE}")
    if verdict.worker is not None:
        lines.append(f"worker    {verdict.worker}")
    return [*lines, f"evidence  {verdict.evidence}"]


def reason(verdict: Verdict) -> str:
    """Return why a plan did not pass, in one line; empty for one that did."""
    if verdict.error is not None:
        return verdict.error
    if verdict.mismatches:
        first = verdict.mismatches[0]
        return f"{first.witness}, step {first.step}: {first.what}"
    return ""


def summary_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Return a table of all plans for people: how each ended, and how soon the driver told or what broke."""
    width = max(len(verdict.plan) for verdict in verdicts)
    lines = [f"{'plan':{width}}  {'outcome':7}  {'seconds':>7}  plug to record, median; or what broke"]
    for verdict in verdicts:
        latencies = ", ".join(
            f"{kind} {median(values):.2f} s" for kind, values in plug_to_record_s([verdict]).items()
        )
        last = reason(verdict) or latencies or "-"
        lines.append(f"{verdict.plan:{width}}  {verdict.outcome:7}  {verdict.duration_s:7.1f}  {last}")
    lines += [
        f"{verdict.plan} was run again on {verdict.worker}: lost while running it: {lost}"
        for verdict in verdicts
        if (lost := ", ".join(verdict.lost_workers))
    ]
    counts = Counter(verdict.outcome for verdict in verdicts)
    lines += ["", ", ".join(f"{count} {outcome}" for outcome, count in counts.items())]
    lines += [f"on {setting}" for setting in dict.fromkeys(str(verdict.setting) for verdict in verdicts)]
    return [*lines, f"evidence in {verdicts[0].evidence.parent}"]


def plug_to_record_s(verdicts: Iterable[Verdict]) -> dict[str, list[float]]:
    """Return the seconds from each plug to its arrival in the driver's log, by device kind.

    Only steps that plug one device are counted, where no doubt is which record is whose.
    """
    seconds: dict[str, list[float]] = {}
    for verdict in verdicts:
        for step in verdict.steps:
            arrivals = [observed for observed in step.records if observed.record.is_arrival]
            if len(step.devices) == 1 and len(arrivals) == 1:
                device = step.devices[0]
                seconds.setdefault(device.kind, []).append(arrivals[0].written_at_s - device.plugged_at_s)
    return seconds


def write_results(verdicts: Sequence[Verdict], *, folder: Path) -> None:
    """Write ``results.json``: every plan's outcome, setting and evidence, and the latencies."""
    results = {
        "plans": [
            {
                "plan": verdict.plan,
                "outcome": verdict.outcome,
                "error": verdict.error,
                "mismatches": [asdict(mismatch) for mismatch in verdict.mismatches],
                "duration_s": round(verdict.duration_s, 3),
                "setting": asdict(verdict.setting),
                "evidence": str(verdict.evidence.relative_to(folder)),
                "worker": verdict.worker,
                "lost_workers": verdict.lost_workers,
            }
            for verdict in verdicts
        ],
        "plug_to_record_s": plug_to_record_s(verdicts),
    }
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n")


def _where_it_broke(verdict: Verdict) -> str:
    if verdict.unfinished is not None:
        return f"in step   {verdict.unfinished.number}: {verdict.unfinished.title}"
    if verdict.steps:
        return f"after step {verdict.steps[-1].number}: {verdict.steps[-1].title}"
    return "before    the first step"


def _step_entries(step: StepBegun) -> Iterator[dict[str, Any]]:
    yield {"at_s": step.acted_at_s, "witness": "harness", "what": f"step {step.number}: {step.title}"}
    for device in step.devices:
        yield {"at_s": device.plugged_at_s, "witness": "vm", "what": f"device_add {device.device_id}"}
    for answer in step.ospm:
        what = f"_OST of {answer.device_id}: source {answer.source}, status {answer.status:#x}"
        yield {"at_s": answer.at_s, "witness": "ospm", "what": what}
    for observed in step.records:
        yield {
            "at_s": observed.written_at_s,
            "witness": "driver",
            "what": observed.record.line,
            "seen_after_s": round(observed.seen_at_s - observed.written_at_s, 6),
            "error_s": round(observed.clock_error_s, 6),
        }
