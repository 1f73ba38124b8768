# SPDX-License-Identifier: MIT
"""Save a VM's device state to a file and start another VM from it.

With the boot memory in a file (:class:`harness.vm.argv.RamFile`) the state holds the devices only:
the memory stays where it is (QEMU capability ``x-ignore-shared``, docs/system/vm-templating.rst).
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import VmError
from harness.vm.vm import Vm
from harness.wires.qmp import Event

_FD_NAME = "state"
_ENDED = frozenset({"completed", "failed", "cancelled"})


def save_state(vm: Vm, path: Path, *, deadline: Deadline) -> None:
    """Stop the VM and write its device state to a new file. The VM can only be ended after that.

    A file that could not be written whole is removed.

    :raise FileExistsError: if the file is there already; the VM runs on.
    :raise VmError: if QEMU does not complete it.
    """
    with path.open("xb") as file:
        try:
            vm.pause(deadline=deadline)
            _migrate(vm, "migrate", file.fileno(), deadline)
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise


def restore_state(vm: Vm, path: Path, *, deadline: Deadline) -> None:
    """Load the device state into a VM launched with ``incoming`` and let it run.

    The VM must be of the very shape, devices and QEMU that the state was saved from.

    :raise VmError: if QEMU does not complete it; a state it cannot read at all ends it.
    """
    # The guest would tell a network that has nobody else where it is now, five times, instead of answering.
    # Once is not to be had for less: with 0, virtio-net loses its timer at the load (hw/net/virtio-net.c,
    # virtio_net_post_load_device) and QEMU 7.2 to 10.0 crashes at the guest's next reset.
    vm.execute("migrate-set-parameters", {"announce-rounds": 1}, deadline=deadline)
    with path.open("rb") as file:
        _migrate(vm, "migrate-incoming", file.fileno(), deadline)
    status = vm.execute("query-status", deadline=deadline)["status"]
    if status == "inmigrate":
        raise VmError("QEMU says that the state is loaded and still waits for it")
    vm.resume(deadline=deadline)


def _migrate(vm: Vm, command: str, fd: int, deadline: Deadline) -> None:
    # The sandbox lets QEMU start no program, and file: is newer than QEMU 7.2; a passed file works with all.
    capabilities = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
    vm.execute("migrate-set-capabilities", {"capabilities": capabilities}, deadline=deadline)
    vm.send_fd(_FD_NAME, fd, deadline=deadline)
    with vm.listen("MIGRATION") as listener:
        vm.execute(command, {"uri": f"fd:{_FD_NAME}"}, deadline=deadline)
        ended: Event = listener.get(lambda event: event.data["status"] in _ENDED, deadline=deadline)
    if ended.data["status"] != "completed":
        details = vm.execute("query-migrate", deadline=deadline)
        reason = details.get("error-desc", "QEMU gives no reason")
        raise VmError(f"{command} ended as {ended.data['status']}: {reason}")
