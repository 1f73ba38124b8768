# SPDX-License-Identifier: MIT
"""When QEMU did not run is noticed, whatever kept it from that."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import VmStalledError
from harness.vm.heartbeat import LOOK_S, Heartbeat, Look, Stall, total_s
from harness.vm.vm import Vm
from tests.qemu.bare_vm import Launch
from tests.qemu.starved import starved

SHORT_PERIODS_S = (0.01, 0.05, 0.11, 0.15, 0.16, 0.163, 0.17, 0.2, 0.205, 0.3)
DEBUG_PORT = 0xE9
# mov al, '!'; out to the debug port; jmp to itself
BUSY_FOR_EVER = b"\xb0!" + bytes([0xE6, DEBUG_PORT]) + b"\xeb\xfe"


@pytest.fixture
def vm(launch: Launch, tmp_path: Path) -> Vm:
    """A guest that is never at rest, not even in its firmware: that is over."""
    sector, said = tmp_path / "boot.img", tmp_path / "said"
    sector.write_bytes(BUSY_FOR_EVER.ljust(510, b"\0") + b"\x55\xaa")
    drive = ("-drive", f"if=ide,format=raw,readonly=off,file={sector}")
    console = ("-debugcon", f"file:{said}", "-global", f"isa-debugcon.iobase={DEBUG_PORT:#x}")
    vm = launch(paused=False, machine="pc", extra=(*drive, *console))
    deadline = Deadline.after(60)
    while said.read_bytes() != b"!":
        deadline.check("the guest's boot sector")
        select.select([], [], [], 0.05)
    return vm


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


def stalls_of(monkeypatch: pytest.MonkeyPatch, *, period_s: float, ran: float, waited: float) -> list[Stall]:
    """Return what is noticed in ten seconds of a thread that waits, runs and rests for such shares."""

    def looks() -> Iterator[Look]:
        for number in range(50):
            at_s = number * (LOOK_S + 0.005)
            periods, within_s = divmod(at_s, period_s)
            # A wait is added when it has ended.
            waited_s = waited * period_s * (periods + (within_s >= waited * period_s))
            ran_s = ran * period_s * periods + min(ran * period_s, max(0.0, within_s - waited * period_s))
            yield Look(at_s, "S", ran_s, {"vcpu": waited_s})

    told = looks()
    monkeypatch.setattr(Look, "at", lambda _pid: next(told))
    heartbeat = Heartbeat(0)
    return [stall for _ in range(50) for stall in heartbeat.stalls(since_s=0.0)]


@pytest.mark.parametrize(
    "period_s", [0.01, 0.05, 0.11, 0.15, 0.16, 0.163, 0.17, 0.2, 0.205, 0.3, 0.41, 0.7, 3]
)
def test_a_stall_is_noticed_however_the_kernel_shares_the_processor_out(
    monkeypatch: pytest.MonkeyPatch, period_s: float
) -> None:
    assert stalls_of(monkeypatch, period_s=period_s, ran=0.02, waited=0.98)[-1].length_s > 8


@pytest.mark.parametrize("period_s", SHORT_PERIODS_S)
@pytest.mark.parametrize(("ran", "waited"), [(0.5, 0.5), (0.02, 0.1), (0.02, 0.5), (1.0, 0.0)])
def test_half_of_a_processor_or_rest_is_no_stall(
    monkeypatch: pytest.MonkeyPatch, period_s: float, ran: float, waited: float
) -> None:
    assert stalls_of(monkeypatch, period_s=period_s, ran=ran, waited=waited) == []


def test_what_overlaps_is_counted_once() -> None:
    stalls = [Stall(1.0, 4.0, "a"), Stall(2.0, 3.0, "b"), Stall(3.5, 5.0, "c"), Stall(7.0, 8.0, "a")]
    assert total_s(stalls) == 5.0
    assert total_s([]) == 0.0
