# SPDX-License-Identifier: MIT
"""What a person waits for: commands from their start to their end, all that Python has to load within."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Figure, median_of
from benchmarks.workplace import ONE_VCPU_ONE_DIMM, Workplace
from harness.errors import BenchError

CHECKS, RUNS = 15, 7
COMMAND_WITHIN_S = 120.0


def commands(place: Workplace) -> list[Figure]:
    """Time ``hil check`` and ``hil run`` on a plan of one vCPU and one DIMM, in turns with nothing else."""
    plan = place.plan(ONE_VCPU_ONE_DIMM).source
    _run_s(plan, place.new_folder())  # warms the caches of the host, and of the harness
    checks = median_of("hil check, whole command", (_command_s("check", plan) for _ in place.times(CHECKS)))
    whole, own = [], []
    for _ in place.times(RUNS):
        folder = place.new_folder()
        whole.append(_run_s(plan, folder))
        own.append(json.loads((folder / plan.stem / "verdict.json").read_text())["duration_s"])
    return [
        checks,
        median_of("one plan, whole command, warm cache", whole),
        median_of("of it the plan, as in the figures of `plan`", own),
    ]


def _run_s(plan: Path, results: Path) -> float:
    return _command_s("run", plan, "--results", results)


def _command_s(*words: str | Path) -> float:
    """Return the seconds from starting a command of ``hil`` to its end.

    :raise BenchError: it did not end well.
    """
    command = [sys.executable, "-m", "harness", *map(str, words)]
    began_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_WITHIN_S)
    took_s = time.monotonic() - began_s
    if done.returncode != 0:
        raise BenchError(f"hil {words[0]} ended with {done.returncode}: {done.stderr[-300:]}")
    return took_s
