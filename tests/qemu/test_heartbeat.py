# SPDX-License-Identifier: MIT
"""When QEMU did not run is noticed, whatever kept it from that."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import VmStalledError
from harness.vm.heartbeat import Stall, total_s
from harness.vm.vm import Vm
from tests.qemu.bare_vm import Launch
from tests.qemu.starved import starved

BUSY_FOR_EVER = b"\xeb\xfe"  # jmp to itself


@pytest.fixture
def vm(launch: Launch, tmp_path: Path) -> Vm:
    """A guest that is never at rest."""
    sector = tmp_path / "boot.img"
    sector.write_bytes(BUSY_FOR_EVER.ljust(510, b"\0") + b"\x55\xaa")
    return launch(
        paused=False, machine="pc", extra=("-drive", f"if=ide,format=raw,readonly=off,file={sector}")
    )


def await_stall(vm: Vm, *, since_s: float) -> Stall:
    deadline = Deadline.after(30)
    while not (stalls := vm.heartbeat.stalls(since_s=since_s)):
        deadline.check("a stall")
        select.select([], [], [], 0.05)
    return stalls[0]


def test_a_stopped_qemu_is_told_from_one_that_runs(vm: Vm) -> None:
    vm.heartbeat.check()
    began_s = time.monotonic()
    os.kill(vm.pid, signal.SIGSTOP)
    stall = await_stall(vm, since_s=began_s)
    assert str(stall).startswith("QEMU got no processor time for 1")
    assert stall.why == "it was stopped"
    with pytest.raises(VmStalledError, match=r"got no processor time for .* and still does not run"):
        vm.heartbeat.check(patience_s=0.0)
    threading.Timer(0.5, os.kill, (vm.pid, signal.SIGCONT)).start()
    vm.heartbeat.check(patience_s=20.0)
    assert vm.heartbeat.stalls(since_s=time.monotonic()) == ()


def test_a_qemu_that_gets_no_processor_is_told_from_one_that_wants_none(vm: Vm) -> None:
    began_s = time.monotonic()
    with starved(vm.pid):
        stall = await_stall(vm, since_s=began_s)
    assert (stall.why, stall.who) == ("the host was busy", "QEMU")
    vm.pause()
    began_s = time.monotonic()
    os.kill(vm.pid, signal.SIGSTOP)
    os.kill(vm.pid, signal.SIGCONT)
    assert vm.heartbeat.stalls(since_s=began_s) == ()


def test_a_qemu_that_has_ended_is_no_stalled_one(vm: Vm) -> None:
    os.kill(vm.pid, signal.SIGKILL)
    vm.heartbeat.check()


def test_what_overlaps_is_counted_once() -> None:
    stalls = [Stall(1.0, 4.0, "a"), Stall(2.0, 3.0, "b"), Stall(3.5, 5.0, "c"), Stall(7.0, 8.0, "a")]
    assert total_s(stalls) == 5.0
    assert total_s([]) == 0.0
