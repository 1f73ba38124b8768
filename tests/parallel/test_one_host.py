# SPDX-License-Identifier: MIT
"""Many plans at once on this host, as a person runs them: nothing but the time differs from one at a time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.deadline import Deadline
from harness.host.budget import plans_at_once
from tests.e2e.test_command_line import HIL, LONG, PASSING, RUN_WITHIN_S, call, qemu_pids, write_plan

FAILING = "within: 10 s\nsteps: [{plug: {dimms: [128 MiB]}, expect: {driver: [processor]}}]\n"
TOO_LARGE = f"vm: {{memory: 64 TiB, max_memory: 65 TiB}}\n{PASSING}"


def results_of(folder: Path) -> list[dict[str, Any]]:
    """Return the plans of ``results.json``."""
    plans: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())["plans"]
    return plans


def verdict_of(folder: Path) -> dict[str, Any]:
    """Return a plan's ``verdict.json``."""
    verdict: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return verdict


def most_at_once(verdicts: list[dict[str, Any]]) -> int:
    """Return how many of the plans ran at the same time."""
    changes = sorted(
        change
        for verdict in verdicts
        for change in ((verdict["started_s"], 1), (verdict["started_s"] + verdict["duration_s"], -1))
    )
    running = most = 0
    for _at_s, change in changes:
        running += change
        most = max(most, running)
    return most


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    folder = tmp_path / "testplans"
    folder.mkdir()
    for name, text in (("a", FAILING), ("b", PASSING), ("c", PASSING), ("d", PASSING)):
        write_plan(folder, f"{name}.yaml", text)
    return folder


def test_results_order_and_evidence_are_those_of_one_at_a_time(plans: Path, tmp_path: Path) -> None:
    runs = {}
    for workers in ("1", "2", "auto"):
        done = call(*HIL, "run", plans, "-n", workers, "-r", workers, cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        folder = tmp_path / workers
        verdicts = [verdict_of(folder / plan["plan"]) for plan in results_of(folder)]
        runs[workers] = {
            "results": [(plan["plan"], plan["outcome"], plan["evidence"]) for plan in results_of(folder)],
            "judged": [
                [(mismatch["witness"], mismatch["what"]) for mismatch in verdict["mismatches"]]
                for verdict in verdicts
            ],
            # Whoever comes first may have to build the template.
            "files": sorted(
                str(path.relative_to(folder)) for path in folder.glob("[a-d]/*") if path.name != "template"
            ),
            "items": [line.split()[:2] for line in done.stdout.splitlines() if "%]" in line],
        }
        limit = plans_at_once() if workers == "auto" else int(workers)
        assert most_at_once(verdicts) == min(limit, len(verdicts))
    assert [name for name, _, _ in runs["1"]["results"]] == ["a", "b", "c", "d"]
    assert runs["1"] == runs["2"] == runs["auto"]


def test_ctrl_c_ends_every_vm_and_reports_what_finished(tmp_path: Path) -> None:
    folder = tmp_path / "testplans"
    folder.mkdir()
    for name, text in (("a-short", PASSING), ("b-long", LONG), ("c-long", LONG), ("d-waits", PASSING)):
        write_plan(folder, f"{name}.yaml", text)
    results = tmp_path / "out"
    argv = [sys.executable, "-m", "pytest", folder, "--hil-workers", "2", "--hil-results", results]
    with subprocess.Popen(
        [*map(os.fspath, argv)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        await_plug(results / "c-long/qmp.jsonl")
        await_plug(results / "b-long/qmp.jsonl")
        pids = qemu_pids(results)
        assert len(pids) == 2
        process.send_signal(signal.SIGINT)
        interrupted = Deadline.after(10)
        output, _ = process.communicate(timeout=60)
        assert not interrupted.expired()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert qemu_pids(results) == []
    assert [(plan["plan"], plan["outcome"], plan["error"]) for plan in results_of(results)] == [
        ("a-short", "passed", None),
        ("b-long", "error", "interrupted"),
        ("c-long", "error", "interrupted"),
        ("d-waits", "not run", None),
    ]
    for name in ("b-long", "c-long"):
        verdict = verdict_of(results / name)
        assert (verdict["outcome"], verdict["error"]) == ("error", "interrupted")
    assert not (results / "d-waits").exists()
    assert "1 not run" in output
    assert "1 passed, 2 error" in output


def await_plug(log: Path) -> None:
    """Wait until a guest has answered a plug."""
    deadline = Deadline.after(RUN_WITHIN_S)
    while not (log.exists() and "ACPI_DEVICE_OST" in log.read_text()):
        deadline.check(f"a plug in {log}")
        select.select([], [], [], 0.05)


def test_a_plan_too_large_for_the_host_is_an_error_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "testplans"
    folder.mkdir()
    write_plan(folder, "big.yaml", TOO_LARGE)
    write_plan(folder, "good.yaml", PASSING)
    done = call(*HIL, "run", folder, "-n", "auto", "-r", "out", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "big is too large for this host: it needs memory of" in done.stdout
    assert "1 passed, 1 error" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    plans = [(plan["plan"], plan["outcome"]) for plan in results_of(tmp_path / "out")]
    assert plans == [("big", "error"), ("good", "passed")]


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_plans_that_is_none_is_wrong_usage(workers: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "plan.yaml", PASSING)
    done = call(*HIL, "run", plan, f"--workers={workers}", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = call(sys.executable, "-m", "pytest", plan, f"--hil-workers={workers}", cwd=tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert not (tmp_path / "results").exists()


def test_the_time_of_a_plan_in_junit_is_its_own(plans: Path, tmp_path: Path) -> None:
    call(*HIL, "run", plans / "b.yaml", plans / "c.yaml", "-n", "2", "-r", "out", cwd=tmp_path)
    cases = ElementTree.parse(tmp_path / "out/junit.xml").iter("testcase")
    times = [float(case.get("time", "nan")) for case in cases]
    durations = [plan["duration_s"] for plan in results_of(tmp_path / "out")]
    for time_s, duration_s in zip(times, durations, strict=True):
        assert duration_s - 0.01 <= time_s < duration_s + 1
