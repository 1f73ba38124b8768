# SPDX-License-Identifier: MIT
"""All that the VM and the guest of a plan are made of, chosen once for many plans.

:class:`Bench` is what every kind of guest needs, :class:`SshBench` what one with an operating system has too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import BenchError
from harness.evidence.verdict import NONE, Setting
from harness.guest.images import GuestImage
from harness.guest.profile import Profile, SshProfile
from harness.host.cache import file_hash
from harness.version import __version__
from harness.vm.accelerator import DEFAULT_QEMU, Accelerator, find_qemu_version
from harness.vm.argv import Disk, VmConfig
from harness.vm.image_format import image_format
from harness.vm.shape import VmShape


@dataclass(frozen=True, slots=True)
class Failure:
    """A template that could not be built."""

    error: BenchError
    until: Deadline  #: from then on it is tried again, for what kept it from being built may have passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every plan's VM and guest are made of, whatever system the guest has."""

    profile: Profile
    accelerator: Accelerator
    cache: Path
    qemu: str = DEFAULT_QEMU
    #: What came of building a template, by its key, so that it is not tried again for every plan.
    failures: dict[str, Failure] = field(default_factory=dict, compare=False, repr=False)

    def vm_config(self, shape: VmShape) -> VmConfig:
        """Return the VM for this bench's guest in the given shape."""
        profile = self.profile
        return VmConfig(
            shape=shape,
            qemu=self.qemu,
            machine=self._machine(shape),
            accelerator=self.accelerator.name,
            tcg_thread=profile.tcg_thread,
            cpu_model=self._cpu_model(),
            network_device=None,
            paused=shape.start == "paused",
        )

    def setting(self) -> Setting:
        """Return what a verdict says about where it was reached."""
        return Setting(
            guest=self.profile.name,
            system=self.profile.system,
            accelerator=self.accelerator.name,
            accelerator_reason=self.accelerator.reason,
            tcg_thread=self.profile.tcg_thread if self.accelerator.name == "tcg" else None,
            qemu_version=".".join(str(part) for part in find_qemu_version(self.qemu)),
            image_key=NONE,
            driver_file=NONE,
            driver_sha256=NONE,
            harness_version=__version__,
        )

    def _machine(self, shape: VmShape) -> str:
        # A plan names another machine; the options that the guest needs of it stay.
        _name, *options = self.profile.machine.split(",")
        return self.profile.machine if shape.machine is None else ",".join([shape.machine, *options])

    def _cpu_model(self) -> str:
        models = self.profile.cpu_model
        model = models.kvm if self.accelerator.name == "kvm" else models.tcg
        return self.accelerator.cpu_model(model, find_qemu_version(self.qemu))


@dataclass(frozen=True, slots=True, kw_only=True)
class SshBench(Bench):
    """The bench of a guest with an operating system: what is on its disk and what is brought into it."""

    profile: SshProfile
    image: GuestImage
    driver: Path  #: the .sys under test
    probe: Path  #: hpprobe.exe

    def vm_config(self, shape: VmShape) -> VmConfig:
        """Return the VM that boots this bench's image in the given shape."""
        profile = self.profile
        return replace(
            Bench.vm_config(self, shape),
            firmware=_image(profile.firmware_path),
            variables=_image(profile.variables_path),
            disk=Disk(path=self.image.disk, format=self.image.disk_format),
            disk_device=profile.disk_device,
            kernel=self.image.kernel,
            initrd=self.image.initrd,
            append=self.image.append,
            network_device=profile.network_device,
            extra=profile.qemu_args,
        )

    def setting(self) -> Setting:
        """Return what a verdict says about where it was reached."""
        return replace(
            Bench.setting(self),
            image_key=self.image.key,
            driver_file=self.driver.name,
            driver_sha256=file_hash(self.driver),
            qemu_args=self.profile.qemu_args,
        )


def _image(path: Path | None) -> Disk | None:
    return None if path is None else Disk(path=path, format=image_format(path))


def with_system(bench: Bench) -> SshBench:
    """Return the bench as that of a guest with an operating system.

    :raise ValueError: the guest has none.
    """
    if not isinstance(bench, SshBench):
        raise ValueError(f"the guest {bench.profile.name} has no operating system")
    return bench
