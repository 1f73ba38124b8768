# SPDX-License-Identifier: MIT
"""``hil`` and ``pytest`` as a person runs them: exit status, what they read, what is left behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.deadline import Deadline
from harness.run.report import LONGEST_FAILURE_LINES

ROOT = Path(__file__).resolve().parent.parent.parent
HIL = [sys.executable, "-m", "harness"]
RUN_WITHIN_S = 300

PASSING = "steps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}]\n"
FAILING = "steps: [{plug: {dimms: [128 MiB]}, expect: {driver: []}}]\n"
LONG = "within: 60 s\nsteps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory, memory]}}]\n"


def call(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*map(str, argv)], cwd=cwd, capture_output=True, text=True, check=False, timeout=RUN_WITHIN_S
    )


def write_plan(folder: Path, name: str, text: str) -> Path:
    """Write a plan and return its path."""
    path = folder / name
    path.write_text(text)
    return path


def qemu_pids(results: Path) -> list[int]:
    """Return the QEMU processes that log to the results folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu-system" in words.partition(b"\0")[0] and os.fsencode(results) in words:
            found.append(int(process.name))
    return found


class TestOutcomes:
    def test_a_plan_that_passes(self, tmp_path: Path) -> None:
        plan = write_plan(tmp_path, "good.yaml", PASSING)
        done = call(*HIL, "run", plan, "--results", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"^good +passed +\d+\.\d +dimm \d\.\d\d s$", done.stdout, re.MULTILINE)
        properties = {
            item.get("name"): item.get("value")
            for item in ElementTree.parse(tmp_path / "out/junit.xml").iter("property")
        }
        assert properties["guest"] == "reference"
        assert (properties["accelerator"], properties["tcg_thread"]) in (("tcg", "single"), ("kvm", "None"))
        assert re.fullmatch(r"\d+\.\d+\.\d+", properties["qemu_version"] or "")
        assert re.fullmatch(r"[0-9a-f]{64}", properties["driver_sha256"] or "")
        (plan_result,) = json.loads((tmp_path / "out/results.json").read_text())["plans"]
        assert plan_result["outcome"] == "passed"

    def test_a_plan_that_fails_beats_one_that_errs(self, tmp_path: Path) -> None:
        write_plan(tmp_path, "bad.yaml", FAILING)
        # QEMU has no machine with so many vCPUs; the guest profile made for this test does not know.
        write_plan(tmp_path, "broken.yaml", f"guest: boundless\nvm: {{max_vcpus: 5000}}\n{PASSING}")
        guests = tmp_path / "guests"
        guests.mkdir()
        profile = (ROOT / "testplans/guests/reference.yaml").read_text()
        (guests / "reference.yaml").write_text(profile)
        (guests / "boundless.yaml").write_text(profile.replace("max_vcpus: 64", "max_vcpus: 5000"))
        folder = tmp_path / "testplans"
        folder.mkdir()
        for name in ("bad.yaml", "broken.yaml", "guests"):
            (tmp_path / name).rename(folder / name)

        done = call(sys.executable, "-m", "pytest", folder, "--hil-results", tmp_path / "out", cwd=tmp_path)
        assert done.returncode == 1, done.stdout
        assert "1 failed, 1 error" in done.stdout
        assert "Traceback" not in done.stdout
        assert "Invalid SMP CPUs 5000" in done.stdout
        assert "this says nothing about the driver" in done.stdout
        _, _, after = done.stdout.partition("bad failed: driver, step 1: 1 record too many")
        explanation, _, _ = after.partition("evidence  ")
        assert "blame     driver" in explanation
        assert "expected no record" in explanation
        assert "seen     memory" in explanation
        assert len(explanation.splitlines()) < LONGEST_FAILURE_LINES

        done = call(*HIL, "run", folder / "bad.yaml", "-r", "again", cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        done = call(*HIL, "run", folder / "broken.yaml", "-r", "third", cwd=tmp_path)
        assert done.returncode == 3, done.stdout + done.stderr


class TestLoading:
    def test_pytest_plugins_of_others_have_no_part_in_a_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other"
        (other / "other-1.0.dist-info").mkdir(parents=True)
        (other / "other-1.0.dist-info/METADATA").write_text("Name: other\nVersion: 1.0\n")
        (other / "other-1.0.dist-info/entry_points.txt").write_text("[pytest11]\nother = other_plugin\n")
        (other / "other_plugin.py").write_text("raise RuntimeError('the plugin of another is loaded')\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(other), *sys.path]))
        plan = write_plan(tmp_path, "good.yaml", PASSING)
        done = call(sys.executable, "-m", "pytest", plan, cwd=tmp_path)
        assert "the plugin of another is loaded" in done.stdout + done.stderr
        done = call(*HIL, "run", plan, "-r", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_a_plan_named_twice_is_run_once(self, tmp_path: Path) -> None:
        plan = write_plan(tmp_path, "good.yaml", PASSING)
        done = call(*HIL, "run", plan, plan, "-r", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["good"]


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("stepz: []\n", r"plan\.yaml:1:1: .*stepz.*did you mean.*steps"),
            (f"within: 1 s\nwithin: 2 s\n{PASSING}", r"plan\.yaml:2:1: .*within.*twice|duplicate"),
            (PASSING.replace("128 MiB", "128 MB"), r"plan\.yaml:1:\d+: .*128 MB.*MiB"),
            (PASSING.replace("dimms: [128 MiB]", "vcpus: -1"), r"plan\.yaml:1:\d+: .*-1"),
            ("", r"plan\.yaml:.*empty|plan\.yaml:.*mapping"),
            ("steps: []\n", r"plan\.yaml:1:\d+: .*steps"),
            ("steps: [\n", r"plan\.yaml:\d+:\d+: "),
            (f"guest: referense\n{PASSING}", r"plan\.yaml:1:\d+: unknown guest.*reference"),
            (f"vm: {{max_vcpus: 65}}\n{PASSING}", r"plan\.yaml:1:\d+: max_vcpus: 65.*64"),
        ],
    )
    def test_a_bad_plan_is_one_line_and_exit_2(self, tmp_path: Path, text: str, says: str) -> None:
        done = call(*HIL, "run", write_plan(tmp_path, "plan.yaml", text), cwd=tmp_path)
        assert done.returncode == 2
        assert re.search(says, done.stderr, re.DOTALL), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert not (tmp_path / "results").exists()

    def test_no_plan_found(self, tmp_path: Path) -> None:
        for argument in ("nowhere.yaml", "."):
            done = call(*HIL, "run", argument, cwd=tmp_path)
            assert done.returncode == 2
            assert len(done.stderr.splitlines()) == 1
            assert argument in done.stderr

    def test_an_unknown_option(self, tmp_path: Path) -> None:
        assert call(*HIL, "run", "--nonsense", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_when_the_harness_is_ended(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    write_plan(tmp_path, "long.yaml", LONG)
    results = tmp_path / "out"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [*HIL, "run", "long.yaml", "--results", str(results)],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        _await_in_file(results / "long/qmp.jsonl", "ACPI_DEVICE_OST")
        pids = qemu_pids(results)
        assert len(pids) == 1
        process.send_signal(signal_number)
        output, _ = process.communicate(timeout=60)
    _await_end(pids[0])
    assert qemu_pids(results) == []
    assert list(scratch.rglob("*")) == []
    left = {path.name for path in (results / "long").iterdir()}
    assert left <= {
        *("plan.yaml", "qemu-command.txt", "qmp.jsonl", "serial.log", "qemu-stderr.log", "qemu-trace.log"),
        *("driver.log", "timeline.jsonl", "verdict.json", "boot.json", "harness.log"),
    }
    if signal_number == signal.SIGINT:
        assert process.returncode == 130, output
        verdict = json.loads((results / "long/verdict.json").read_text())
        assert (verdict["outcome"], verdict["error"]) == ("error", "interrupted")
        assert b"long" in output


def _await_in_file(path: Path, text: str) -> None:
    deadline = Deadline.after(RUN_WITHIN_S)
    while not (path.exists() and text in path.read_text()):
        deadline.check(f"{text} in {path}")
        select.select([], [], [], 0.05)


def _await_end(pid: int) -> None:
    deadline = Deadline.after(10)
    while Path(f"/proc/{pid}").exists():
        deadline.check(f"the end of process {pid}")
        select.select([], [], [], 0.02)
