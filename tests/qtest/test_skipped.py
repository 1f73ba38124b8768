# SPDX-License-Identifier: MIT
"""A plan that its guest cannot do is skipped with the reason, everywhere; skipping everything is no pass."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from subprocess import CompletedProcess
from subprocess import run as run_program
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PASSES = "guest: qtest\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]\n"
FAILS = "guest: qtest\nacpi: [panic]\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]\n"
SKIPPED = "guest: qtest\nsteps: [{driver: stop, expect: {driver: [unload]}}]\n"
REASON = "step 1 (driver stop) needs a guest that can do driver; qtest cannot"


def call(*arguments: str, cwd: Path) -> CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    # The harness that is tested, wherever another is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run_program(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def hil_run(folder: Path, *texts: str) -> CompletedProcess[str]:
    """Run plans with ``hil run``; results go to ``out``."""
    for number, text in enumerate(texts):
        (folder / f"plan{number}.yaml").write_text(text)
    plans = [f"plan{number}.yaml" for number in range(len(texts))]
    return call("harness", "run", *plans, "--results", "out", cwd=folder)


def test_alone_it_is_no_pass(tmp_path: Path) -> None:
    done = hil_run(tmp_path, SKIPPED)
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.search(rf"^plan0 +skipped +\d+\.\d +{re.escape(REASON)}$", done.stdout, re.MULTILINE)
    assert "1 skipped" in done.stdout
    verdict = json.loads((tmp_path / "out/plan0/verdict.json").read_text())
    assert (verdict["outcome"], verdict["skipped"], verdict["error"]) == ("skipped", REASON, None)


def test_beside_one_that_passes_it_is_none_of_the_matter(tmp_path: Path) -> None:
    done = hil_run(tmp_path, PASSES, SKIPPED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    plans = json.loads((tmp_path / "out/results.json").read_text())["plans"]
    assert [(plan["outcome"], plan["skipped"]) for plan in plans] == [("passed", None), ("skipped", REASON)]
    cases = {
        case.get("name"): case for case in ElementTree.parse(tmp_path / "out/junit.xml").iter("testcase")
    }
    assert [child.tag for child in cases["plan0"]] == ["properties"]
    (skipped,) = cases["plan1"].iter("skipped")
    assert skipped.get("message") == REASON
    properties = {item.get("name"): item.get("value") for item in cases["plan1"].iter("property")}
    assert properties["guest"] == "qtest"


def test_one_that_fails_still_does(tmp_path: Path) -> None:
    assert hil_run(tmp_path, FAILS, SKIPPED).returncode == 1


def test_pytest_tells_the_reason_and_the_place_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(SKIPPED)
    done = call("pytest", "-rs", "-p", "no:cacheprovider", "plan.yaml", cwd=tmp_path)
    assert "1 skipped" in done.stdout, done.stdout + done.stderr
    assert f"SKIPPED [1] plan.yaml:1: {REASON}" in done.stdout
