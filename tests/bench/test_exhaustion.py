# SPDX-License-Identifier: MIT
"""What a host has run out of is told by name, and a plan whose evidence is cut short is an error."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.run.exhaustion import exhausted
from harness.run.run import run_plan
from harness.run.session import Session
from harness.run.unexpected import told
from tests.e2e.test_ending import HIL, PASSES, results_of, write

FULL = Path("/dev/full")
OPEN_FILES = """
import resource
from pathlib import Path
from harness.run.unexpected import told
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
Path.cwd()
resource.setrlimit(resource.RLIMIT_NOFILE, (20, most))
files = []
try:
    while True:
        files.append(open("/dev/null"))
except OSError as err:
    print(told(err, folder=None))
"""


def test_a_full_file_system_is_named_and_leaves_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        FULL.write_text("evidence")
    error = caught.value
    assert exhausted(error, folder=tmp_path) == "no space is left; make room there, or name another place"
    error.filename = "/results/plan/verdict.json"
    said = told(error, folder=tmp_path)
    assert said == "no space is left for /results/plan/verdict.json; make room there, or name another place"
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_without_room_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("harness.run.exhaustion._FULL_BYTES", 1 << 62)
    assert str(exhausted(error, folder=tmp_path)).startswith(f"no space is left in {tmp_path}; ")


def test_too_many_open_files_are_the_limit_that_there_is() -> None:
    argv = [sys.executable, "-c", OPEN_FILES]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "this process has as many open files as it may, 20; see ulimit -n\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no more memory"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (BlockingIOError(errno.EAGAIN, "fork"), "no more processes"),
        (OSError(errno.EDQUOT, "quota", "/home/me/x"), "the disk quota is used up for /home/me/x"),
        (OSError(errno.EROFS, "ro", "/x"), "the file system is read-only for /x"),
        (OSError(errno.ENFILE, "files"), "this host has as many open files as it may"),
        (OSError(errno.ENOMEM, "memory"), "this host has no memory left"),
    ],
)
def test_each_is_named(error: BaseException, words: str) -> None:
    assert words in str(exhausted(error, folder=None))


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("else"), FileNotFoundError(errno.ENOENT, "x")])
def test_anything_else_is_not_taken_for_it(error: BaseException) -> None:
    assert exhausted(error, folder=None) is None


def test_a_file_that_may_not_become_larger(tmp_path: Path) -> None:
    write(tmp_path, plan=PASSES)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))

    done = subprocess.run(
        [*HIL, "run", "plan.yaml", "-r", "out"],
        cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    [plan] = results_of(tmp_path / "out")
    assert (plan["outcome"], plan["error"]) == ("error", "a file may not become any larger; see ulimit -f")


def test_a_plan_whose_evidence_could_not_be_written_to_its_end_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, plan=PASSES)
    session = Session(results=tmp_path / "out")
    plan = session.load(tmp_path / "plan.yaml")
    assert run_plan(plan, bench=session.bench(plan), folder=tmp_path / "whole").outcome == "passed"
    monkeypatch.setattr("harness.vm.vm.QMP_LOG_FILE", os.fspath(FULL))
    verdict = run_plan(plan, bench=session.bench(plan), folder=tmp_path / "cut")
    assert (verdict.outcome, verdict.error) == (
        "error",
        "the evidence is not whole: /dev/full could not be written to its end: No space left on device",
    )
