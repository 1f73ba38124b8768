# SPDX-License-Identifier: MIT
"""A VM's state saved and continued in another process: memory, devices, and no trace in the original."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.command_line import Disk, RamFile
from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, QmpCommandError, VmError
from harness.units import MIB
from harness.vm import Vm
from tests.qemu.acpi_guest import AcpiGuest
from tests.qemu.bare_vm import Launch

ADDRESS = 0x100000


def save_template(launch: Launch, folder: Path, deadline: Deadline) -> tuple[Path, Path]:
    ram, state = folder / "ram", folder / "state"
    with AcpiGuest.listening(folder / "qtest-template") as guest:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "64M"], check=True)
        disk = Disk(path=folder / "disk", snapshot=False)
        vm = launch(ram_file=RamFile(path=ram, share=True), disk=disk, extra=guest.arguments())
        guest.write_memory(ADDRESS, 0xCAFE)
        vm.save_state(state, deadline=deadline)
        assert vm.execute("query-status")["status"] == "postmigrate"
        vm.execute("quit")
    return ram, state


def fork_of(ram: Path) -> dict[str, object]:
    disk = Disk(path=ram.with_name("disk"))
    return {"ram_file": RamFile(path=ram, share=False), "disk": disk, "incoming": True}


def memory_at(vm: Vm, address: int) -> int:
    text = vm.execute("human-monitor-command", {"command-line": f"xp /1wx {address:#x}"})
    return int(text.split(":")[1], 16)


def test_forks_start_from_the_saved_memory_and_keep_theirs_to_themselves(
    launch: Launch, tmp_path: Path, deadline: Deadline
) -> None:
    ram, state = save_template(launch, tmp_path, deadline)
    frozen = ram.read_bytes(), (tmp_path / "disk").read_bytes()
    for number in range(2):
        with AcpiGuest.listening(tmp_path / f"qtest{number}") as guest:
            fork = launch(**fork_of(ram), extra=guest.arguments())
            assert fork.execute("query-status")["status"] == "inmigrate"
            fork.restore_state(state, deadline=deadline)
            assert fork.execute("query-status")["status"] == "running"
            assert fork.execute("query-migrate-parameters")["announce-rounds"] == 0
            fork.execute("stop")
            assert memory_at(fork, ADDRESS) == 0xCAFE
            guest.write_memory(ADDRESS, number)
            assert memory_at(fork, ADDRESS) == number
            fork.plug_vcpu(fork.vcpu_slots()[1], device_id="cpu1")
            fork.plug_dimm(128 * MIB, device_id="dimm1")
            fork.execute("human-monitor-command", {"command-line": 'qemu-io disk0 "write 0 64k"'})
            found = fork.state()
            assert (found.vcpu_ids, found.dimm_bytes) == (("cpu1",), {"dimm1": 128 * MIB})
    assert (ram.read_bytes(), (tmp_path / "disk").read_bytes()) == frozen


def test_saving_never_overwrites(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    vm = launch(paused=False)
    state = tmp_path / "state"
    state.write_text("precious")
    with pytest.raises(FileExistsError):
        vm.save_state(state, deadline=deadline)
    assert state.read_text() == "precious"
    assert vm.execute("query-status")["running"] is True


def test_a_save_that_fails_leaves_no_file(launch: Launch, tmp_path: Path) -> None:
    vm = launch(paused=False)
    with pytest.raises(DeadlineExpiredError):
        vm.save_state(tmp_path / "state", deadline=Deadline.after(0))
    assert not (tmp_path / "state").exists()


def test_garbage_is_refused_with_qemus_words(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    ram, state = save_template(launch, tmp_path, deadline)
    state.write_bytes(b"garbage" * 100)
    fork = launch(**fork_of(ram))
    with pytest.raises(VmError, match="Not a migration stream"):
        fork.restore_state(state, deadline=deadline)


def test_a_state_of_another_shape_is_refused(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    ram, state = save_template(launch, tmp_path, deadline)
    fork = launch(**fork_of(ram), network_device=None)
    with pytest.raises(VmError, match="load of migration failed"):
        fork.restore_state(state, deadline=deadline)


def test_a_passed_file_descriptor_is_known_by_its_name(launch: Launch, tmp_path: Path) -> None:
    vm = launch()
    target = tmp_path / "passed"
    with target.open("wb") as file:
        vm.send_fd("mine", file.fileno())
        vm.execute("closefd", {"fdname": "mine"})
        with pytest.raises(QmpCommandError, match="mine"):
            vm.execute("closefd", {"fdname": "mine"})
