# SPDX-License-Identifier: MIT
"""What befalls a guest is told at once, by cause and whose doing it was; what was asked for is not."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestError, GuestGoneError, VmDisturbedError, VmExitedError
from harness.evidence import incident
from harness.evidence.incident import BY_REASON, INCIDENT_EVENTS, RUN_STATES, Incident
from harness.guest.acpi_registers import AcpiRegisters
from harness.vm.argv import Disk
from harness.vm.vm import QMP_LOG_FILE, Vm
from harness.wires.qmp import Listener
from tests.qemu.bare_vm import Launch, acpi_of, bare_config

PVPANIC = ("-device", "pvpanic")
WATCHDOG = ("-device", "i6300esb,addr=5")

# mov dx, 0xcf9; mov al, 6; out dx, al; hlt; jmp back to hlt
RESTARTS_AT_ONCE = bytes([0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4, 0xEB, 0xFD])
# mov ax, 0x0301 (BIOS: write one sector); mov cx, 2; mov dh, 0; int 0x13; hlt; jmp back to hlt
# DL is the drive booted from, ES:BX any memory.
WRITES_TO_ITS_DISK = bytes([0xB8, 1, 3, 0xB9, 2, 0, 0xB6, 0, 0xCD, 0x13, 0xF4, 0xEB, 0xFD])


def boot_sector(folder: Path, code: bytes) -> Path:
    path = folder / "sector"
    path.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    return path


def first_incident(vm: Vm, act: Callable[[], object], deadline: Deadline) -> Incident:
    """Return what the callback is called with, of whatever the act leads to."""
    told: list[Incident] = []
    called = threading.Event()

    def callback(told_of: Incident) -> None:
        told.append(told_of)
        vm.execute("query-status")  # not on the thread that QEMU's answers come by
        called.set()

    with vm.watch.when_incident(callback):
        act()
        assert called.wait(deadline.remaining_s()), vm.watch.events
    assert told[0] == vm.watch.first
    return told[0]


def full_disk(folder: Path) -> tuple[str, ...]:
    """A disk that has no room for what its boot sector writes."""
    sector = boot_sector(folder, WRITES_TO_ITS_DISK)
    error = "file.inject-error.0.event=write_aio,file.inject-error.0.errno=28"
    drive = f"if=none,id=disk0,driver=raw,file.driver=blkdebug,file.image.filename={sector},{error}"
    return ("-drive", drive, "-device", "virtio-blk-pci,drive=disk0")


def check_at_each(resets: Listener, check: Callable[[], None], deadline: Deadline) -> None:
    while True:
        resets.get(deadline=deadline)
        check()


def run_state(vm: Vm) -> str:
    return str(vm.execute("query-status")["status"])


BY_GUEST = [
    pytest.param(
        AcpiRegisters.restart, "RESET", "the guest restarted", "reason guest-reset", "running", id="restart"
    ),
    pytest.param(
        lambda guest: guest.sleep(5),
        *("SHUTDOWN", "the guest powered off", "reason guest-shutdown", "shutdown"),
        id="power-off",
    ),
    pytest.param(
        lambda guest: guest.sleep(3),
        *("SUSPEND", "the guest suspended itself", "SUSPEND", "suspended"),
        id="suspend",
    ),
    pytest.param(
        AcpiRegisters.panic,
        *("GUEST_PANICKED", "the guest panicked", "action pause", "guest-panicked"),
        id="panic",
    ),
    pytest.param(
        lambda guest: guest.panic(crash_kernel=True),
        *("GUEST_CRASHLOADED", "the guest panicked and starts its crash kernel", "action run", "running"),
        id="crash-kernel",
    ),
]


@pytest.mark.parametrize(("act", "name", "what", "details", "state"), BY_GUEST)
def test_what_a_guest_does_to_itself_is_told_and_qemu_lives_to_be_asked(
    launch: Launch,
    asleep,
    deadline: Deadline,
    act,
    name: str,
    what: str,
    details: str,
    state: str,
) -> None:
    vm = launch(paused=False, extra=(*PVPANIC, *asleep), qtest=True)
    guest = acpi_of(vm)
    vm.check()
    told = first_incident(vm, lambda: act(guest), deadline)
    assert (told.name, told.what, told.blame) == (name, what, "guest")
    assert details in told.details
    with vm.listen("RESUME") as resumed:
        assert run_state(vm) == state
        assert resumed.events == ()
    with pytest.raises(GuestGoneError, match=what) as gone:
        vm.check()
    assert gone.value.incident == told
    assert {item.blame for item in vm.watch.incidents} == {"guest"}


def _pause_for_a_moment(vm: Vm) -> None:
    vm.execute("human-monitor-command", {"command-line": "stop"})
    vm.execute("cont")


BY_SOMEBODY = [
    pytest.param(lambda vm: vm.execute("stop"), "STOP", "somebody paused the guest", id="pause"),
    pytest.param(
        lambda vm: vm.execute("system_reset"), "RESET", "somebody reset the guest over QMP", id="reset"
    ),
    pytest.param(
        lambda vm: vm.execute("system_powerdown"),
        *("POWERDOWN", "somebody pressed the guest's power button"),
        id="power-button",
    ),
]


@pytest.mark.parametrize(("act", "name", "what"), BY_SOMEBODY)
def test_what_somebody_does_over_qmp_is_no_guests_fault(
    launch: Launch, deadline: Deadline, act, name: str, what: str
) -> None:
    vm = launch(paused=False)
    told = first_incident(vm, lambda: act(vm), deadline)
    assert (told.name, told.what, told.blame) == (name, what, "bench")
    with pytest.raises(VmDisturbedError, match=what) as disturbed:
        vm.watch.check()
    assert disturbed.value.incident == told


def test_a_pause_that_is_over_when_its_cause_is_asked_for_is_still_told(launch: Launch) -> None:
    vm = launch(paused=False)
    _pause_for_a_moment(vm)
    stop, resume = vm.watch.incidents
    assert stop.what in ("somebody paused the guest for a moment", "somebody paused the guest")
    assert (resume.name, resume.blame) == ("RESUME", "bench")


def test_a_full_disk_of_the_host_is_told_as_such(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    vm = launch(extra=full_disk(tmp_path))
    told = first_incident(vm, vm.resume, deadline)
    assert (told.what, told.blame) == (
        "QEMU paused the guest: No space left on device (drive disk0)",
        "bench",
    )
    assert "operation write" in told.details
    assert "nospace yes" in told.details
    assert run_state(vm) == "io-error"
    with pytest.raises(VmDisturbedError, match="No space left on device"):
        vm.check()
    assert [item.details for item in vm.watch.incidents[1:]] == ["run state io-error"]


def test_a_full_disk_is_told_even_if_the_qmp_log_is_on_it(tmp_path: Path, deadline: Deadline) -> None:
    (tmp_path / QMP_LOG_FILE).symlink_to("/dev/full")
    with Vm.launch(bare_config(extra=full_disk(tmp_path)), folder=tmp_path, deadline=deadline) as vm:
        assert "No space left" in first_incident(vm, vm.resume, deadline).what
        assert run_state(vm) == "io-error"
    log = tmp_path / QMP_LOG_FILE
    assert vm.qmp.log.lost == f"{log} could not be written to its end: No space left on device"


def test_a_watchdog_of_the_guest_is_told(launch: Launch, asleep, deadline: Deadline) -> None:
    vm = launch(paused=False, extra=(*WATCHDOG, *asleep), qtest=True)
    guest = acpi_of(vm)
    registers = 0xE000_0000

    def unlocked_write(register: int, value: int) -> None:
        guest.qtest.write_memory(registers + 0xC, 0x80)
        guest.qtest.write_memory(registers + 0xC, 0x86)
        guest.qtest.write_memory(registers + register, value)

    def let_it_expire() -> None:
        # Intel 6300ESB datasheet, watchdog timer: base address, memory access on, two short stages, start.
        guest.write_pci(5, 0x10, registers)
        guest.write_pci(5, 0x04, 2, bits=16)
        unlocked_write(0, 1)
        unlocked_write(4, 1)
        guest.write_pci(5, 0x68, 2, bits=8)

    told = first_incident(vm, let_it_expire, deadline)
    assert (told.name, told.what, told.blame) == ("WATCHDOG", "the guest's watchdog fired", "guest")


@pytest.mark.parametrize(
    ("end", "what"),
    [
        (lambda vm: vm.execute("quit"), "somebody ended QEMU over QMP"),
        (lambda vm: os.kill(vm.pid, signal.SIGTERM), "QEMU was told to end (host-signal)"),
    ],
    ids=["quit", "signal"],
)
def test_a_qemu_that_is_told_to_end_ends_and_it_is_known_by_whom(
    launch: Launch, deadline: Deadline, end, what: str
) -> None:
    vm = launch(paused=False)
    with vm.watch.when_incident(lambda _incident: None):
        end(vm)
        with vm.listen("NEVER") as never, pytest.raises(VmExitedError, match="after a shutdown"):
            never.get(deadline=deadline)
    assert vm.watch.first is not None
    assert (vm.watch.first.what, vm.watch.first.blame) == (what, "bench")


@pytest.mark.parametrize("end", [lambda guest: guest.sleep(5), AcpiRegisters.panic])
def test_a_qemu_whose_guest_has_ended_still_ends_at_once(
    launch: Launch, asleep, deadline: Deadline, tmp_path: Path, end
) -> None:
    vm = launch(paused=False, extra=(*PVPANIC, *asleep), qtest=True)
    guest = acpi_of(vm)
    first_incident(vm, lambda: end(guest), deadline)
    vm._quit()
    with pytest.raises(VmExitedError, match=r"exit status 0.*host-qmp-quit"):
        vm.raise_if_exited()


def test_the_harness_own_doing_is_no_incident(launch: Launch, asleep, deadline: Deadline) -> None:
    vm = launch(extra=asleep, qtest=True)
    guest = acpi_of(vm)
    vm.resume()
    vm.pause()
    vm.resume()
    with vm.watch.asked_for("SHUTDOWN", "STOP") as asked:
        guest.sleep(5)
        asked.wait(lambda events: {event.name for event in events} >= {"SHUTDOWN", "STOP"}, deadline=deadline)
    with vm.watch.asked_for("RESET") as asked:
        guest.restart()
        assert asked.get(deadline=deadline).data["reason"] == "guest-reset"
    vm.check()
    assert vm.watch.incidents == ()
    assert [event.name for event in vm.watch.events] == [
        *("RESUME", "STOP", "RESUME", "SHUTDOWN", "STOP", "RESET")
    ]


def test_only_what_is_asked_for_is_taken_for_it(launch: Launch, asleep, deadline: Deadline) -> None:
    vm = launch(paused=False, extra=asleep, qtest=True)
    guest = acpi_of(vm)
    with vm.watch.asked_for("RESET", match=lambda event: event.data["reason"] == "guest-reset") as asked:
        with pytest.raises(DeadlineExpiredError, match=r"RESET, .*did not come"):
            asked.get(deadline=Deadline.after(0))
        with vm.listen("RESET") as resets:
            guest.restart()
            resets.get(deadline=deadline)
            vm.execute("system_reset")
            resets.get(deadline=deadline)
            vm.pause()
    with vm.listen("RESET") as resets:
        guest.restart()
        resets.get(deadline=deadline)
    assert [item.what for item in vm.watch.incidents] == [
        "somebody reset the guest over QMP",
        "the guest restarted",
    ]


def test_whoever_asks_late_is_called_at_once_and_only_once(
    launch: Launch, asleep, deadline: Deadline
) -> None:
    vm = launch(paused=False, extra=asleep, qtest=True)
    guest = acpi_of(vm)
    first_incident(vm, guest.restart, deadline)
    calls: list[Incident] = []
    with vm.watch.when_incident(calls.append), vm.listen("RESET") as resets:
        guest.restart()
        resets.get(deadline=deadline)
        assert len(vm.watch.incidents) == 2
    assert calls == [vm.watch.first]


def test_a_callback_has_returned_when_the_block_is_left(launch: Launch) -> None:
    vm = launch(paused=False)
    left, ended = threading.Event(), threading.Event()

    def callback(_incident: Incident) -> None:
        left.wait(0.2)
        ended.set()

    with vm.watch.when_incident(callback):
        vm.execute("stop")
        assert vm.watch.first is not None
    assert ended.is_set()


def test_a_guest_that_restarts_again_and_again_while_booting_is_named(
    launch: Launch, tmp_path: Path, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident, "ONE_RESTART_S", 0.2)
    vm = launch(disk=Disk(path=boot_sector(tmp_path, RESTARTS_AT_ONCE), format="raw"))
    with vm.booting() as check, vm.listen("RESET") as resets:
        check()
        vm.resume()
        with pytest.raises(GuestError, match=r"the guest restarted 3 times while booting; see serial\.log"):
            check_at_each(resets, check, deadline)
        vm.pause()
    assert vm.watch.incidents == ()


def test_the_resets_of_firmware_are_part_of_the_restart_that_they_follow(
    launch: Launch, tmp_path: Path, deadline: Deadline
) -> None:
    log = tmp_path / "seabios.log"
    tell = ("-chardev", f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=log")
    vm = launch(paused=False, extra=tell)

    def await_boot(number: int) -> None:
        while log.read_text().count("No bootable device") < number:
            deadline.check("the end of SeaBIOS")
            select.select([], [], [], 0.01)

    await_boot(1)
    with vm.booting() as check:
        with vm.watch.asked_for("RESET") as resets:
            vm.execute("system_reset")
            resets.get(deadline=deadline)
        await_boot(2)
        check()
    assert vm.watch.incidents == ()
    assert "Attempting a hard reboot" in log.read_text()


@pytest.mark.parametrize("end", [lambda guest: guest.sleep(5), AcpiRegisters.panic])
def test_a_guest_that_ends_while_booting_is_not_waited_for(
    launch: Launch, asleep, deadline: Deadline, end
) -> None:
    vm = launch(paused=False, extra=(*PVPANIC, *asleep), qtest=True)
    guest = acpi_of(vm)
    with vm.booting() as check:
        check()
        first_incident(vm, lambda: end(guest), deadline)
        with pytest.raises(GuestGoneError, match="the guest p"):
            check()
    with pytest.raises(GuestGoneError, match="the guest p"):
        vm.await_rest(deadline=deadline)


def test_all_that_is_listened_for_is_known_to_this_qemu(launch: Launch) -> None:
    schema = launch().execute("query-qmp-schema")
    events = {entry["name"] for entry in schema if entry["meta-type"] == "event"}
    # QEMU 7.2 has not the one yet, QEMU 10.0 not the other any more.
    assert INCIDENT_EVENTS - {"GUEST_PVSHUTDOWN", "MEM_UNPLUG_ERROR"} <= events
    enumerations = [set(entry["values"]) for entry in schema if entry["meta-type"] == "enum"]
    assert any(set(BY_REASON) <= values for values in enumerations)
    assert any(set(RUN_STATES) <= values for values in enumerations)
