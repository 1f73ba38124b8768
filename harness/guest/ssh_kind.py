# SPDX-License-Identifier: MIT
"""What the kinds of guest have in common that have an operating system and are entered over SSH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.guest.bench import Bench, SshBench, with_system
from harness.guest.binaries import GuestBinaries, build_guest_binaries
from harness.guest.dialect import Dialect
from harness.guest.driver_file import ImportCheck, check_driver_file, kept_driver
from harness.guest.guest import Guest
from harness.guest.images import GuestImage, find_image
from harness.guest.profile import Profile, SshProfile
from harness.guest.signing import signed_driver
from harness.guest.ssh_guest import boot, enter
from harness.host.cache import Progress
from harness.vm.accelerator import choose_accelerator
from harness.vm.argv import AcceleratorChoice, VmConfig
from harness.vm.vm import Vm


@dataclass(frozen=True, slots=True)
class SshKind:
    """See :class:`harness.guest.kinds.GuestKind`."""

    dialect: Dialect
    imports: ImportCheck  #: what is wrong with what a driver imports
    signs: bool = False  #: whether the sample driver needs a signature
    why_not_forked: str | None = None

    def image(self, profile: Profile, *, cache: Path, progress: Progress) -> GuestImage:
        """See :class:`harness.guest.kinds.GuestKind`."""
        _binaries, image = _built(profile, cache=cache, progress=progress)
        return image

    def own_driver(self, profile: Profile, asked_for: Path | None) -> Path | None:
        """See :class:`harness.guest.kinds.GuestKind`."""
        profile = _with_system(profile)
        path = asked_for or profile.driver_path
        if path is not None:
            signed = profile.driver.signature == "required"
            check_driver_file(path, imports=self.imports, signed=signed, always_signed=self.signs)
        return path

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
        """See :class:`harness.guest.kinds.GuestKind`."""
        binaries, image = _built(profile, cache=cache, progress=progress)
        sample = signed_driver(binaries.driver, cache=cache) if self.signs and not driver else binaries.driver
        progress("choosing the accelerator", 0.0)
        return SshBench(
            profile=_with_system(profile),
            image=image,
            accelerator=choose_accelerator(accelerator, qemu=qemu, cache_dir=cache, kernel=image.kernel),
            driver=sample if driver is None else kept_driver(driver, cache=cache),
            probe=binaries.probe,
            cache=cache,
            qemu=qemu,
        )

    def boot(self, bench: Bench, config: VmConfig, *, folder: Path) -> AbstractContextManager[Vm]:
        """See :class:`harness.guest.kinds.GuestKind`."""
        return boot(with_system(bench), config, self.dialect, folder=folder)

    @contextmanager
    def enter(self, bench: Bench, vm: Vm, *, deadline: Deadline) -> Iterator[Guest]:
        """See :class:`harness.guest.kinds.GuestKind`."""
        with enter(with_system(bench), vm, self.dialect, deadline=deadline) as guest:
            yield guest

    def warm_up(self, bench: Bench, vm: Vm, *, deadline: Deadline) -> None:
        """See :class:`harness.guest.kinds.GuestKind`."""
        with enter(with_system(bench), vm, self.dialect, deadline=deadline) as guest:
            guest.sample(deadline=deadline)
            guest.log.poll(deadline=deadline)
            # The reference guest keeps a probe at hand after this, which each fork finds running.
            probe = with_system(bench).profile.probe
            guest.ssh.run([probe], deadline=deadline).check()
            # What lies only in memory, the driver's service too, a fork would lose at its first hard reset.
            guest.ssh.run([probe, "--save"], deadline=deadline).check()


def _built(profile: Profile, *, cache: Path, progress: Progress) -> tuple[GuestBinaries, GuestImage]:
    progress("building the driver and the probe", 0.0)
    binaries = build_guest_binaries()
    image = find_image(_with_system(profile), binaries=binaries, cache=cache, progress=progress)
    return binaries, image


def _with_system(profile: Profile) -> SshProfile:
    assert isinstance(profile, SshProfile)
    return profile
