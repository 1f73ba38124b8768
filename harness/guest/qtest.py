# SPDX-License-Identifier: MIT
"""A guest without an operating system: the harness answers QEMU's hot-plug registers, as a script says.

QEMU, its devices and its events are real. The vCPUs have a firmware that halts at once, so nothing happens in
the VM but what is done here over qtest. So whatever a guest's ACPI may answer, and whatever may become of a
guest, can be had on purpose, in a tenth of a second, without image and driver. Start at :class:`QtestKind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from harness.deadline import Deadline
from harness.errors import GuestError, UsageError
from harness.evidence.effect import Announcement
from harness.evidence.witness import ObservedRecord
from harness.guest.acpi_answering import AcpiAnswering
from harness.guest.acpi_registers import Place
from harness.guest.bench import Bench
from harness.guest.driver_setup import DriverSetup
from harness.guest.guest import Guest
from harness.guest.images import GuestImage
from harness.guest.profile import Profile, QtestProfile
from harness.host.cache import Progress
from harness.vm.accelerator import Accelerator
from harness.vm.argv import AcceleratorChoice, VmConfig
from harness.vm.vm import Vm

# hlt; jmp back to hlt, at the reset vector 16 bytes below the end of the firmware
_HALTED = bytes([0xF4, 0xEB, 0xFD]).ljust(16, b"\0").rjust(65536, b"\0")


class QtestGuest(Guest):
    """See :class:`Guest`. It has power, ACPI and nothing else."""

    def __init__(self, vm: Vm, acpi: AcpiAnswering) -> None:
        super().__init__(vm)
        self._acpi = acpi

    @property
    def log_data(self) -> bytes:
        """See :class:`Guest`."""
        return b""

    def sample(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`. Tells at least when the harness's own part in the guest has broken."""
        self._acpi.check()

    def time_of_day(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""

    def learn_clock(self, *, anew: bool = False, deadline: Deadline) -> None:
        """See :class:`Guest`."""

    def new_records(self, *, deadline: Deadline) -> tuple[ObservedRecord, ...]:
        """See :class:`Guest`."""
        return ()

    def set_up_driver(self, setup: DriverSetup, *, deadline: Deadline) -> None:
        """See :class:`Guest`. There is none to set up, and no plan that loads asks for it."""

    def start_driver(self, *, deadline: Deadline) -> NoReturn:
        """See :class:`Guest`."""
        raise self._unable("start a driver")

    def stop_driver(self, *, deadline: Deadline) -> NoReturn:
        """See :class:`Guest`."""
        raise self._unable("stop a driver")

    def restart(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self._acpi.order(lambda registers: registers.restart(), deadline=deadline)

    def power_off(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self._acpi.order(lambda registers: registers.sleep(5), deadline=deadline)

    def panic(self, *, deadline: Deadline) -> None:
        """Have the guest panic; returns at once."""
        self._acpi.order(lambda registers: registers.panic(), deadline=deadline)

    def answer(self, place: Place, *, status: int, deadline: Deadline) -> None:
        """Have the guest's ACPI evaluate ``_OST`` for a place once more, whatever the script says."""
        self._acpi.order(lambda registers: registers.answer(place, status=status), deadline=deadline)

    def reconnect(self, *, check: Callable[[], None], deadline: Deadline) -> None:
        """See :class:`Guest`."""
        check()
        self._acpi.order(lambda registers: registers.switch_on(), deadline=deadline)

    def prepare_again(self, *, start_driver: bool, ready: Callable[[], None], deadline: Deadline) -> None:
        """See :class:`Guest`."""
        ready()

    def announce(self, announcement: Announcement, *, deadline: Deadline) -> NoReturn:
        """See :class:`Guest`."""
        raise self._unable("announce an interface")

    def check_parts(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self._acpi.check()

    def _unable(self, what: str) -> GuestError:
        return GuestError(f"a guest without an operating system cannot {what}")


@dataclass(frozen=True, slots=True)
class QtestKind:
    """See :class:`harness.guest.kinds.GuestKind`."""

    why_not_forked: str | None = "without an operating system there is no boot to save"

    def image(self, profile: Profile, *, cache: Path, progress: Progress) -> GuestImage:
        """See :class:`harness.guest.kinds.GuestKind`."""
        raise UsageError(f"the guest {profile.name} has no operating system and no image")

    def own_driver(self, profile: Profile, asked_for: Path | None) -> None:
        """See :class:`harness.guest.kinds.GuestKind`. One that is asked for is for other guests."""

    def bench(
        self,
        profile: Profile,
        *,
        driver: Path | None,
        accelerator: AcceleratorChoice,
        qemu: str,
        cache: Path,
        progress: Progress,
    ) -> Bench:
        """See :class:`harness.guest.kinds.GuestKind`. Nothing is built, and no accelerator is tried."""
        chosen = Accelerator("tcg", "its vCPUs run nothing")
        return Bench(profile=profile, accelerator=chosen, cache=cache, qemu=qemu)

    @contextmanager
    def boot(self, bench: Bench, config: VmConfig, *, folder: Path) -> Iterator[Vm]:
        """See :class:`harness.guest.kinds.GuestKind`."""
        firmware = folder / "halted.rom"
        firmware.write_bytes(_HALTED)
        config = replace(
            config,
            # The timer would interrupt eighteen times a second, and qtest tell of each.
            machine=f"{config.machine},pit=off",
            qtest=True,
            extra=("-bios", str(firmware), "-device", "pvpanic"),
        )
        try:
            deadline = Deadline.after(bench.profile.deadlines.boot_s)
            with Vm.launch(config, folder=folder, deadline=deadline) as vm:
                # QEMU has read it by the time it answers.
                firmware.unlink()
                yield vm
        finally:
            firmware.unlink(missing_ok=True)

    @contextmanager
    def enter(self, bench: Bench, vm: Vm, *, deadline: Deadline) -> Iterator[Guest]:
        """See :class:`harness.guest.kinds.GuestKind`."""
        assert isinstance(bench.profile, QtestProfile)
        with AcpiAnswering.start(vm, bench.profile.acpi) as acpi:
            yield QtestGuest(vm, acpi)

    def warm_up(self, bench: Bench, vm: Vm, *, deadline: Deadline) -> None:
        """See :class:`harness.guest.kinds.GuestKind`."""


QTEST = QtestKind()
