# SPDX-License-Identifier: MIT
"""Evidence of real runs on the reference guest, kept for tests to break one thing at a time.

``python -m tests.words.captured RESULTS`` writes it anew from a results folder of ``hil run``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.evidence.driver_rules import DriverRules
from harness.evidence.record import LogParser
from harness.evidence.witness import ObservedRecord, StepEvidence, Witness
from harness.guest.profile import find_profile
from harness.plan.fit import driver_rules, required_witnesses
from harness.plan.plan import load_plan
from tests.words.perfect_run import SYS, TESTPLANS, Evidence

FOLDER = Path(__file__).parent / "evidence"


@dataclass(frozen=True)
class _Captured:
    required: tuple[Witness, ...]
    links: dict[str, str]
    driver: DriverRules
    earlier: tuple[ObservedRecord, ...]
    steps: tuple[StepEvidence, ...]


def captured_run(path: Path) -> Evidence:
    """Read the evidence of one plan."""
    kept = json.loads(path.read_text())
    for observed in [*kept["earlier"], *(one for step in kept["steps"] for one in step["records"])]:
        observed["record"] = _record(observed["record"])
    read = TypeAdapter(_Captured).validate_python(kept)
    return Evidence(read.required, read.links, read.driver, list(read.steps), list(read.earlier))


def capture(results: Path, folder: Path) -> None:
    """Keep the evidence of every plan that passed."""
    for path in sorted(results.glob("*/verdict.json")):
        verdict = json.loads(path.read_text())
        if verdict["outcome"] != "passed":
            continue
        plan = load_plan(path.with_name("plan.yaml"))
        profile = find_profile(plan.guest, TESTPLANS / "guests")
        kept = {
            "required": required_witnesses(plan, profile),
            "links": profile.link_patterns,
            "driver": TypeAdapter(DriverRules).dump_python(driver_rules(plan, profile, file=SYS)),
            "earlier": [_short(observed) for observed in verdict["earlier"]],
            "steps": [
                {**step, "records": [_short(observed) for observed in step["records"]]}
                for step in verdict["steps"]
            ],
        }
        (folder / f"{verdict['plan']}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")


def _short(observed: dict[str, Any]) -> dict[str, Any]:
    return {**observed, "record": observed["record"]["line"]}


def _record(line: str) -> Any:
    (record,) = LogParser().feed(f"{line}\n".encode())
    return record


if __name__ == "__main__":
    capture(Path(sys.argv[1]), FOLDER)
