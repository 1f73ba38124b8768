# SPDX-License-Identifier: MIT
"""A guest that is ready for a plan: VM running, SSH open, probe answering, driver loaded."""

from __future__ import annotations

import ntpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.accelerator import DEFAULT_QEMU, Accelerator, find_qemu_version
from harness.cache import file_hash
from harness.command_line import Disk, VmConfig
from harness.deadline import Deadline
from harness.driver_log_tail import DriverLogTail
from harness.driver_service import DriverService
from harness.errors import BenchError, VmExitedError
from harness.images import GuestImage
from harness.plan import VmShape
from harness.probe import Probe
from harness.profile import Profile
from harness.ssh import SshConnection
from harness.verdict import Setting
from harness.vm import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All that a plan's VM and guest are made of, chosen once for many plans."""

    profile: Profile
    image: GuestImage
    accelerator: Accelerator
    driver: Path  #: the .sys under test
    probe: Path  #: hpprobe.exe
    cache: Path
    qemu: str = DEFAULT_QEMU

    def vm_config(self, shape: VmShape) -> VmConfig:
        """Return the VM that boots this bench's image in the given shape."""
        profile = self.profile
        return VmConfig(
            shape=shape,
            qemu=self.qemu,
            machine=profile.machine,
            firmware=None if profile.firmware == "seabios" else Path(profile.firmware).expanduser(),
            accelerator=self.accelerator.name,
            tcg_thread=profile.tcg_thread,
            cpu_model=self._cpu_model(),
            disk=Disk(path=self.image.disk, format=self.image.disk_format),
            disk_device=profile.disk_device,
            kernel=self.image.kernel,
            initrd=self.image.initrd,
            append=self.image.append,
            network_device=profile.network_device,
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
            image_key=self.image.key,
            driver_file=self.driver.name,
            driver_sha256=file_hash(self.driver),
            harness_version=__version__,
        )

    def _cpu_model(self) -> str:
        models = self.profile.cpu_model
        model = models.kvm if self.accelerator.name == "kvm" else models.tcg
        return self.accelerator.cpu_model(model, find_qemu_version(self.qemu))


@dataclass(frozen=True, slots=True)
class Guest:
    """The ways into one running guest."""

    vm: Vm
    ssh: SshConnection
    probe: Probe
    driver: DriverService
    log: DriverLogTail


@contextmanager
def boot(bench: Bench, config: VmConfig, *, folder: Path) -> Iterator[Vm]:
    """Boot a VM and install and start the driver under test in its guest; the VM ends with the block.

    Nobody is logged in any more when the VM is handed over; see :func:`enter`.

    :raise BenchError: when it does not become ready within the profile's boot deadline.
    """
    deadline = Deadline.after(bench.profile.deadlines.boot_s)
    with Vm.launch(config, folder=folder, deadline=deadline) as vm, blaming_vm(vm):
        with _connect(bench, vm, deadline=deadline) as ssh:
            ssh.make_directories(bench.profile.driver.directory, deadline=deadline)
            path = ntpath.join(bench.profile.driver.directory, bench.probe.name)
            ssh.write_file(path, bench.probe.read_bytes(), deadline=deadline)
            driver = DriverService(ssh, bench.profile)
            driver.install(bench.driver.read_bytes(), deadline=deadline)
            driver.configure(interfaces="both", synchronous=False, deadline=deadline)
            driver.start(deadline=deadline)
        yield vm


@contextmanager
def enter(bench: Bench, vm: Vm, *, deadline: Deadline) -> Iterator[Guest]:
    """Open the ways into a guest that has probe and driver installed already."""
    profile = bench.profile
    with (
        _connect(bench, vm, deadline=deadline) as ssh,
        Probe.start(ssh, [profile.probe], deadline=deadline) as probe,
    ):
        yield Guest(vm, ssh, probe, DriverService(ssh, profile), DriverLogTail(ssh, profile.driver_log))


@contextmanager
def blaming_vm(vm: Vm) -> Iterator[None]:
    """Raise :class:`VmExitedError` in place of an error that is only what QEMU's end looks like."""
    try:
        yield
    except VmExitedError:
        raise
    except BenchError:
        # Asks QEMU: if it ended, this raises with its exit status and last words.
        vm.execute("query-status")
        raise


def _connect(bench: Bench, vm: Vm, *, deadline: Deadline) -> SshConnection:
    return SshConnection.connect(
        "127.0.0.1",
        vm.ssh_port(deadline=deadline),
        user=bench.profile.ssh.user,
        key_file=bench.image.user_key,
        host_key=bench.image.host_key,
        shell=bench.profile.ssh.shell,
        check=vm.raise_if_exited,
        deadline=deadline,
    )
