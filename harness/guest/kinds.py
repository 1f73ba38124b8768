# SPDX-License-Identifier: MIT
"""The kinds of guest, and what each must bring: one file per kind, chosen by ``system`` in the profile.

What each has and can do stands in :mod:`harness.guest.ability`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.deadline import Deadline
from harness.guest.ability import System
from harness.guest.bench import Bench
from harness.guest.guest import Guest
from harness.guest.images import GuestImage
from harness.guest.linux_wine import LINUX_WINE
from harness.guest.profile import Profile
from harness.guest.qtest import QTEST
from harness.guest.windows import WINDOWS
from harness.host.cache import Progress
from harness.vm.argv import AcceleratorChoice, VmConfig
from harness.vm.vm import Vm


class GuestKind(Protocol):
    """What is particular to one kind of guest."""

    @property
    def why_not_forked(self) -> str | None:
        """Why such a guest is always booted, or None if it can be forked from a template."""

    def image(self, profile: Profile, *, cache: Path, progress: Progress) -> GuestImage:
        """Return the guest's image, built first if it is one that the project builds.

        :raise ImageError: it is missing, damaged or of another version.
        :raise HostError: building it failed.
        :raise UsageError: such a guest has none.
        """

    def own_driver(self, profile: Profile, asked_for: Path | None) -> Path | None:
        """Return the file of the user's own driver: the one asked for, or else the profile's.

        :return: None for the sample driver, which is built here, and for a guest without a driver.
        :raise UsageError: it is none that such a guest can load, with the reasons.
        """

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
        """Return all that plans for the guest share; what is missing of it is built first.

        :param driver: as :meth:`own_driver` returns it.
        :raise BenchError: something could not be built.
        """

    def boot(self, bench: Bench, config: VmConfig, *, folder: Path) -> AbstractContextManager[Vm]:
        """Boot a VM and bring its guest to where it can be entered; it ends with the block."""

    def enter(self, bench: Bench, vm: Vm, *, deadline: Deadline) -> AbstractContextManager[Guest]:
        """Open the ways into a guest that was booted by :meth:`boot`, or forked from one that was."""

    def warm_up(self, bench: Bench, vm: Vm, *, deadline: Deadline) -> None:
        """Let a booted guest do once what every fork does first, so that its template has it behind it."""


_KINDS: dict[System, GuestKind] = {
    "linux-wine": LINUX_WINE,
    "windows": WINDOWS,
    "qtest": QTEST,
}


def kind_of(profile: Profile) -> GuestKind:
    """Return the kind of a profile's guest."""
    return _KINDS[profile.system]
