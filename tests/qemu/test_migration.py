# SPDX-License-Identifier: MIT
"""A VM's state saved and continued in another process: memory, devices, and no trace in the original."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.document.units import MIB
from harness.errors import DeadlineExpiredError, QmpCommandError, VmError
from harness.vm import migration
from harness.vm.argv import Disk, RamFile
from harness.vm.vm import Vm
from tests.qemu.bare_vm import Launch, acpi_of, small_shape

ADDRESS = 0x100000
NETWORK_SLOT = 1  #: the first free one on the PCI bus of q35


def drive_virtio_network(vm: Vm, device: int) -> None:
    """Drive a virtio network device on bus 0 as a guest that takes all it offers, but use no queue."""
    acpi, qtest = acpi_of(vm), vm.qtest
    assert qtest is not None
    # Virtio 1.1, 4.1.4.8, legacy interface: I/O registers for features offered, taken, and the status.
    registers = 0xC000
    acpi.write_pci(device, 0x10, registers)
    acpi.write_pci(device, 0x04, 1, bits=16)
    offered = qtest.read_port(registers, bits=32)
    qtest.write_port(registers + 18, 1 | 2)
    # But VIRTIO_F_BAD_FEATURE, by which a driver that takes anything gives itself away.
    qtest.write_port(registers + 4, offered & ~(1 << 30), bits=32)
    qtest.write_port(registers + 18, 1 | 2 | 4)


def save_template(
    launch: Launch,
    folder: Path,
    deadline: Deadline,
    *,
    network: str = "virtio-net-pci",
    firmware: tuple[str, ...] = (),
) -> tuple[Path, Path]:
    ram, state = folder / "ram", folder / "state"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "64M"], check=True)
    disk = Disk(path=folder / "disk", snapshot=False)
    ram_file = RamFile(path=ram, share=True)
    vm = launch(ram_file=ram_file, disk=disk, network_device=network, extra=firmware, qtest=True)
    assert vm.qtest is not None
    vm.qtest.write_memory(ADDRESS, 0xCAFE)
    if network == "virtio-net-pci":
        drive_virtio_network(vm, NETWORK_SLOT)
    migration.save_state(vm, state, deadline=deadline)
    # QEMU tells of the end a moment before it is in its last state.
    assert vm.execute("query-status")["status"] in ("finish-migrate", "postmigrate")
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
        fork = launch(**fork_of(ram), qtest=True)
        assert fork.execute("query-status")["status"] == "inmigrate"
        migration.restore_state(fork, state, deadline=deadline)
        assert fork.execute("query-status")["status"] == "running"
        assert fork.execute("query-migrate-parameters")["announce-rounds"] == 1
        fork.execute("stop")
        assert memory_at(fork, ADDRESS) == 0xCAFE
        fork.qtest.write_memory(ADDRESS, number)
        assert memory_at(fork, ADDRESS) == number
        fork.plug_vcpu(fork.vcpu_slots()[1], device_id="cpu1")
        fork.plug_dimm(128 * MIB, device_id="dimm1")
        fork.execute("human-monitor-command", {"command-line": 'qemu-io disk0 "write 0 64k"'})
        found = fork.state()
        assert (found.vcpu_ids, found.dimm_bytes) == (("cpu1",), {"dimm1": 128 * MIB})
    assert (ram.read_bytes(), (tmp_path / "disk").read_bytes()) == frozen


FLASH_BYTES = 128 << 10
#: The variables lie below the code, which ends at 4 GiB.
VARIABLES = (4 << 30) - 2 * FLASH_BYTES


def write_variable(vm: Vm, value: int) -> None:
    """Write to flash as firmware does, by Intel's commands: 0x40 and the bytes, then 0xff to read again."""
    for word in (0x40, value, 0xFF):
        vm.qtest.write_memory(VARIABLES, word)


def test_forks_start_from_the_saved_variables_and_keep_theirs_to_themselves(
    launch: Launch, tmp_path: Path, deadline: Deadline
) -> None:
    code, variables = tmp_path / "code.fd", tmp_path / "variables"
    for path in (code, variables):
        path.write_bytes(b"\xff" * FLASH_BYTES)
    ram, state = tmp_path / "ram", tmp_path / "state"

    def launched(**changes: object) -> Vm:
        written = changes.get("incoming") is None
        disk = Disk(path=variables, format="raw", snapshot=not written)
        ram_file = RamFile(path=ram, share=written)
        firmware = Disk(path=code, format="raw")
        return launch(**changes, firmware=firmware, variables=disk, ram_file=ram_file, qtest=True)

    template = launched()
    write_variable(template, 0xCAFE)
    migration.save_state(template, state, deadline=deadline)
    template.execute("quit")
    frozen = variables.read_bytes()
    assert frozen[:4] == (0xCAFE).to_bytes(4, "little")
    for number in range(2):
        fork = launched(incoming=True)
        migration.restore_state(fork, state, deadline=deadline)
        fork.execute("stop")
        assert fork.qtest.read_memory(VARIABLES) == 0xCAFE
        write_variable(fork, number)
        assert fork.qtest.read_memory(VARIABLES) == number
    assert variables.read_bytes() == frozen
    assert code.read_bytes() == b"\xff" * FLASH_BYTES


def test_the_memory_of_each_node_is_saved_in_a_file_of_its_own(
    launch: Launch, tmp_path: Path, deadline: Deadline
) -> None:
    ram, state = tmp_path / "ram", tmp_path / "state"
    shape = small_shape(nodes=[{"vcpus": 4, "memory": "32 MiB"}, {"memory": "32 MiB"}])
    addresses = (1 << 20, 33 << 20)
    template = launch(shape=shape, ram_file=RamFile(path=ram, share=True), qtest=True)
    for address in addresses:
        template.qtest.write_memory(address, address)
    migration.save_state(template, state, deadline=deadline)
    template.execute("quit")
    assert [path.stat().st_size for path in (ram, tmp_path / "ram1")] == [32 << 20, 32 << 20]
    fork = launch(shape=shape, ram_file=RamFile(path=ram, share=False), incoming=True)
    migration.restore_state(fork, state, deadline=deadline)
    fork.execute("stop")
    assert [memory_at(fork, address) for address in addresses] == list(addresses)


@pytest.mark.parametrize("network", ["virtio-net-pci", "e1000e"])
def test_a_fork_can_restart_and_power_off(
    launch: Launch, tmp_path: Path, asleep: tuple[str, ...], deadline: Deadline, network: str
) -> None:
    ram, state = save_template(launch, tmp_path, deadline, network=network, firmware=asleep)
    fork = launch(**fork_of(ram), network_device=network, extra=asleep, qtest=True)
    migration.restore_state(fork, state, deadline=deadline)
    guest = acpi_of(fork)
    assert fork.watch.incidents == ()
    with fork.watch.asked_for("RESET") as resets:
        fork.execute("system_reset")
        assert resets.get(deadline=deadline).data["reason"] == "host-qmp-system-reset"
        guest.restart()
        assert resets.get(deadline=deadline).data["reason"] == "guest-reset"
    assert fork.execute("query-status")["status"] == "running"
    with fork.watch.asked_for("SHUTDOWN", "STOP") as ended:
        guest.switch_on()
        guest.sleep(5)
        ended.wait(lambda events: len(events) == 2, deadline=deadline)
    assert fork.execute("query-status")["status"] == "shutdown"
    fork.check()


def test_saving_never_overwrites(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    vm = launch(paused=False)
    state = tmp_path / "state"
    state.write_text("precious")
    with pytest.raises(FileExistsError):
        migration.save_state(vm, state, deadline=deadline)
    assert state.read_text() == "precious"
    assert vm.execute("query-status")["running"] is True


def test_a_save_that_fails_leaves_no_file(launch: Launch, tmp_path: Path) -> None:
    vm = launch(paused=False)
    with pytest.raises(DeadlineExpiredError):
        migration.save_state(vm, tmp_path / "state", deadline=Deadline.after(0))
    assert not (tmp_path / "state").exists()


def test_garbage_is_refused_with_qemus_words(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    ram, state = save_template(launch, tmp_path, deadline)
    state.write_bytes(b"garbage" * 100)
    fork = launch(**fork_of(ram))
    with pytest.raises(VmError, match="Not a migration stream"):
        migration.restore_state(fork, state, deadline=deadline)


def test_a_state_of_another_shape_is_refused(launch: Launch, tmp_path: Path, deadline: Deadline) -> None:
    ram, state = save_template(launch, tmp_path, deadline)
    fork = launch(**fork_of(ram), network_device=None)
    with pytest.raises(VmError, match="load of migration failed"):
        migration.restore_state(fork, state, deadline=deadline)


def test_a_passed_file_descriptor_is_known_by_its_name(launch: Launch, tmp_path: Path) -> None:
    vm = launch()
    target = tmp_path / "passed"
    with target.open("wb") as file:
        vm.send_fd("mine", file.fileno())
        vm.execute("closefd", {"fdname": "mine"})
        with pytest.raises(QmpCommandError, match="mine"):
            vm.execute("closefd", {"fdname": "mine"})
