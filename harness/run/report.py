# SPDX-License-Identifier: MIT
"""Say what became of a plan: to people in a few lines, to machines as JSON, and on one timeline."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.document.printable import printable
from harness.evidence.clock_order import clocks_that_disagree
from harness.evidence.verdict import Verdict
from harness.evidence.witness import WITNESSES, StepBegun
from harness.run.results_folder import RESULTS_FILE

VERDICT_FILE = "verdict.json"
TIMELINE_FILE = "timeline.jsonl"
NOT_RUN = "not run"
LONGEST_FAILURE_LINES = 25
_MOST_MISMATCHES = 5
_SAYS_NOTHING = "error     the bench broke: this says nothing about the driver"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """What became of one plan of a run, also if there is no verdict.

    :ivar name: what people know it by, which no other plan of the run has: see :func:`names_of`.
    :ivar path: its file, from the folder that the run was started in if it lies there.
    :ivar error: why there is no verdict; None if there is one, or if the plan was never begun.
    """

    name: str
    path: str
    verdict: Verdict | None = None
    error: str | None = None

    @property
    def outcome(self) -> str:
        """That of the verdict, or ``error``, or ``not run``."""
        if self.verdict is not None:
            return self.verdict.outcome
        return NOT_RUN if self.error is None else "error"


def names_of(paths: Sequence[str]) -> list[str]:
    """Return a name for each run of a plan's file: its stem, or all of the path if two would be called so.

    From the second run of a file on, its number follows.
    """
    counts = Counter(Path(path).stem for path in dict.fromkeys(paths))
    names, runs = [], Counter[str]()
    for path in paths:
        runs[path] += 1
        name = Path(path).stem if counts[Path(path).stem] == 1 else path
        names.append(name if runs[path] == 1 else f"{name} (run {runs[path]})")
    return names


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


def failure_lines(verdict: Verdict, *, name: str | None = None) -> list[str]:
    """Return why a plan did not pass, for people, in at most 25 lines: the first broken layer first.

    :param name: what people know the plan by, if not the name in the verdict.
    """
    lines = [
        f"{name or verdict.plan} {verdict.outcome}: {reason(verdict)}",
        f"setting   {verdict.setting}",
    ]
    if verdict.error is not None:
        lines += [_SAYS_NOTHING, _where_it_broke(verdict)]
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
    return [printable(line) for line in [*lines, f"evidence  {verdict.evidence}"]]


def why_not_passed(result: PlanResult) -> list[str]:
    """Return why a plan did not pass, as :func:`failure_lines`, also if there is no verdict."""
    if result.verdict is not None:
        return failure_lines(result.verdict, name=result.name)
    if result.error is None:
        return [printable(f"{result.name} was not run: the run ended before")]
    return [
        printable(f"error     {result.error}"),
        "          the bench broke: this says nothing about the driver",
        printable(f"plan      {result.path}"),
    ]


def reason(verdict: Verdict) -> str:
    """Return why a plan did not pass, in one line; empty for one that did."""
    if verdict.skipped is not None:
        return verdict.skipped
    if verdict.error is not None:
        return verdict.error
    if verdict.mismatches:
        first = verdict.mismatches[0]
        return f"{first.witness}, step {first.step}: {first.what}"
    return ""


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


def write_results(results: Sequence[PlanResult], *, folder: Path, began_at: datetime) -> None:
    """Write ``results.json``: when and where, what became of every plan, and the latencies."""
    verdicts = [result.verdict for result in results if result.verdict is not None]
    rows = [row_of(result, folder) for result in results]
    write_rows(rows, took_s=plug_to_record_s(verdicts), folder=folder, began_at=began_at)


def write_rows(
    rows: Sequence[dict[str, Any]], *, took_s: dict[str, list[float]], folder: Path, began_at: datetime
) -> None:
    """Write ``results.json`` from what :func:`row_of` and :func:`plug_to_record_s` returned.

    Whoever reads the file finds it whole.

    :raise OSError: it cannot be written.
    """
    document = {
        "date": began_at.isoformat(),
        "host": platform.node(),
        "plans": rows,
        "plug_to_record_s": took_s,
    }
    replace_file(folder / RESULTS_FILE, json.dumps(document, indent=1) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Write a file that nobody finds half-written.

    :raise OSError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, "utf-8")
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def row_of(result: PlanResult, folder: Path) -> dict[str, Any]:
    """Return a plan's entry in ``results.json``, of nothing but dicts, lists, texts and numbers."""
    row: dict[str, Any] = {"plan": result.name, "path": result.path, "outcome": result.outcome}
    verdict = result.verdict
    if verdict is None:
        return {
            **row,
            **{"error": result.error, "skipped": None, "mismatches": [], "duration_s": 0.0, "setting": None},
            **{"evidence": None, "worker": None, "lost_workers": []},
        }
    return {
        **row,
        "error": verdict.error,
        "skipped": verdict.skipped,
        "mismatches": [asdict(mismatch) for mismatch in verdict.mismatches],
        "duration_s": round(verdict.duration_s, 3),
        "setting": asdict(verdict.setting),
        "evidence": str(verdict.evidence.relative_to(folder)),
        "worker": verdict.worker,
        "lost_workers": list(verdict.lost_workers),
    }


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
    for announced in step.announced:
        one = announced.announcement
        what = f"announce {one.interface_class} {one.event}, without hardware: {announced.link}"
        yield {"at_s": announced.at_s, "witness": "harness", "what": what}
    if step.answered is not None:
        said = "answered" if step.answered.refused is None else f"refused: {step.answered.refused}"
        what = f"{step.answered.command} {said}"
        yield {"at_s": step.answered.at_s, "witness": "vm", "what": what}
    for incident in step.incidents:
        what = f"{incident.what} ({incident.details})"
        yield {"at_s": incident.at_s, "witness": "guest", "what": what}
    for answer in step.ospm:
        what = f"_OST of {answer.device_id}: source {answer.source}, status {answer.status:#x}"
        yield {"at_s": answer.at_s, "witness": "ospm", "what": what}
    for act in step.aml or ():
        what = f"{act.slot_type} {act.slot}: {act.what} by the guest's ACPI (AML)"
        yield {"at_s": act.at_s, "witness": "ospm", "what": what, "error_s": round(act.error_s, 6)}
    for what in clocks_that_disagree(step):
        yield {"at_s": step.acted_at_s, "witness": "harness", "what": what}
    for told in step.told or ():
        what = f"a program was told of a {told.interface_class} {told.event}: {told.link}"
        yield {"at_s": told.at_s, "witness": "guest", "what": what, "error_s": round(told.error_s, 6)}
    for observed in step.records:
        yield {
            "at_s": observed.written_at_s,
            "witness": "driver",
            "what": observed.record.line,
            "seen_after_s": round(observed.seen_at_s - observed.written_at_s, 6),
            "error_s": round(observed.clock_error_s, 6),
        }
