# SPDX-License-Identifier: MIT
"""A guest for each plan: forked from a template, or booted when the plan asks for that.

A template is a booted guest with the driver loaded, saved once: a folder in the cache with the guest's memory
as a file, the device state and a frozen disk (QEMU docs/system/vm-templating.rst). A fork maps the memory
copy-on-write and writes to an overlay that dies with its QEMU, so no fork sees another and none changes the
template. Nothing is ever reset by ``loadvm``, which silently leaves hot-plugged devices behind.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness import driver_service, guest
from harness.accelerator import find_qemu_version
from harness.cache import cache_limit_bytes, content_key, file_hash
from harness.command_line import Disk, RamFile, command_line
from harness.deadline import Deadline
from harness.guest import Bench, Guest, blaming_vm, boot, enter
from harness.host_tools import find_tool, run_tool
from harness.images import GuestImage
from harness.plan import DriverSetup, Plan, VmShape
from harness.qemu_facts import can_fork_from_read_only, firmware_files
from harness.template_store import (
    DISK,
    FORMAT,
    RAM,
    STATE,
    TemplateManifest,
    evict,
    image_in_use,
    read_manifest,
    seal,
    template_in_use,
    templates_folder,
)
from harness.vm import Vm

logger = logging.getLogger(__name__)

SAVE_WITHIN_S = 60.0
RESTORE_WITHIN_S = 60.0
REST_WITHIN_S = 30.0

BOOT_FILE = "boot.json"
_100NS_FROM_1601_TO_1970 = 116_444_736_000_000_000

# What these modules do to a guest is part of what a template is.
_MADE_BY = (guest.__file__, driver_service.__file__, __file__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRecord:
    """How a guest came to run and how its own time of day relates to the host's; ``boot.json`` of a plan.

    A fork goes on from the instant its template was saved: its boot id is the template's, and its time of day
    is behind by the age of the template. Nobody sets it, for a guest is not to see its clock jump under the
    driver. Instants on the timeline come from the performance counter and are right in any case.
    """

    boot: Literal["fork", "cold"]
    boot_id: str
    template: str | None  #: its key; None after a cold boot
    template_built_at: str | None  #: ISO 8601, UTC
    began_at: str  #: ISO 8601, UTC: when QEMU was started
    restored_after_s: float | None  #: from then, device state loaded and running; None after a cold boot
    ready_after_s: float  #: from then, SSH open and the probe answering
    clock_ahead_s: float  #: the guest's time of day less the host's; below zero when it is behind
    clock_error_s: float  #: right within plus or minus this


@contextmanager
def open_guest(bench: Bench, plan: Plan, *, folder: Path) -> Iterator[Guest]:
    """Give the plan a guest of its own, forked from the template for its VM shape or booted as it asks.

    The driver runs, configured as the plan says. The VM ends with the block; until then nobody can remove the
    template and the image. The folder gets ``boot.json``.

    :raise BenchError: when the template cannot be built or the guest does not become ready.
    :raise UsageError: ``HIL_CACHE_LIMIT`` is no size.
    """
    with image_in_use(bench.image, bench.cache):
        opened = _booted(bench, plan, folder) if plan.boot == "cold" else _forked(bench, plan, folder)
        with opened as guest:
            if plan.driver != DriverSetup():
                _set_up_driver(guest, plan.driver, within_s=bench.profile.deadlines.command_s)
            yield guest


def find_template(bench: Bench, shape: VmShape, *, folder: Path) -> Path:
    """Return the template of this bench for this VM shape, built first if it is missing or damaged.

    The logs of building it go to ``template/`` in the folder, so that a boot that fails leaves evidence.

    :raise BenchError: when it cannot be built.
    :raise UsageError: ``HIL_CACHE_LIMIT`` is no size.
    """
    with image_in_use(bench.image, bench.cache), _template(bench, shape, folder) as template:
        return template


def template_key(bench: Bench, shape: VmShape) -> str:
    """Return a key that changes with everything a template depends on."""
    profile = bench.profile
    qemu = Path(find_tool(bench.qemu)).resolve().stat()
    config = bench.vm_config(shape)
    firmware = [*firmware_files(bench.qemu), *([config.firmware] if config.firmware else [])]
    return content_key(
        [
            str(FORMAT),
            *(Path(path).read_bytes() for path in _MADE_BY),
            bench.image.key,
            *_image_build(bench.image),
            file_hash(bench.driver),
            file_hash(bench.probe),
            repr((profile.driver, profile.driver_log, profile.probe)),
            repr((find_qemu_version(bench.qemu), qemu.st_size, qemu.st_mtime_ns)),
            *(file_hash(path) if path.is_file() else "missing" for path in firmware),
            _host_cpu() if bench.accelerator.name == "kvm" else "",
            *command_line(config, folder=Path("logs"), qmp_fd=0, overlay_fd=0),
        ]
    )


@contextmanager
def _template(bench: Bench, shape: VmShape, folder: Path) -> Iterator[Path]:
    limit_bytes = cache_limit_bytes()
    key = template_key(bench, shape)
    is_new = False

    def build(scratch: Path) -> None:
        nonlocal is_new
        is_new = True
        _build(bench, shape, key=key, scratch=scratch, folder=folder / "template")

    with template_in_use(templates_folder(bench.cache) / key, build) as template:
        if is_new:
            evict(bench.cache, limit_bytes)
        yield template


@contextmanager
def _forked(bench: Bench, plan: Plan, folder: Path) -> Iterator[Guest]:
    with _template(bench, plan.vm, folder) as template:
        began_at = datetime.now(UTC)
        began_s = time.monotonic()
        deadline = Deadline.after(RESTORE_WITHIN_S)
        ram = RamFile(path=template / RAM, share=False, read_only=can_fork_from_read_only(bench.qemu))
        config = replace(
            bench.vm_config(plan.vm),
            disk=Disk(path=template / DISK, format="qcow2"),
            ram_file=ram,
            incoming=True,
        )
        with Vm.launch(config, folder=folder, deadline=deadline) as vm, blaming_vm(vm):
            vm.restore_state(template / STATE, deadline=deadline)
            restored_after_s = time.monotonic() - began_s
            with enter(bench, vm, deadline=deadline) as guest:
                _record(guest, template, began_at, began_s, restored_after_s, folder, deadline)
                yield guest


@contextmanager
def _booted(bench: Bench, plan: Plan, folder: Path) -> Iterator[Guest]:
    began_at = datetime.now(UTC)
    began_s = time.monotonic()
    with boot(bench, bench.vm_config(plan.vm), folder=folder) as vm, blaming_vm(vm):
        deadline = Deadline.after(bench.profile.deadlines.command_s)
        with enter(bench, vm, deadline=deadline) as guest:
            _record(guest, None, began_at, began_s, None, folder, deadline)
            yield guest


def _build(bench: Bench, shape: VmShape, *, key: str, scratch: Path, folder: Path) -> None:
    overlay = scratch / DISK
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
        ram_file=RamFile(path=scratch / RAM, share=True),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with boot(bench, config, folder=folder) as vm:
        _warm_up(bench, vm)
        # What it has not finished, such as clearing up after who was logged in, every fork would have to do.
        if not vm.await_rest(deadline=Deadline.after(REST_WITHIN_S)):
            logger.warning("the guest does not come to rest; all forks will begin with what it was doing")
        vm.save_state(scratch / STATE, deadline=Deadline.after(SAVE_WITHIN_S))
        saved_at_s = time.time()
        qemu_version = vm.qemu_version
    # QEMU has ended: nobody writes to the files any more.
    seal(
        scratch,
        lambda sizes, digests: TemplateManifest(
            format=FORMAT,
            key=key,
            guest=bench.profile.name,
            shape=shape,
            accelerator=bench.accelerator.name,
            qemu_version=qemu_version,
            image_key=image.key,
            driver_sha256=file_hash(bench.driver),
            built_at_s=saved_at_s,
            size_bytes=sizes,
            digests=digests,
        ),
        read_only_ram=can_fork_from_read_only(bench.qemu),
    )


def _warm_up(bench: Bench, vm: Vm) -> None:
    """Let the guest do once what every fork does first, so that all of it is in the memory to be saved."""
    deadline = Deadline.after(bench.profile.deadlines.command_s)
    with enter(bench, vm, deadline=deadline) as guest:
        guest.probe.sample(deadline=deadline)
        guest.log.poll(deadline=deadline)
        # The reference guest keeps a probe at hand after this, which each fork finds running.
        guest.ssh.run([bench.profile.probe], deadline=deadline).check()


def _record(
    guest: Guest,
    template: Path | None,
    began_at: datetime,
    began_s: float,
    restored_after_s: float | None,
    folder: Path,
    deadline: Deadline,
) -> None:
    # The first answer waits for the probe to start; the clock is read off the second.
    guest.probe.sample(deadline=deadline)
    sample = guest.probe.sample(deadline=deadline)
    host_s = time.time() - time.monotonic() + (sample.host_before_s + sample.host_after_s) / 2
    guest_s = (sample.system_time_100ns - _100NS_FROM_1601_TO_1970) / 1e7
    built_at_s = None if template is None else read_manifest(template).built_at_s
    record = BootRecord(
        boot="cold" if template is None else "fork",
        boot_id=sample.boot_id,
        template=None if template is None else template.name,
        template_built_at=None if built_at_s is None else datetime.fromtimestamp(built_at_s, UTC).isoformat(),
        began_at=began_at.isoformat(),
        restored_after_s=restored_after_s,
        ready_after_s=time.monotonic() - began_s,
        clock_ahead_s=guest_s - host_s,
        clock_error_s=(sample.host_after_s - sample.host_before_s) / 2,
    )
    (folder / BOOT_FILE).write_text(json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def _set_up_driver(guest: Guest, setup: DriverSetup, *, within_s: float) -> None:
    deadline = Deadline.after(within_s)
    guest.driver.stop(deadline=deadline)
    guest.driver.configure(interfaces=setup.interfaces, synchronous=setup.synchronous, deadline=deadline)
    guest.driver.start(deadline=deadline)


def _image_build(image: GuestImage) -> list[str]:
    """Return what tells one build of an image from another of the same recipe, which has other SSH keys."""
    manifest = image.disk.with_name("manifest.json")
    return [file_hash(manifest)] if manifest.is_file() else []


def _host_cpu() -> str:
    """Return what KVM's guests see of this host's processor: a state saved on another may not load here."""
    first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    wanted = ("model name", "flags", "microcode")
    return "\n".join(line for line in first.splitlines() if line.startswith(wanted))
