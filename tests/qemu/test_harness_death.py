# SPDX-License-Identifier: MIT
"""However the harness ends, QEMU ends with it and leaves nothing but logs."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.deadline import Deadline

ROOT = Path(__file__).resolve().parents[2]
HARNESS = "tests.qemu.launch_and_hang"
LOGS = {"qemu-command.txt", "qemu-stderr.log", "qemu-trace.log", "qmp.jsonl", "serial.log"}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    return path


@contextmanager
def running_harness(folder: Path, disk: Path, qemu: str) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir()
    argv = [sys.executable, "-m", HARNESS, folder, disk, qemu]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def ends(pid: int, deadline: Deadline) -> bool:
    """Return whether a process that is not our child ends in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], deadline.remaining_s())[0])
    finally:
        os.close(pidfd)


def qemus_of(folder: Path) -> list[int]:
    """Return the processes that have the folder on their command line, the harness itself aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in command and os.fsencode(HARNESS) not in command:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_qemu_ends_with_a_killed_harness(
    tmp_path: Path, disk: Path, deadline: Deadline, qemu: str, number: signal.Signals
) -> None:
    folder = tmp_path / "vm"
    with running_harness(folder, disk, qemu) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        assert qemus_of(folder) == [pid]
        harness.send_signal(number)
        assert ends(pid, deadline)
        harness.wait(deadline.remaining_s())
    assert qemus_of(folder) == []
    assert {path.name for path in folder.iterdir()} == LOGS


def test_a_harness_that_is_interrupted_ends_qemu_in_order(
    tmp_path: Path, disk: Path, deadline: Deadline, qemu: str
) -> None:
    folder = tmp_path / "vm"
    with running_harness(folder, disk, qemu) as harness:
        assert harness.stdout is not None
        harness.stdout.readline()
        harness.send_signal(signal.SIGINT)
        harness.wait(deadline.remaining_s())
        assert harness.stderr is not None
        assert "KeyboardInterrupt" in harness.stderr.read()
    assert '"quit"' in (folder / "qmp.jsonl").read_text()


def test_a_harness_killed_while_it_launches_leaves_no_qemu(
    tmp_path: Path, disk: Path, deadline: Deadline, qemu: str
) -> None:
    never = threading.Event()
    for attempt in range(12):
        folder = tmp_path / f"vm{attempt}"
        with running_harness(folder, disk, qemu) as harness:
            # Until the first file of the launch is there, then a little later each time.
            while not any(folder.iterdir()):
                deadline.check("the launch")
                never.wait(0.001)
            never.wait(attempt * 0.01)
            harness.kill()
            harness.wait()
        assert all(ends(pid, deadline) for pid in qemus_of(folder))
        assert {path.name for path in folder.iterdir()} <= LOGS
