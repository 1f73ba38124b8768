# SPDX-License-Identifier: MIT
"""Ports, memory and interrupts of a real QEMU over qtest, and what is told when that does not work."""

from __future__ import annotations

import os
import signal

import pytest

from harness.deadline import Deadline
from harness.document.units import MIB
from harness.errors import QtestError
from harness.guest.acpi_registers import Place
from harness.vm.vm import Vm
from harness.wires.qtest import QtestSession
from tests.qemu.bare_vm import Launch, acpi_of

#: The index of the real-time clock's registers, which hold what is written to them.
CLOCK_INDEX, CLOCK_DATA, ALARM_HOURS = 0x70, 0x71, 5


@pytest.fixture
def vm(launch: Launch) -> Vm:
    return launch(qtest=True)


@pytest.fixture
def qtest(vm: Vm) -> QtestSession:
    assert vm.qtest is not None
    return vm.qtest


def test_there_is_none_unless_it_is_asked_for(launch: Launch) -> None:
    vm = launch()
    assert vm.qtest is None
    assert "-qtest" not in (vm.folder / "qemu-command.txt").read_text()


def test_memory_and_ports_hold_what_is_written(qtest: QtestSession) -> None:
    qtest.write_memory(0x100000, 0xCAFE_F00D)
    assert qtest.read_memory(0x100000) == 0xCAFE_F00D
    assert qtest.read_memory(0x100004) == 0
    qtest.write_port(CLOCK_INDEX, ALARM_HOURS)
    qtest.write_port(CLOCK_DATA, 0x17)
    assert qtest.read_port(CLOCK_DATA) == 0x17
    # PCI configuration address: a register of 32 bits.
    qtest.write_port(0xCF8, 0x8000_F840, bits=32)
    assert qtest.read_port(0xCF8, bits=32) == 0x8000_F840


def test_what_qemu_refuses_is_told(qtest: QtestSession) -> None:
    with pytest.raises(QtestError, match="QEMU refused 'irq_intercept_in nobody' over qtest: FAIL"):
        qtest.intercept_interrupts("nobody")
    assert qtest.read_memory(0) == 0, "the connection still works"


def test_the_end_of_qemu_is_told(vm: Vm, qtest: QtestSession) -> None:
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(QtestError, match=r"qtest connection|does not answer over qtest"):
        qtest.read_memory(0)
    with pytest.raises(QtestError, match=r"qtest connection|does not answer over qtest"):
        qtest.read_memory(0)


def test_a_qemu_that_does_not_answer_is_not_waited_for_for_ever(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.wires.qtest.REPLY_WITHIN_S", 0.2)
    with QtestSession.pair() as session, pytest.raises(QtestError, match="QEMU does not answer over qtest"):
        session.read_memory(0)


@pytest.mark.parametrize(
    "said",
    [b"OK 0x1\nIRQ raise 9\n", b"IRQ raise 9\nOK 0x1\n", b"IRQ raise 9\nIRQ lower 9\nOK 0x1\nIRQ raise 4\n"],
)
def test_an_interrupt_told_along_with_an_answer_is_heard(said: bytes) -> None:
    with QtestSession.pair() as session:
        session._theirs.sendall(said)
        assert session.read_port(0x70) == 1
        assert session.raised == {9} | ({4} if b"raise 4" in said else set())
        session._theirs.sendall(b"IRQ raise 1\nIRQ raise 2\n")
        session.receive()
        assert session.raised >= {1, 2}


def test_acpi_calls_once_for_what_was_plugged_and_knows_where_it_is(vm: Vm, deadline: Deadline) -> None:
    acpi = acpi_of(vm)
    assert not acpi.is_called
    assert acpi.take_inserted() == []
    slots = [slot for slot in vm.vcpu_slots() if slot.free]
    vm.plug_vcpu(slots[2], device_id="last")
    vm.plug_vcpu(slots[0], device_id="first")
    vm.plug_dimm(128 * MIB, device_id="dimm")
    while not acpi.is_called:
        deadline.check("ACPI's interrupt")
        acpi.qtest.receive()
    assert acpi.take_inserted() == [Place("vcpu", 1), Place("vcpu", 3), Place("dimm", 0)]
    assert acpi.take_inserted() == []


@pytest.mark.parametrize("when", ["status is read", "status is cleared", "slots are looked at"])
def test_what_is_plugged_while_acpi_looks_is_not_lost(
    vm: Vm, deadline: Deadline, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    acpi = acpi_of(vm)
    vm.plug_vcpu(next(slot for slot in vm.vcpu_slots() if slot.free), device_id="first")
    while not acpi.is_called:
        deadline.check("ACPI's interrupt")
        acpi.qtest.receive()
    requests = iter(["status is read", "status is cleared", "slots are looked at"])
    request = acpi.qtest._request

    def request_and_plug(line: str) -> str:
        answer = request(line)
        if next(requests, None) == when:
            vm.plug_dimm(128 * MIB, device_id="meanwhile")
        return answer

    monkeypatch.setattr(acpi.qtest, "_request", request_and_plug)
    found = acpi.take_inserted()
    if acpi.is_called:
        found += acpi.take_inserted()
    assert found == [Place("vcpu", 1), Place("dimm", 0)]


def test_what_was_there_when_acpi_is_switched_on_is_no_news(vm: Vm, deadline: Deadline) -> None:
    acpi_of(vm)
    vm.plug_dimm(128 * MIB, device_id="there")
    acpi = acpi_of(vm)
    vm.plug_dimm(128 * MIB, device_id="new")
    while not acpi.is_called:
        deadline.check("ACPI's interrupt")
        acpi.qtest.receive()
    assert acpi.take_inserted() == [Place("dimm", 1)]
