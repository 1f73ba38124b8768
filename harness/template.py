# SPDX-License-Identifier: MIT
"""Templates: a booted guest with the driver loaded, saved once and forked for every plan.

A template is a folder in the cache with the guest's memory as a file, the device state and a frozen
disk (QEMU docs/system/vm-templating.rst). A fork maps the memory copy-on-write and writes to an overlay
that dies with its QEMU, so no fork sees another and none changes the template. Nothing is ever reset
by ``loadvm``, which silently leaves hot-plugged devices behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.accelerator import find_qemu_version
from harness.cache import built_folder, content_key, file_hash
from harness.command_line import Disk, RamFile, command_line
from harness.deadline import Deadline
from harness.guest import Bench, Guest, blaming_vm, boot, enter
from harness.host_tools import find_tool, run_tool
from harness.plan import DriverSetup, Plan, VmShape
from harness.vm import Vm

FORMAT = "1"
SAVE_WITHIN_S = 60.0
RESTORE_WITHIN_S = 60.0

_RAM, _STATE, _DISK = "ram", "state", "disk.qcow2"


@contextmanager
def open_guest(bench: Bench, plan: Plan, *, folder: Path) -> Iterator[Guest]:
    """Give the plan a guest of its own, forked from the template for its VM shape.

    The driver runs, configured as the plan says. The VM ends with the block.

    :raise BenchError: when the template cannot be built or the fork does not become ready.
    """
    template = find_template(bench, plan.vm, folder=folder)
    deadline = Deadline.after(RESTORE_WITHIN_S)
    config = replace(
        bench.vm_config(plan.vm),
        disk=Disk(path=template / _DISK, format="qcow2"),
        ram_file=RamFile(path=template / _RAM, share=False),
        incoming=True,
    )
    with Vm.launch(config, folder=folder, deadline=deadline) as vm, blaming_vm(vm):
        vm.restore_state(template / _STATE, deadline=deadline)
        with enter(bench, vm, deadline=deadline) as guest:
            if plan.driver != DriverSetup():
                _set_up_driver(guest, plan.driver, within_s=bench.profile.deadlines.command_s)
            yield guest


def find_template(bench: Bench, shape: VmShape, *, folder: Path) -> Path:
    """Return the template of this bench for this VM shape, built first if need be.

    The logs of building it go to ``template/`` in the folder, so that a boot that fails leaves evidence.
    """
    return built_folder(
        bench.cache / "templates" / template_key(bench, shape),
        lambda scratch: _build(bench, shape, scratch=scratch, folder=folder / "template"),
    )


def template_key(bench: Bench, shape: VmShape) -> str:
    """Return a key that changes with everything a template depends on."""
    profile = bench.profile
    qemu = Path(find_tool(bench.qemu)).resolve().stat()
    return content_key(
        [
            FORMAT,
            bench.image.key,
            file_hash(bench.driver),
            file_hash(bench.probe),
            repr((profile.driver, profile.driver_log, profile.probe)),
            repr((find_qemu_version(bench.qemu), qemu.st_size, qemu.st_mtime_ns)),
            *command_line(bench.vm_config(shape), folder=Path("logs"), qmp_fd=0, overlay_fd=0),
        ]
    )


def _build(bench: Bench, shape: VmShape, *, scratch: Path, folder: Path) -> None:
    overlay = scratch / _DISK
    deadline = Deadline.after(SAVE_WITHIN_S)
    image = bench.image
    # fmt: off
    run_tool([
        find_tool("qemu-img"), "create", "-q",
        "-f", "qcow2",
        "-b", image.disk,
        "-F", image.disk_format,
        overlay,
    ], deadline=deadline)
    # fmt: on
    config = replace(
        bench.vm_config(shape),
        disk=Disk(path=overlay, format="qcow2", snapshot=False),
        ram_file=RamFile(path=scratch / _RAM, share=True),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with boot(bench, config, folder=folder) as vm:
        vm.save_state(scratch / _STATE, deadline=Deadline.after(SAVE_WITHIN_S))


def _set_up_driver(guest: Guest, setup: DriverSetup, *, within_s: float) -> None:
    deadline = Deadline.after(within_s)
    guest.driver.stop(deadline=deadline)
    guest.driver.configure(interfaces=setup.interfaces, synchronous=setup.synchronous, deadline=deadline)
    guest.driver.start(deadline=deadline)
