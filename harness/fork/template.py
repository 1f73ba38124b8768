# SPDX-License-Identifier: MIT
"""Templates: booted guests with the driver loaded, saved once, to be forked for every plan.

A template is a booted guest with the driver loaded, saved once: a folder in the cache with the guest's memory
as a file, the device state and a frozen disk (QEMU docs/system/vm-templating.rst). A fork maps the memory
copy-on-write and writes to an overlay that dies with its QEMU, so no fork sees another and none changes the
template. Nothing is ever reset by ``loadvm``, which silently leaves hot-plugged devices behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from harness.deadline import Deadline
from harness.document.units import MIB
from harness.errors import BenchError
from harness.fork.manifest import DISK, FORMAT, RAM, STATE, VARIABLES, TemplateManifest, seal
from harness.fork.store import evict, image_in_use, template_in_use, templates_folder
from harness.guest import driver_service, ssh_guest, ssh_kind
from harness.guest.bench import Failure, SshBench
from harness.guest.images import GuestImage
from harness.guest.kinds import kind_of
from harness.host.cache import cache_limit_bytes, content_key, file_hash
from harness.host.room import check_room
from harness.host.tools import find_tool, run_tool
from harness.vm import migration
from harness.vm.accelerator import find_qemu_version
from harness.vm.argv import Disk, RamFile, command_line
from harness.vm.qemu_facts import can_fork_from_read_only, firmware_files
from harness.vm.shape import VmShape

logger = logging.getLogger(__name__)

SAVE_WITHIN_S = 60.0
REST_WITHIN_S = 30.0
#: What a template takes beside the guest's memory.
_REST_BYTES = 64 * MIB
#: How long a template that could not be built is not tried again; every plan that needs it gets that error.
TRY_AGAIN_AFTER_S = 300.0

# What these modules do to a guest is part of what a template is.
_MADE_BY = (ssh_guest.__file__, ssh_kind.__file__, driver_service.__file__, __file__)


def find_template(bench: SshBench, shape: VmShape, *, folder: Path) -> Path:
    """Return the template of this bench for this VM shape, built first if it is missing or damaged.

    The logs of building it go to ``template/`` in the folder, so that a boot that fails leaves evidence.

    :raise BenchError: when it cannot be built.
    :raise UsageError: ``HIL_CACHE_LIMIT`` is no size.
    """
    with image_in_use(bench.image, bench.cache), template_for(bench, shape, folder=folder) as template:
        return template


def template_key(bench: SshBench, shape: VmShape) -> str:
    """Return a key that changes with everything a template depends on."""
    profile = bench.profile
    qemu = Path(find_tool(bench.qemu)).resolve().stat()
    config = bench.vm_config(shape)
    own = (config.firmware, config.variables)
    firmware = [*firmware_files(bench.qemu), *(disk.path for disk in own if disk is not None)]
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
            *command_line(config, folder=Path("logs"), qmp_fd=0, overlay_fd=0, variables_fd=0),
        ]
    )


@contextmanager
def template_for(bench: SshBench, shape: VmShape, *, folder: Path) -> Iterator[Path]:
    """Give the template of this bench for this VM shape, built first if need be, to be used in the block.

    See :func:`find_template`. The caller keeps the image in use.
    """
    limit_bytes = cache_limit_bytes()
    key = template_key(bench, shape)
    failure = bench.failures.get(key)
    if failure is not None and not failure.until.expired():
        raise failure.error
    is_new = False

    def build(scratch: Path) -> None:
        nonlocal is_new
        is_new = True
        try:
            _build(bench, shape, key=key, scratch=scratch, folder=folder / "template")
        except BenchError as err:
            bench.failures[key] = Failure(err, Deadline.after(TRY_AGAIN_AFTER_S))
            raise

    with template_in_use(templates_folder(bench.cache) / key, build) as template:
        if is_new:
            evict(bench.cache, limit_bytes)
        yield template


def _build(bench: SshBench, shape: VmShape, *, key: str, scratch: Path, folder: Path) -> None:
    check_room(
        bench.cache,
        shape.memory_bytes + _REST_BYTES,
        purpose=f"a template of {bench.profile.name}",
        remedy="make room there, such as by hil template remove, or have HIL_CACHE name another folder",
    )
    overlay, variables = scratch / DISK, scratch / VARIABLES
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
    config = bench.vm_config(shape)
    if config.variables is not None:
        source = ["-f", config.variables.format, config.variables.path]
        run_tool([find_tool("qemu-img"), "convert", *source, "-O", "raw", variables], deadline=deadline)
    config = replace(
        config,
        disk=Disk(path=overlay, format="qcow2", snapshot=False),
        variables=config.variables and Disk(path=variables, format="raw", snapshot=False),
        ram_file=RamFile(path=scratch / RAM, share=True),
    )
    folder.mkdir(parents=True, exist_ok=True)
    kind = kind_of(bench.profile)
    with kind.boot(bench, config, folder=folder) as vm:
        kind.warm_up(bench, vm, deadline=Deadline.after(bench.profile.deadlines.command_s))
        # What it has not finished, such as clearing up after who was logged in, every fork would have to do.
        if not vm.await_rest(deadline=Deadline.after(REST_WITHIN_S)):
            logger.warning("the guest does not come to rest; all forks will begin with what it was doing")
        migration.save_state(vm, scratch / STATE, deadline=Deadline.after(SAVE_WITHIN_S))
        saved_at_s = time.time()
        qemu_version = vm.qemu_version
    # QEMU has ended: nobody writes to the files any more.
    seal(
        scratch,
        lambda files: TemplateManifest(
            format=FORMAT,
            key=key,
            guest=bench.profile.name,
            shape=shape,
            accelerator=bench.accelerator.name,
            qemu_version=qemu_version,
            image_key=image.key,
            driver_sha256=file_hash(bench.driver),
            built_at_s=saved_at_s,
            **asdict(files),
        ),
        read_only_ram=can_fork_from_read_only(bench.qemu),
    )


def _image_build(image: GuestImage) -> list[str]:
    """Return what tells one build of an image from another of the same recipe, which has other SSH keys."""
    manifest = image.disk.with_name("manifest.json")
    return [file_hash(manifest)] if manifest.is_file() else []


def _host_cpu() -> str:
    """Return what KVM's guests see of this host's processor: a state saved on another may not load here."""
    first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    wanted = ("model name", "flags", "microcode")
    return "\n".join(line for line in first.splitlines() if line.startswith(wanted))
