# SPDX-License-Identifier: MIT
"""A VM without a guest: what is plugged is there when asked again, what is refused changes nothing."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.document.units import GIB, MIB
from harness.errors import (
    DeadlineExpiredError,
    HostError,
    ImageError,
    QmpCommandError,
    VmError,
    VmExitedError,
    VmStalledError,
)
from harness.evidence.witness import DimmPlace, VmState
from harness.guest.acpi_registers import Place
from harness.host.tools import find_tool
from harness.vm.accelerator import find_qemu_version
from harness.vm.argv import Disk
from harness.vm.hotplug_answers import ospm_status, read_ospm_status
from harness.vm.vm import VcpuSlot, Vm
from harness.wires.qmp import Event
from tests.qemu.bare_vm import Launch, acpi_of, bare_config, small_shape
from tests.qemu.starved import starved

LOGS = {"qemu-command.txt", "qemu-stderr.log", "qemu-trace.log", "qmp.jsonl", "serial.log"}


def about(device_id: str) -> Callable[[Event], bool]:
    """Return a match for the ACPI answers about one device."""
    return lambda event: event.data["info"].get("device") == device_id


def free_slots(vm: Vm) -> list[VcpuSlot]:
    return [slot for slot in vm.vcpu_slots() if slot.free]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_plugged_vcpu_and_dimm_are_there_when_asked_again(launch: Launch) -> None:
    vm = launch()
    assert vm.state() == VmState((), 1, {}, 0, run_state="prelaunch")
    vcpu = vm.plug_vcpu(free_slots(vm)[0], device_id="cpu1")
    dimm = vm.plug_dimm(128 * MIB, device_id="dimm1")
    assert (vcpu.device_id, vcpu.kind, vcpu.size_bytes) == ("cpu1", "vcpu", None)
    assert (dimm.device_id, dimm.kind, dimm.size_bytes) == ("dimm1", "dimm", 128 * MIB)
    assert vcpu.plugged_at_s < dimm.plugged_at_s
    places = {"dimm1": DimmPlace(slot=0, node=0, address=4 * GIB)}
    assert vm.state() == VmState(("cpu1",), 2, {"dimm1": 128 * MIB}, 128 * MIB, places, "prelaunch")


def test_vcpu_slots_come_lowest_first_and_know_who_is_in_them(launch: Launch) -> None:
    vm = launch()
    vm.plug_vcpu(vm.vcpu_slots()[2], device_id="sparse")
    slots = vm.vcpu_slots()
    assert [slot.props["socket-id"] for slot in slots] == [0, 1, 2, 3]
    assert [slot.free for slot in slots] == [False, True, False, True]
    assert [slot.device_id for slot in slots] == [None, None, "sparse", None]


def test_everything_can_be_filled(launch: Launch) -> None:
    vm = launch()
    for number, slot in enumerate(free_slots(vm), 1):
        vm.plug_vcpu(slot, device_id=f"cpu{number}")
    for number, size_bytes in enumerate((128 * MIB, 256 * MIB), 1):
        vm.plug_dimm(size_bytes, device_id=f"dimm{number}")
    dimms = {"dimm1": 128 * MIB, "dimm2": 256 * MIB}
    state = vm.state()
    assert replace(state, dimm_places={}) == VmState(
        ("cpu1", "cpu2", "cpu3"), 4, dimms, 384 * MIB, run_state="prelaunch"
    )
    assert state.dimm_places.keys() == dimms.keys()


def _plug_used_slot(vm: Vm) -> None:
    vm.plug_vcpu(vm.vcpu_slots()[0], device_id="again")


def _plug_used_id(vm: Vm) -> None:
    vm.plug_vcpu(free_slots(vm)[0], device_id="cpu1")


def _plug_wrong_topology(vm: Vm) -> None:
    slot = free_slots(vm)[0]
    vm.plug_vcpu(VcpuSlot(slot.driver, {**slot.props, "socket-id": 9}, None, None), device_id="far")


def _plug_wrong_model(vm: Vm) -> None:
    vm.plug_vcpu(VcpuSlot("max-x86_64-cpu", free_slots(vm)[0].props, None, None), device_id="other")


REFUSALS = [
    pytest.param(_plug_used_slot, r"APIC ID 0 exists", id="vcpu-slot-used"),
    pytest.param(_plug_used_id, r"Duplicate device ID 'cpu1'", id="vcpu-id-used"),
    pytest.param(_plug_wrong_topology, r"socket-id: 9 must be in range 0:3", id="vcpu-topology"),
    pytest.param(_plug_wrong_model, r"expected cpu type: 'qemu64-x86_64-cpu'", id="vcpu-model"),
    pytest.param(
        lambda vm: vm.plug_dimm(3 * MIB, device_id="odd"), r"multiple of 0x200000", id="dimm-size-odd"
    ),
    pytest.param(
        lambda vm: vm.plug_dimm(0, device_id="empty"), r"doesn't take value '0'", id="dimm-size-zero"
    ),
    pytest.param(
        lambda vm: vm.plug_dimm(1024 * MIB, device_id="big"), r"not enough space", id="dimm-max-memory"
    ),
    pytest.param(
        lambda vm: vm.plug_dimm(128 * MIB, device_id="dimm1"), r"duplicate property", id="dimm-id-used"
    ),
    pytest.param(
        lambda vm: vm.plug_dimm(128 * MIB, device_id="cpu1"), r"Duplicate device ID", id="dimm-id-of-a-vcpu"
    ),
]


@pytest.mark.parametrize(("act", "description"), REFUSALS)
def test_a_refusal_carries_qemus_text_and_changes_nothing(launch: Launch, act, description: str) -> None:
    vm = launch()
    vm.plug_vcpu(free_slots(vm)[0], device_id="cpu1")
    vm.plug_dimm(128 * MIB, device_id="dimm1")
    before = vm.state(), vm.execute("query-memdev")
    with pytest.raises(QmpCommandError, match=description) as refused:
        act(vm)
    assert refused.value.command in ("device_add", "object-add")
    assert refused.value.error_class == "GenericError"
    assert (vm.state(), vm.execute("query-memdev")) == before


def test_a_dimm_too_many_is_refused_and_leaves_no_memory_backend(launch: Launch) -> None:
    vm = launch(shape=small_shape(slots=1))
    vm.plug_dimm(128 * MIB, device_id="dimm1")
    with pytest.raises(QmpCommandError, match="no free slots available"):
        vm.plug_dimm(128 * MIB, device_id="dimm2")
    assert {memory["id"] for memory in vm.execute("query-memdev")} == {"ram0", "dimm1-ram"}
    assert vm.state().dimm_bytes == {"dimm1": 128 * MIB}


def test_a_shape_without_room_for_dimms_starts(launch: Launch) -> None:
    vm = launch(shape=small_shape(slots=0, max_memory="64 MiB"))
    with pytest.raises(QmpCommandError, match="slots"):
        vm.plug_dimm(128 * MIB, device_id="dimm1")


def test_acpi_answers_are_told_apart_by_device_id(launch: Launch, deadline: Deadline) -> None:
    vm = launch(qtest=True)
    acpi = acpi_of(vm)
    with vm.listen("ACPI_DEVICE_OST") as answers:
        for number, slot in enumerate(free_slots(vm)[:2], 1):
            vm.plug_vcpu(slot, device_id=f"cpu{number}")
        vm.plug_dimm(128 * MIB, device_id="dimm1")
        acpi.answer(Place("vcpu", 2), status=0)
        acpi.answer(Place("dimm", 0), status=0x81)
        acpi.answer(Place("vcpu", 1), status=0)
        found = [
            ospm_status(answers.get(about(name), deadline=deadline)) for name in ("cpu1", "dimm1", "cpu2")
        ]
        with pytest.raises(DeadlineExpiredError, match="ACPI_DEVICE_OST"):
            answers.get(about("cpu1"), deadline=Deadline.after(0.05))
        assert [ospm_status(event).device_id for event in answers.events] == ["cpu2", "dimm1", "cpu1"]
    told = [
        (status.device_id, status.slot_type, status.slot, status.source, status.status) for status in found
    ]
    assert told == [
        ("cpu1", "CPU", "1", 1, 0),
        ("dimm1", "DIMM", "0", 1, 0x81),
        ("cpu2", "CPU", "2", 1, 0),
    ]
    assert found[2].at_s < found[1].at_s < found[0].at_s


def test_the_last_acpi_answer_of_each_slot_can_be_asked_for(launch: Launch) -> None:
    vm = launch(qtest=True)
    acpi = acpi_of(vm)
    vm.plug_dimm(128 * MIB, device_id="dimm1")
    acpi.answer(Place("dimm", 0), status=0)
    statuses = [
        status
        for entry in vm.execute("query-acpi-ospm-status")
        if (status := read_ospm_status(entry, 0.0)).slot_type == "DIMM"
    ]
    assert [(status.device_id, status.slot, status.source) for status in statuses] == [
        ("dimm1", "0", 1),
        ("", "1", 0),
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_death_of_qemu_is_told_by_signal_and_last_words(launch: Launch, number: signal.Signals) -> None:
    vm = launch(cpu_model="qemu64,+vmx")  # TCG cannot do it and says so on standard error
    vm.raise_if_exited()
    os.kill(vm.pid, number)
    with pytest.raises(VmExitedError, match=rf"killed by {number.name}: .*TCG doesn't support"):
        vm.plug_dimm(128 * MIB, device_id="dimm1")
    with pytest.raises(VmExitedError, match=number.name):
        vm.raise_if_exited()
    with pytest.raises(VmExitedError, match=number.name):
        vm.state()


def test_the_death_of_qemu_ends_a_wait_for_events(launch: Launch, deadline: Deadline) -> None:
    vm = launch()
    with vm.listen("ACPI_DEVICE_OST") as answers, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(answers.get, deadline=deadline)
        os.kill(vm.pid, signal.SIGKILL)
        with pytest.raises(VmExitedError, match="SIGKILL"):
            waiting.result()


def test_an_orderly_end_says_who_asked_for_it(launch: Launch) -> None:
    vm = launch()
    vm.execute("quit")
    with pytest.raises(VmExitedError, match=r"exit status 0.*host-qmp-quit"):
        vm.state()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra": ("-device", "nosuch")}, "'nosuch' is not a valid device model name"),
        ({"extra": ("-nosuch",)}, "-nosuch: invalid option"),
        ({"cpu_model": "nosuch"}, "unable to find CPU model 'nosuch'"),
        ({"shape": small_shape(slots=256, max_vcpus=5000)}, "max CPUs supported by machine"),
        ({"disk": Disk(path=Path("/nonexistent/disk"), snapshot=False)}, "No such file or directory"),
    ],
)
def test_a_vm_that_does_not_start_quotes_qemu(launch: Launch, changes, words: str) -> None:
    with pytest.raises(VmError, match=r"QEMU did not start; QEMU ended with exit status 1") as error:
        launch(**changes)
    assert words in str(error.value)


def test_a_disk_that_cannot_be_read_is_the_images_fault(launch: Launch, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"disk\.qcow2 is no usable qcow2 image: .*No such file"):
        launch(disk=Disk(path=tmp_path / "disk.qcow2"))
    (tmp_path / "disk.qcow2").write_text("no image")
    with pytest.raises(ImageError, match=r"is no usable qcow2 image: .*not in qcow2 format"):
        launch(disk=Disk(path=tmp_path / "disk.qcow2"))


def test_a_missing_qemu_is_the_hosts_fault(launch: Launch) -> None:
    with pytest.raises(HostError, match="qemu-system-nosuch is not installed"):
        launch(qemu="qemu-system-nosuch")


def test_a_stopped_qemu_expires_the_deadline_and_is_ended_all_the_same(
    tmp_path: Path, deadline: Deadline, qemu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.vm.vm.QUIT_WITHIN_S", 0.1)
    monkeypatch.setattr("harness.vm.qemu_process.TERMINATE_WITHIN_S", 0.1)
    with Vm.launch(bare_config(qemu=qemu), folder=tmp_path, deadline=deadline) as vm:
        os.kill(vm.pid, signal.SIGSTOP)
        with pytest.raises(DeadlineExpiredError, match="QEMU's answer to query-status"):
            vm.execute("query-status", deadline=Deadline.after(0.2))
        with pytest.raises(DeadlineExpiredError, match="QEMU's answer to query-status"):
            vm.execute("query-status", deadline=Deadline.after(0))
        vm.raise_if_exited()
    with pytest.raises(ProcessLookupError):
        os.kill(vm.pid, 0)
    sent = [line for line in qmp_log(tmp_path) if line.get("sent", {}).get("execute") == "query-status"]
    assert len(sent) == 1, "what is too late is not even sent"


def after_its_version(path: Path, qemu: str, then: str) -> str:
    """Return a program that says of itself what QEMU says, and does something else when it is to run a VM."""
    path.write_text(f'#!/bin/sh\ncase $# in 1|2) exec {find_tool(qemu)} "$@";; esac\n{then}\n')
    path.chmod(0o755)
    return str(path)


def test_a_qemu_that_says_nothing_is_named_soon(
    launch: Launch, tmp_path: Path, qemu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.vm.vm.SPEAKS_WITHIN_S", 1.0)
    mute = after_its_version(tmp_path / "mute", qemu, "echo cannot open my display >&2; exec sleep 600")
    with pytest.raises(VmError, match=r"said nothing over QMP for 1(\.\d)? s;") as error:
        launch(qemu=mute)
    assert not isinstance(error.value, VmStalledError)
    assert mute in str(error.value)
    assert str(error.value).endswith("it printed: cannot open my display")


def test_a_qemu_that_is_kept_from_speaking_is_not_to_blame(
    launch: Launch, tmp_path: Path, qemu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.vm.vm.SPEAKS_WITHIN_S", 3.0)
    stopped = after_its_version(tmp_path / "stopped", qemu, "kill -STOP $$; exec sleep 600")
    with pytest.raises(VmStalledError, match=r"while it was started; run again$"):
        launch(qemu=stopped)


def test_a_qemu_that_takes_all_its_memory_first_may_take_longer(
    launch: Launch, tmp_path: Path, qemu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.vm.vm.SPEAKS_WITHIN_S", 0.0)
    with pytest.raises(VmError, match="said nothing over QMP"):
        launch()
    assert launch(shape=small_shape(backend={"prealloc": True})).qemu_version


def test_the_folder_holds_logs_and_nothing_else(tmp_path: Path, deadline: Deadline, qemu: str) -> None:
    folder = tmp_path / "comma, and blank"
    folder.mkdir()
    base = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    content = base.read_bytes()
    config = bare_config(qemu=qemu, disk=Disk(path=base))
    with Vm.launch(config, folder=folder, deadline=deadline) as vm:
        open_files = [os.fspath(link.readlink()) for link in Path(f"/proc/{vm.pid}/fd").iterdir()]
        overlays = {name for name in open_files if name.startswith(str(folder)) and "(deleted)" in name}
        assert len(overlays) == 1, "the overlay has no name while it is in use"
        assert names(folder) == LOGS
        vm.execute("human-monitor-command", {"command-line": 'qemu-io hd0 "write 0 64k"'})
    assert names(folder) == LOGS
    assert base.read_bytes() == content
    assert (folder / "qemu-command.txt").read_text().startswith("/")


def test_a_disk_without_snapshot_is_written_and_locked(launch: Launch, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", overlay, "64M"], check=True)
    before = overlay.read_bytes()
    vm = launch(disk=Disk(path=overlay, snapshot=False))
    vm.execute("human-monitor-command", {"command-line": 'qemu-io disk0 "write -P 7 0 64k"'})
    with pytest.raises(VmError, match="lock"):
        launch(disk=Disk(path=overlay, snapshot=False))
    vm.execute("quit")
    assert overlay.read_bytes() != before


def test_ssh_is_forwarded_on_loopback_only(launch: Launch) -> None:
    vm = launch()
    port = vm.ssh_port()
    bound = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == port
    ]
    assert bound == [f"0100007F:{port:04X}"]
    assert launch().ssh_port() != port


def test_a_vm_without_network_has_no_ssh_port(launch: Launch) -> None:
    with pytest.raises(VmError, match="forwards no port"):
        launch(network_device=None).ssh_port()


def test_the_version_is_what_qemu_says(launch: Launch, qemu: str) -> None:
    vm = launch()
    version = vm.execute("query-version")["qemu"]
    assert vm.qemu_version == f"{version['major']}.{version['minor']}.{version['micro']}"
    assert find_qemu_version(qemu) == (version["major"], version["minor"], version["micro"])


def test_a_paused_vm_runs_when_resumed(launch: Launch, deadline: Deadline) -> None:
    vm = launch()
    assert vm.execute("query-status")["status"] == "prelaunch"
    with vm.listen("RESUME") as resumed:
        vm.resume()
        resumed.get(deadline=deadline)
    assert vm.state().run_state == "running"
    vm.execute("stop")
    assert vm.state().run_state == "paused"


def test_several_vms_at_once(tmp_path: Path, deadline: Deadline, qemu: str) -> None:
    def one(number: int) -> tuple[VmState, int]:
        folder = tmp_path / str(number)
        folder.mkdir()
        with Vm.launch(bare_config(qemu=qemu), folder=folder, deadline=deadline) as vm:
            vm.plug_dimm((number + 1) * 2 * MIB, device_id=f"dimm{number}")
            return vm.state(), vm.ssh_port()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(8)))
    assert [state.dimm_bytes for state, _port in found] == [
        {f"dimm{number}": (number + 1) * 2 * MIB} for number in range(8)
    ]


def test_one_vm_serves_several_threads(launch: Launch) -> None:
    vm = launch()
    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(lambda _number: vm.execute("query-name"), range(40)))
    assert names == [{}] * 40


def qmp_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "qmp.jsonl").read_text().splitlines()]


def test_the_qmp_log_holds_every_message_of_both_directions(launch: Launch) -> None:
    vm = launch()
    with vm.listen("RESUME", "STOP") as heard:
        vm.resume()
        vm.pause()
        with pytest.raises(QmpCommandError):
            vm.execute("nosuch")
    vm.execute("quit")
    log = qmp_log(vm.folder)
    sent = [line["sent"] for line in log if "sent" in line]
    replies = [line["received"] for line in log if "received" in line]
    assert [message["execute"] for message in sent] == [
        "qmp_capabilities", "query-version", "trace-event-set-state", "cont", "stop", "nosuch", "quit",
    ]  # fmt: skip
    assert {message.get("id") for message in sent} == {message.get("id") for message in replies}
    assert "QMP" in replies[0], "the greeting"
    events = [line["event"]["event"] for line in log if "event" in line]
    assert events[:2] == ["RESUME", "STOP"] == [event.name for event in heard.events]
    assert "SHUTDOWN" in events, "also what nobody listened for"
    times = [line["at_s"] for line in log]
    assert times == sorted(times)


@pytest.mark.parametrize(("tcg_thread", "threads"), [("single", 1), ("multi", 2)])
def test_emulated_vcpus_share_a_thread_of_the_host_or_have_their_own(
    launch: Launch, tcg_thread: str, threads: int
) -> None:
    vm = launch(tcg_thread=tcg_thread)
    vm.plug_vcpu(free_slots(vm)[0], device_id="cpu1")
    assert len({vcpu["thread-id"] for vcpu in vm.execute("query-cpus-fast")}) == threads


SAY_HERE = b"\xba\xf8\x03\xb0\x21\xee"  # mov dx, 0x3f8; mov al, '!'; out dx, al
BUSY_FOR_EVER = b"\xeb\xfe"  # jmp to itself
HALTED = b"\xfa\xf4"  # cli, hlt


@pytest.mark.parametrize(("code", "rests"), [(HALTED, True), (BUSY_FOR_EVER, False)])
def test_a_guest_is_at_rest_when_it_has_nothing_to_do(
    launch: Launch, tmp_path: Path, deadline: Deadline, code: bytes, rests: bool
) -> None:
    sector = tmp_path / "boot.img"
    sector.write_bytes((SAY_HERE + code).ljust(510, b"\0") + b"\x55\xaa")
    boot = ("-drive", f"if=ide,format=raw,readonly=off,file={sector}")
    vm = launch(paused=False, machine="pc", extra=boot)
    while b"!" not in (vm.folder / "serial.log").read_bytes():
        deadline.check("the boot sector's word")
        select.select([], [], [], 0.01)
    assert vm.await_rest(deadline=Deadline.after(20 if rests else 2)) is rests
    vm.pause()
    assert vm.await_rest(deadline=deadline)


def test_a_guest_that_is_kept_from_running_does_not_rest(launch: Launch, tmp_path: Path) -> None:
    sector = tmp_path / "boot.img"
    sector.write_bytes(BUSY_FOR_EVER.ljust(510, b"\0") + b"\x55\xaa")
    boot = ("-drive", f"if=ide,format=raw,readonly=off,file={sector}")
    vm = launch(paused=False, machine="pc", extra=boot)
    with starved(vm.pid):
        assert not vm.await_rest(deadline=Deadline.after(2))
    os.kill(vm.pid, signal.SIGSTOP)
    assert not vm.await_rest(deadline=Deadline.after(1))


def test_a_guest_that_is_gone_does_not_rest(launch: Launch) -> None:
    vm = launch(paused=False)
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(VmExitedError, match="SIGKILL"):
        vm.await_rest(deadline=Deadline.after(20))
