# SPDX-License-Identifier: MIT
"""The default plans, as ``hil run`` runs them, on an old and a new QEMU: all pass, and it is shown why."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.host.tools import find_tool
from harness.plan.plan import load_plan
from harness.vm.accelerator import find_qemu_version

ROOT = Path(__file__).resolve().parent.parent.parent
PLANS = sorted((ROOT / "testplans").glob("*.yaml"))
RUN_WITHIN_S = 1200


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, qemu: str) -> Path:
    """One run of all default plans."""
    folder = tmp_path_factory.mktemp("default") / "results"
    argv = [sys.executable, "-m", "harness", "run", "--qemu", qemu, "-n", "2", "--results", str(folder)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=RUN_WITHIN_S)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"  # the summary last: CI shows the end
    return folder


def test_all_plans_passed(results: Path) -> None:
    plans = json.loads((results / "results.json").read_text())["plans"]
    assert {plan["plan"]: plan["outcome"] for plan in plans} == {path.stem: "passed" for path in PLANS}


def test_they_ran_on_the_qemu_asked_for(results: Path, qemu: str) -> None:
    version = ".".join(map(str, find_qemu_version(qemu)))
    for path in PLANS:
        verdict = json.loads((results / path.stem / "verdict.json").read_text())
        command = shlex.split((results / path.stem / "qemu-command.txt").read_text())
        assert (verdict["setting"]["qemu_version"], command[0]) == (version, find_tool(qemu))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_evidence_is_that_of_real_plugs(results: Path, path: Path) -> None:
    plan = load_plan(path)
    folder = results / plan.name
    verdict = json.loads((folder / "verdict.json").read_text())
    assert len(verdict["steps"]) == len(plan.unrolled())
    sent = [line for line in (folder / "qmp.jsonl").read_text().splitlines() if '"device_add"' in line]
    devices = [device for step in verdict["steps"] for device in step["devices"]]
    answered = [step["answered"]["command"] for step in verdict["steps"] if step["answered"]]
    assert len(sent) == len(devices) + answered.count("device_add")
    for planned, step in zip(plan.unrolled(), verdict["steps"], strict=True):
        ids = {device["device_id"] for device in step["devices"]}
        assert ids <= {*step["vm_after"]["vcpu_ids"], *step["vm_after"]["dimm_bytes"]}
        assert ids <= {answer["device_id"] for answer in step["ospm"]}
        assert len(step["records"]) == len(planned.expect.driver)
    log = (folder / "driver.log").read_text()
    for record in _records(verdict):
        assert record["line"] in log


def test_registration_for_one_class_leaves_the_other_without_a_record(results: Path) -> None:
    for kept, dropped in (("processor", "memory"), ("memory", "processor")):
        log = (results / f"{kept}-only/driver.log").read_text()
        assert f"class={kept}" in log
        assert f"class={dropped}" not in log
        assert f"interfaces={kept}" in log


def test_the_timeline_is_in_order_and_inside_the_plan(results: Path) -> None:
    verdict = json.loads((results / "interleaved/verdict.json").read_text())
    lines = (results / "interleaved/timeline.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    times = [entry["at_s"] for entry in entries]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < verdict["duration_s"]
    assert {entry["witness"] for entry in entries} == {"harness", "vm", "ospm", "guest", "driver"}
    for step in verdict["steps"]:
        for observed in step["records"]:
            error_s = observed["clock_error_s"]
            assert step["acted_at_s"] - error_s <= observed["written_at_s"]
            assert observed["written_at_s"] <= observed["seen_at_s"] + error_s


def _records(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    return [observed["record"] for step in verdict["steps"] for observed in step["records"]]
