# SPDX-License-Identifier: MIT
"""A guest with an operating system, entered over SSH; what is its kind's own way, a :class:`Dialect` says."""

from __future__ import annotations

import ntpath
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestError, GuestGoneError
from harness.evidence.effect import Announcement
from harness.evidence.guest_clock import GuestClock
from harness.evidence.incident import Incident
from harness.evidence.witness import GuestState, ObservedRecord, Told
from harness.guest.bench import SshBench
from harness.guest.console import refuse_misuse, said
from harness.guest.dialect import Dialect
from harness.guest.driver_log_tail import DriverLogTail
from harness.guest.driver_service import DriverService
from harness.guest.driver_setup import DriverSetup
from harness.guest.guest import Guest, TimeOfDay, blaming_vm
from harness.guest.login_shell import check_login_shell
from harness.guest.probe import Probe, ToldInterface
from harness.vm.argv import VmConfig
from harness.vm.vm import Vm
from harness.wires.ssh import SshConnection

CLOCK_SAMPLES = 4
_100NS_FROM_1601_TO_1970 = 116_444_736_000_000_000


class SshGuest(Guest):
    """See :class:`Guest`; made by :func:`enter`."""

    def __init__(self, bench: SshBench, vm: Vm, dialect: Dialect) -> None:
        super().__init__(vm)
        self.setup = DriverSetup()  #: as :meth:`set_up_driver` was last given
        self._bench = bench
        self._dialect = dialect
        self._ways = ExitStack()
        self._earlier_log = b""
        self._told: list[ToldInterface] | None = None  #: and not taken yet
        self.ssh: SshConnection
        self.probe: Probe
        self.driver: DriverService
        self.log: DriverLogTail

    @property
    def log_data(self) -> bytes:
        """See :class:`Guest`."""
        return self._earlier_log + self.log.data

    @property
    def log_pending(self) -> bytes:
        """See :class:`Guest`."""
        return self.log.pending

    def open(self, *, deadline: Deadline) -> None:
        """Open the ways into a guest that has probe and driver installed already."""
        with ExitStack() as stack:
            self._connect(stack, check=self.vm.check, deadline=deadline)
            self._ways = stack.pop_all()
        self._open_ways(deadline=deadline)

    def close(self) -> None:
        """Close all ways."""
        self._ways.close()

    def set_up_driver(self, setup: DriverSetup, *, deadline: Deadline) -> None:
        """Have the driver run as configured; it is started anew only if that is another way than it runs."""
        if setup == self.setup:
            return
        self.driver.stop(deadline=deadline)
        self.setup = setup
        self._configure(deadline)
        self.driver.start(deadline=deadline)
        refuse_misuse(self.misuse())

    def sample(self, *, deadline: Deadline) -> GuestState:
        """See :class:`Guest`."""
        sample, told = self.probe.look(deadline=deadline)
        self._told = None if told is None else [*(self._told or ()), *told]
        return sample.state

    def take_told(self) -> tuple[Told, ...] | None:
        """See :class:`Guest`."""
        if self._told is None:
            return None
        taken, self._told = self._told, []
        clock = GuestClock.fit(self.probe.samples)
        return tuple(
            Told(one.interface_class, one.event, one.link, clock.host_s(one.qpc), clock.error_s)
            for one in taken
        )

    def time_of_day(self, *, deadline: Deadline) -> TimeOfDay:
        """See :class:`Guest`."""
        # The first answer waits for the probe to start; the clock is read off the second.
        self.probe.sample(deadline=deadline)
        sample = self.probe.sample(deadline=deadline)
        host_s = time.time() - time.monotonic() + (sample.host_before_s + sample.host_after_s) / 2
        guest_s = (sample.system_time_100ns - _100NS_FROM_1601_TO_1970) / 1e7
        return TimeOfDay(
            boot_id=sample.boot_id,
            ahead_s=guest_s - host_s,
            error_s=(sample.host_after_s - sample.host_before_s) / 2,
        )

    def learn_clock(self, *, anew: bool = False, deadline: Deadline) -> GuestState:
        """See :class:`Guest`."""
        if anew:
            self.probe.samples.clear()
        state = self.sample(deadline=deadline)
        # Asking for nothing else takes less time, and so tells the clock better.
        while len(self.probe.samples) < CLOCK_SAMPLES:
            state = self.probe.sample(deadline=deadline).state
        return state

    def new_records(self, *, deadline: Deadline) -> tuple[ObservedRecord, ...]:
        """See :class:`Guest`."""
        seen = self.log.poll(deadline=deadline)
        if not seen:
            return ()
        clock, reading = GuestClock.fit(self.probe.samples), self.probe.samples[-1].reading
        return tuple(
            ObservedRecord(
                record=item.record,
                seen_at_s=item.seen_at_s,
                written_at_s=clock.host_s(item.record.qpc),
                clock_error_s=clock.error_s,
                reading=reading,
            )
            for item in seen
        )

    def start_driver(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self.driver.start(deadline=deadline)

    def stop_driver(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self.driver.stop(deadline=deadline)

    def restart(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self.ssh.start(self._dialect.restart, deadline=deadline)

    def power_off(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self.ssh.start(self._dialect.power_off, deadline=deadline)

    def reconnect(self, *, check: Callable[[], None], deadline: Deadline) -> None:
        """See :class:`Guest`."""
        self._earlier_log += self.log.data
        self.close()
        with ExitStack() as stack:
            self._connect(stack, check=check, deadline=deadline)
            self._ways = stack.pop_all()

    def prepare_again(self, *, start_driver: bool, ready: Callable[[], None], deadline: Deadline) -> None:
        """See :class:`Guest`.

        Nothing is taken to have outlived the restart: a hard reset loses what was not on the disk yet.
        """
        prepare(self._bench, self.ssh, self._dialect, deadline=deadline)
        self.ssh.write_file(self._bench.profile.driver_log, b"", deadline=deadline)
        self._open_ways(deadline=deadline)
        self._configure(deadline)
        ready()
        if start_driver:
            self.driver.start(deadline=deadline)

    def announce(self, announcement: Announcement, *, deadline: Deadline) -> str:
        """See :class:`Guest`."""
        one = announcement
        return self.probe.announce(one.interface_class, one.event, name=one.name, deadline=deadline)

    def last_words(self) -> str | None:
        """See :class:`Guest`."""
        return said(self.vm, self._dialect.panic)

    def crash(self) -> str | None:
        """See :class:`Guest`."""
        return said(self.vm, self._dialect.crash)

    def misuse(self) -> str | None:
        """See :class:`Guest`."""
        return said(self.vm, self._dialect.misuse)

    def check_parts(self, *, deadline: Deadline) -> None:
        """See :class:`Guest`."""
        log, crash = self._bench.profile.driver_log, self.crash()
        self._dialect.check_parts(self.ssh, log=log, crash=crash, deadline=deadline)

    def _connect(self, stack: ExitStack, *, check: Callable[[], None], deadline: Deadline) -> None:
        self.ssh = stack.enter_context(_connect(self._bench, self.vm, check=check, deadline=deadline))
        stack.enter_context(self.vm.watch.when_incident(_closing(self.ssh)))

    def _open_ways(self, *, deadline: Deadline) -> None:
        profile = self._bench.profile
        self.driver = DriverService(self.ssh, profile)
        self.log = DriverLogTail(self.ssh, profile.driver_log)
        self._told = None
        self.probe = self._ways.enter_context(Probe.start(self.ssh, [profile.probe], deadline=deadline))

    def _configure(self, deadline: Deadline) -> None:
        self.driver.configure(
            interfaces=self.setup.interfaces,
            synchronous=self.setup.synchronous,
            existing=self.setup.existing,
            deadline=deadline,
        )


@contextmanager
def boot(bench: SshBench, config: VmConfig, dialect: Dialect, *, folder: Path) -> Iterator[Vm]:
    """Boot a VM and install and start the driver under test in its guest; the VM ends with the block.

    Nobody is logged in any more when the VM is handed over; see :func:`enter`.

    :raise BenchError: when it does not become ready within the profile's boot deadline.
    """
    deadline = Deadline.after(bench.profile.deadlines.boot_s)
    with Vm.launch(config, folder=folder, deadline=deadline) as vm, blaming_vm(vm):
        with ExitStack() as stack:
            with _without_the_driver():
                with vm.booting() as check:
                    ssh = stack.enter_context(_connect(bench, vm, check=check, deadline=deadline))
                stack.enter_context(vm.watch.when_incident(_closing(ssh)))
                with blaming_vm(vm):
                    prepare(bench, ssh, dialect, deadline=deadline)
                    driver = DriverService(ssh, bench.profile)
                    driver.configure(interfaces="both", synchronous=False, deadline=deadline)
            driver.start(deadline=deadline)
            refuse_misuse(said(vm, dialect.misuse))
        yield vm


@contextmanager
def enter(bench: SshBench, vm: Vm, dialect: Dialect, *, deadline: Deadline) -> Iterator[SshGuest]:
    """Open the ways into a guest that has probe and driver installed already."""
    guest = SshGuest(bench, vm, dialect)
    try:
        guest.open(deadline=deadline)
        yield guest
    finally:
        guest.close()


def prepare(bench: SshBench, ssh: SshConnection, dialect: Dialect, *, deadline: Deadline) -> None:
    """Bring probe and driver into a guest that has booted; neither runs.

    :raise GuestError: a part of the guest that the bench needs did not come up.
    """
    check_login_shell(ssh, expected=bench.profile.ssh.shell, deadline=deadline)
    dialect.check_parts(ssh, log=None, crash=None, deadline=deadline)
    ssh.make_directories(bench.profile.driver.directory, deadline=deadline)
    path = ntpath.join(bench.profile.driver.directory, bench.probe.name)
    log_folder = ntpath.dirname(bench.profile.driver_log)
    ssh.make_directories(log_folder, deadline=deadline)
    if dialect.close_folder is not None:
        for folder in (bench.profile.driver.directory, log_folder):
            dialect.close_folder(ssh, folder, deadline=deadline)
    ssh.write_file(path, bench.probe.read_bytes(), deadline=deadline)
    DriverService(ssh, bench.profile).install(bench.driver.read_bytes(), deadline=deadline)


@contextmanager
def _without_the_driver() -> Iterator[None]:
    """Take a guest that goes away in the block for a broken bench: no driver has a part in it yet."""
    try:
        yield
    except GuestGoneError as err:
        raise GuestError(f"{err}, before the driver was loaded; see serial.log") from err


def _connect(bench: SshBench, vm: Vm, *, check: Callable[[], None], deadline: Deadline) -> SshConnection:
    return SshConnection.connect(
        "127.0.0.1",
        vm.ssh_port(deadline=deadline),
        user=bench.profile.ssh.user,
        key_file=bench.image.user_key,
        host_key=bench.image.host_key,
        shell=bench.profile.ssh.shell,
        check=check,
        deadline=deadline,
    )


def _closing(ssh: SshConnection) -> Callable[[Incident], None]:
    # Whoever waits for a guest that is gone is not to wait any longer.
    return lambda _incident: ssh.close()
