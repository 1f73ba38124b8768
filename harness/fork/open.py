# SPDX-License-Identifier: MIT
"""A guest for each plan: forked from a template, or booted when the plan asks for that."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness.deadline import Deadline
from harness.errors import BenchError
from harness.fork.forkable import why_not_forkable
from harness.fork.manifest import DISK, RAM, STATE, VARIABLES, check_template, read_manifest
from harness.fork.store import image_in_use
from harness.fork.template import template_for
from harness.guest.bench import Bench, SshBench, with_system
from harness.guest.driver_setup import DriverSetup
from harness.guest.guest import Guest, blaming_vm
from harness.guest.kinds import kind_of
from harness.vm import migration
from harness.vm.argv import Disk, RamFile
from harness.vm.qemu_facts import can_fork_from_read_only
from harness.vm.shape import VmShape
from harness.vm.vm import Vm

RESTORE_WITHIN_S = 60.0
BOOT_FILE = "boot.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRecord:
    """How a guest came to run and how its own time of day relates to the host's; ``boot.json`` of a plan.

    A fork goes on from the instant its template was saved: its boot id is the template's, and its time of day
    is behind by the age of the template. Nobody sets it, for a guest is not to see its clock jump under the
    driver. Instants on the timeline come from the performance counter and are right in any case.
    """

    boot: Literal["fork", "cold"]
    reason: str | None  #: why it was booted; None for a fork
    boot_id: str | None  #: None, as are the clock's figures, for a guest without an operating system
    template: str | None  #: its key; None after a cold boot
    template_built_at: str | None  #: ISO 8601, UTC
    began_at: str  #: ISO 8601, UTC: when QEMU was started
    restored_after_s: float | None  #: from then, device state loaded and running; None after a cold boot
    ready_after_s: float  #: from then, the guest answering
    clock_ahead_s: float | None  #: the guest's time of day less the host's; below zero when it is behind
    clock_error_s: float | None  #: right within plus or minus this


@dataclass(frozen=True, slots=True)
class _Opened:
    guest: Guest
    template: Path | None
    began_at: datetime
    began_s: float
    restored_after_s: float | None


@contextmanager
def open_guest(
    bench: Bench, *, shape: VmShape, boot: Literal["fork", "cold"], driver: DriverSetup, folder: Path
) -> Iterator[Guest]:
    """Give a plan a guest of its own, forked from the template for its VM shape or booted as it asks.

    The driver runs, configured as given. The VM ends with the block; until then nobody can remove the
    template and the image. The folder gets ``boot.json``.

    :raise BenchError: when the template cannot be built or the guest does not become ready.
    :raise TemplateDamagedError: the template is not what was saved, so nothing that the guest or its driver
        is blamed for says anything.
    :raise GuestGoneError: when it restarts, panics or switches itself off instead.
    :raise UsageError: ``HIL_CACHE_LIMIT`` is no size.
    """
    reason = why_booted(bench, shape, boot)
    with _keeping_image(bench):
        opening = _forked if reason is None else _booted
        with opening(bench, shape, folder) as opened:
            _record(opened, reason, folder=folder, bench=bench)
            opened.guest.template = opened.template
            opened.guest.set_up_driver(driver, deadline=Deadline.after(bench.profile.deadlines.command_s))
            yield opened.guest


def why_booted(bench: Bench, shape: VmShape, boot: Literal["fork", "cold"]) -> str | None:
    """Return why a guest that is to be opened like this is booted, or None if it comes from a template."""
    asked = "the plan asks for it" if boot == "cold" else None
    has_args = isinstance(bench, SshBench) and bench.profile.qemu_args
    # What they add may hold what no saved state does, such as a disk that is written to.
    added = "the guest's profile has qemu_args" if has_args else None
    return asked or kind_of(bench.profile).why_not_forked or added or why_not_forkable(shape)


def _keeping_image(bench: Bench) -> AbstractContextManager[None]:
    return image_in_use(bench.image, bench.cache) if isinstance(bench, SshBench) else nullcontext()


@contextmanager
def _forked(bench: Bench, shape: VmShape, folder: Path) -> Iterator[_Opened]:
    kind = kind_of(bench.profile)
    with template_for(with_system(bench), shape, folder=folder) as template:
        began_at, began_s = datetime.now(UTC), time.monotonic()
        deadline = Deadline.after(RESTORE_WITHIN_S)
        ram = RamFile(path=template / RAM, share=False, read_only=can_fork_from_read_only(bench.qemu))
        config = bench.vm_config(shape)
        config = replace(
            config,
            disk=Disk(path=template / DISK, format="qcow2"),
            variables=config.variables and Disk(path=template / VARIABLES, format="raw"),
            ram_file=ram,
            incoming=True,
        )
        with (
            _trusting_only_what_was_saved(template) as watched,
            Vm.launch(config, folder=folder, deadline=deadline) as vm,
            blaming_vm(vm),
        ):
            migration.restore_state(vm, template / STATE, deadline=deadline)
            restored_after_s = time.monotonic() - began_s
            with kind.enter(bench, vm, deadline=deadline) as guest:
                watched.append(guest)
                yield _Opened(guest, template, began_at, began_s, restored_after_s)


@contextmanager
def _trusting_only_what_was_saved(template: Path) -> Iterator[list[Guest]]:
    """Check the template, once its fork has ended, if that broke or anything in a guest given is blamed."""
    guests: list[Guest] = []
    try:
        yield guests
    except BenchError:
        check_template(template)
        raise
    if any(guest.is_blamed for guest in guests):
        check_template(template)


@contextmanager
def _booted(bench: Bench, shape: VmShape, folder: Path) -> Iterator[_Opened]:
    kind = kind_of(bench.profile)
    began_at, began_s = datetime.now(UTC), time.monotonic()
    with kind.boot(bench, bench.vm_config(shape), folder=folder) as vm, blaming_vm(vm):
        deadline = Deadline.after(bench.profile.deadlines.command_s)
        with kind.enter(bench, vm, deadline=deadline) as guest:
            yield _Opened(guest, None, began_at, began_s, None)


def _record(opened: _Opened, reason: str | None, *, folder: Path, bench: Bench) -> None:
    time_of_day = opened.guest.time_of_day(deadline=Deadline.after(bench.profile.deadlines.command_s))
    template = opened.template
    built_at_s = None if template is None else read_manifest(template).built_at_s
    record = BootRecord(
        boot="cold" if template is None else "fork",
        reason=reason,
        boot_id=None if time_of_day is None else time_of_day.boot_id,
        template=None if template is None else template.name,
        template_built_at=None if built_at_s is None else datetime.fromtimestamp(built_at_s, UTC).isoformat(),
        began_at=opened.began_at.isoformat(),
        restored_after_s=opened.restored_after_s,
        ready_after_s=time.monotonic() - opened.began_s,
        clock_ahead_s=None if time_of_day is None else time_of_day.ahead_s,
        clock_error_s=None if time_of_day is None else time_of_day.error_s,
    )
    (folder / BOOT_FILE).write_text(json.dumps(dataclasses.asdict(record), indent=1) + "\n")
