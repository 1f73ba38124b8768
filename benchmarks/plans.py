# SPDX-License-Identifier: MIT
"""Where the time of a plan goes: by phase, by step, by the number of DIMMs, and for many plans at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.figures import Figure, median_of, ratio_of
from benchmarks.workplace import ONE_VCPU_ONE_DIMM, TimedRun, Workplace
from harness.deadline import Deadline
from harness.errors import BenchError
from harness.evidence.witness import StepEvidence
from harness.plan.plan import Plan

RUNS, STEP_RUNS, TURNS, ANSWERS = 9, 7, 3, 20
PLANS_AT_ONCE, AT_ONCE = 8, (1, 2, 4)
MANY_WITHIN_S = 300.0

#: Seven single plugs: all that the default VM has room for.
SINGLE_PLUGS = """
steps:
  - plug: {vcpus: 1}
    expect: {driver: [processor]}
    repeat: 3
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
    repeat: 4
"""

#: Linux keeps 2 MiB of its boot memory for each DIMM of 128 MiB.
MANY_DIMMS = """
vm: {{memory: 2 GiB, slots: 256, max_memory: 36 GiB}}
steps:
  - plug: {{dimms: [128 MiB]}}
    expect: {{driver: [memory]}}
    repeat: {count}
"""
DIMMS = 256
COUNTS = (1, 16, 64, 256)
#: The cost at a count is the median of the steps around it, for single ones vary.
WINDOW = 8


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step of a plan that plugs one device.

    :ivar guest_s: from the plug to the record being written, by the guest's clock; QEMU's part is within.
    :ivar overhead_s: from then to the verdict; not known of the last step.
    :ivar before_s: from the verdict on the step before to the plug.
    """

    kind: str
    guest_s: float
    before_s: float
    overhead_s: float | None


def full_plan(place: Workplace) -> list[Figure]:
    """Time a plan of one vCPU and one DIMM, and its phases."""
    plan = place.plan(ONE_VCPU_ONE_DIMM)
    settle_s = place.bench(plan).profile.deadlines.settle_s
    runs = [place.run(plan) for _ in place.times(RUNS)]
    total = median_of("one vCPU, one DIMM", (run.verdict.duration_s for run in runs)).at_most(3)
    phases = [_phases(run, settle_s) for run in runs]
    return [total, *(median_of(f"  {name}", (phase[name] for phase in phases)) for name in phases[0])]


def steps(place: Workplace) -> list[Figure]:
    """Time single plugs: the guest's part, and what the harness adds."""
    plan = place.plan(SINGLE_PLUGS)
    times = [time for _ in place.times(STEP_RUNS) for time in step_times(place.run(plan))]
    plug = [
        median_of(f"{kind}, plug to record", (time.guest_s for time in times if time.kind == kind))
        for kind in ("vcpu", "dimm")
    ]
    overhead = median_of(
        "record to verdict", (time.overhead_s * 1000 for time in times if time.overhead_s is not None), "ms"
    )
    answer = median_of("of it the guest's: the probe's answer", _probe_answers_ms(place, plan), "ms")
    beyond = Figure(name="beyond that", value=overhead.value - answer.value, unit="ms")
    return [
        *plug,
        overhead,
        answer,
        beyond.at_most(50),
        median_of("verdict to next plug", (time.before_s * 1000 for time in times), "ms"),
    ]


def dimms(place: Workplace) -> list[Figure]:
    """Time steps by the number of DIMMs plugged: the harness's part must stay flat."""
    count = 2 if place.quick else DIMMS
    plan = place.plan(MANY_DIMMS.format(count=count), name="many-dimms")
    times = step_times(place.run(plan))
    costs: dict[int, Figure] = {}
    guest = []
    for number in (number for number in COUNTS if number <= count):
        around = times[max(0, number - WINDOW) : number]
        harness_ms = [1000 * (time.before_s + time.overhead_s) for time in around if time.overhead_s]
        costs[number] = median_of(f"harness's part, DIMM {number}", harness_ms, "ms")
        guest.append(
            median_of(f"guest's part, DIMM {number}", (1000 * time.guest_s for time in around), "ms")
        )
    figures = [*costs.values(), *guest]
    if COUNTS[-1] in costs:
        figures.append(ratio_of("harness's part, DIMM 256 / 16", costs[256], costs[16]).at_most(1.5))
    return figures


def throughput(place: Workplace) -> list[Figure]:
    """Run copies of a plan, 1, 2 and 4 at once, as a user does; in turns, for hosts change their speed."""
    place.plan(ONE_VCPU_ONE_DIMM)
    folder = place.new_folder()
    for number in range(2 if place.quick else PLANS_AT_ONCE):
        (folder / f"plan-{number}.yaml").write_text(ONE_VCPU_ONE_DIMM)
    turns = [
        {workers: _plans_per_minute(place, folder, workers) for workers in AT_ONCE}
        for _ in place.times(TURNS)
    ]
    rates = [
        median_of(f"-n {workers}", (turn[workers] for turn in turns), "plans/minute") for workers in AT_ONCE
    ]
    two, four = (
        median_of(f"-n {workers} / -n 1", (turn[workers] / turn[1] for turn in turns), "x")
        for workers in (2, 4)
    )
    return [*rates, two.at_least(1.7), four]


def _plans_per_minute(place: Workplace, folder: Path, workers: int) -> float:
    results = place.new_folder() / "results"
    command = [sys.executable, "-m", "harness", "run", str(folder), "-n", str(workers)]
    done = subprocess.run(
        [*command, "--results", str(results)],
        capture_output=True,
        text=True,
        check=False,
        timeout=MANY_WITHIN_S,
        env=os.environ,
    )
    if done.returncode != 0:
        raise BenchError(f"hil run -n {workers} ended with {done.returncode}: {done.stderr[-300:]}")
    verdicts = [json.loads(path.read_text()) for path in results.glob("*/verdict.json")]
    began_s = min(verdict["started_s"] for verdict in verdicts)
    ended_s = max(verdict["started_s"] + verdict["duration_s"] for verdict in verdicts)
    return 60 * len(verdicts) / float(ended_s - began_s)


def _probe_answers_ms(place: Workplace, plan: Plan) -> list[float]:
    """Return how long the probe takes to answer in an idle guest that has answered before."""
    deadline = Deadline.after(MANY_WITHIN_S)
    with place.open(plan) as guest:
        samples = [guest.probe.sample(deadline=deadline) for _ in range(5 + ANSWERS)][5:]
    return [1000 * (sample.host_after_s - sample.host_before_s) for sample in samples]


def step_times(run: TimedRun) -> list[StepTime]:
    """Take the steps of a run apart; each must plug one device and expect its one record."""
    return list(_step_times(run.verdict.steps, run.step_began_s))


def _step_times(evidence: tuple[StepEvidence, ...], began_s: tuple[float, ...]) -> Iterator[StepTime]:
    ends: list[float | None] = [*(end for _, end in pairwise(began_s)), None]
    for step, began, end in zip(evidence, began_s, ends, strict=True):
        [device] = step.devices
        [observed] = step.records
        yield StepTime(
            kind=device.kind,
            guest_s=observed.written_at_s - step.acted_at_s,
            before_s=step.acted_at_s - began,
            overhead_s=None if end is None else end - observed.written_at_s,
        )


def _phases(run: TimedRun, settle_s: float) -> dict[str, float]:
    resumed_s = run.qmp_at_s("cont")
    quit_s = run.qmp_at_s("quit")
    began_s, steps = run.verdict.started_s, run.verdict.steps
    written_s = [step.records[-1].written_at_s for step in steps]
    plugging_s = sum(at - step.acted_at_s for at, step in zip(written_s, steps, strict=True))
    return {
        "fork: QEMU started, state restored": resumed_s - began_s,
        "SSH, probe, log, clock": run.step_began_s[0] - resumed_s,
        "plug to record, both": plugging_s,
        "evidence and verdicts": quit_s - run.step_began_s[0] - plugging_s - settle_s,
        "settling, as the profile asks": settle_s,
        "teardown": run.verdict.started_s + run.verdict.duration_s - quit_s,
    }
