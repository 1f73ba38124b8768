# SPDX-License-Identifier: MIT
"""Plans under pytest plugins that people have: pytest-xdist, pytest-rerunfailures and pytest-timeout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.test_command_line import call, qemu_pids
from tests.e2e.test_ending import FAILS, LONG, PASSES, PYTEST, outcomes_of, write

SLOW = (
    "guest: qtest\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}, {pause: 60 s, expect: {driver: []}}]\n"
)
TABLE = re.compile(r"^(\S+(?: \(run \d\))?) +(passed|failed|error|skipped|not run) ", re.MULTILINE)


def boots_of(results: Path) -> dict[str, str]:
    """Return when each evidence folder's VM was started."""
    return {
        file.parent.name: json.loads(file.read_text())["began_at"] for file in results.glob("*/boot.json")
    }


@pytest.mark.parametrize("workers", [[], ["-n", "2"], ["--hil-workers", "2"]], ids=["alone", "xdist", "two"])
def test_each_rerun_is_a_run_of_its_own_and_all_are_reported(tmp_path: Path, workers: list[str]) -> None:
    write(tmp_path / "testplans", a=PASSES, b=FAILS, c=PASSES)
    done = call(*PYTEST, "testplans", "--reruns", "2", *workers, "--hil-results", "out", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed, 2 rerun" in done.stdout
    expected = [
        ("a", "passed"), ("b", "failed"), ("b (run 2)", "failed"), ("b (run 3)", "failed"), ("c", "passed"),
    ]  # fmt: skip
    assert outcomes_of(tmp_path / "out") == expected
    assert TABLE.findall(done.stdout) == expected
    boots = boots_of(tmp_path / "out")
    assert boots.keys() == {"a", "b", "b-2", "b-3", "c"}
    assert len({boots[name] for name in ("b", "b-2", "b-3")}) == 3
    assert "b (run 3) failed: " in done.stdout
    assert f"evidence  {tmp_path}/out/b-3" in done.stdout


def test_one_that_passes_the_second_time_is_no_secret(tmp_path: Path) -> None:
    write(tmp_path / "testplans", a=FAILS)
    (tmp_path / "conftest.py").write_text(
        """
import pathlib, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    # The guest's script is what makes the plan fail; the driver of a flaky bench is mended in the same way.
    if item.execution_count == 2:
        item.plan = item.plan.model_copy(update={"acpi": None})
"""
    )
    done = call(*PYTEST, "testplans", "--reruns", "1", "--hil-results", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes_of(tmp_path / "out") == [("a", "failed"), ("a (run 2)", "passed")]
    assert TABLE.findall(done.stdout) == [("a", "failed"), ("a (run 2)", "passed")]


@pytest.mark.parametrize("workers", [[], ["-n", "2"], ["--hil-workers", "2"]], ids=["alone", "xdist", "two"])
def test_a_plan_that_takes_too_long_ends_with_its_vm_and_the_others_go_on(
    tmp_path: Path, workers: list[str]
) -> None:
    write(tmp_path / "testplans", a=PASSES, b=SLOW, c=PASSES)
    options = ["--timeout", "10", *workers, "--hil-results", "out"]
    done = call(*PYTEST, "testplans", *options, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 passed, 1 error" in done.stdout
    expected = [("a", "passed"), ("b", "error"), ("c", "passed")]
    assert outcomes_of(tmp_path / "out") == expected
    _, _, after = done.stdout.partition("ERROR at setup of b")
    assert re.search(
        r"^Timeout \(>10\.0s\) from pytest-timeout\.\nb error: interrupted$", after, re.MULTILINE
    )
    log = (tmp_path / "out/b/qmp.jsonl").read_text()
    assert log, "what was seen is kept"
    assert qemu_pids(tmp_path / "out") == []
    assert "threading.py" not in after, "nobody wants to read where the harness waited"


def test_a_plan_that_takes_too_long_may_be_run_again(tmp_path: Path) -> None:
    write(tmp_path / "testplans", a=LONG.replace("60 s", "10 s"))
    options = ["--timeout", "5", "--reruns", "1", "--hil-results", "out"]
    done = call(*PYTEST, "testplans", *options, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    # pytest-timeout has one time for all reruns.
    assert outcomes_of(tmp_path / "out") == [("a", "error"), ("a (run 2)", "failed")]
    assert qemu_pids(tmp_path / "out") == []


def test_a_process_that_pytest_timeout_ends_takes_its_vm_along(tmp_path: Path) -> None:
    write(tmp_path / "testplans", a=LONG)
    options = ["--timeout", "5", "--timeout-method", "thread", "--hil-results", "out"]
    done = call(*PYTEST, "testplans", *options, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert qemu_pids(tmp_path / "out") == []
