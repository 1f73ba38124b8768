# SPDX-License-Identifier: MIT
"""One guest that is ready for a plan: what the harness may ask of any, whatever kind it is."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import (
    BenchError,
    DeadlineExpiredError,
    GuestCommandError,
    GuestGoneError,
    GuestUnreachableError,
    VmDisturbedError,
    VmExitedError,
    VmStalledError,
)
from harness.evidence.effect import Announcement
from harness.evidence.witness import GuestState, ObservedRecord, Told
from harness.guest.driver_setup import DriverSetup
from harness.vm.vm import Vm


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """Which boot a guest is of, and how its time of day relates to the host's."""

    boot_id: str
    ahead_s: float  #: the guest's less the host's; below zero when it is behind
    error_s: float  #: right within plus or minus this


#: How long after losing a guest QEMU may take to tell what became of it.
INCIDENT_WITHIN_S = 5.0


class Guest(ABC):
    """The ways into one running guest.

    Every method raises :class:`BenchError` when the guest does not answer.

    :ivar vm: the VM it is in.
    :ivar template: the folder of the template it was forked from; None for a guest that was booted.
    :ivar is_blamed: whether something in it was not as planned.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.template: Path | None = None
        self.is_blamed = False

    @property
    @abstractmethod
    def log_data(self) -> bytes:
        """All that was read of the driver's log, of every boot, a line not yet ended included."""

    @property
    def log_pending(self) -> bytes:
        """What was read of the driver's log, of this boot, behind its last line feed."""
        return b""

    @abstractmethod
    def sample(self, *, deadline: Deadline) -> GuestState | None:
        """Ask the operating system what it uses: witness ``guest``. None where there is none."""

    def take_told(self) -> tuple[Told, ...] | None:
        """Return of what programs were told between the samples before the last call and now.

        None where that is not known.
        """
        return None

    @abstractmethod
    def time_of_day(self, *, deadline: Deadline) -> TimeOfDay | None:
        """Return which boot this is and how its time of day relates to the host's, where there is one."""

    @abstractmethod
    def learn_clock(self, *, anew: bool = False, deadline: Deadline) -> GuestState | None:
        """Compare guest time with host time often enough, and return what the guest uses now.

        :param anew: the guest stood still or booted since, so that earlier comparisons mislead.
        """

    @abstractmethod
    def new_records(self, *, deadline: Deadline) -> tuple[ObservedRecord, ...]:
        """Return what the driver has logged since the last call: witness ``driver``."""

    @abstractmethod
    def set_up_driver(self, setup: DriverSetup, *, deadline: Deadline) -> None:
        """Have the driver run, configured as given.

        :raise DriverRefusedError: it does not stop or start.
        """

    @abstractmethod
    def start_driver(self, *, deadline: Deadline) -> None:
        """Load the driver.

        :raise DriverRefusedError: it does not start.
        """

    @abstractmethod
    def stop_driver(self, *, deadline: Deadline) -> None:
        """Unload the driver.

        :raise DriverRefusedError: it does not stop.
        """

    @abstractmethod
    def restart(self, *, deadline: Deadline) -> None:
        """Have the guest restart itself; returns at once."""

    @abstractmethod
    def power_off(self, *, deadline: Deadline) -> None:
        """Have the guest switch itself off; returns at once."""

    @abstractmethod
    def reconnect(self, *, check: Callable[[], None], deadline: Deadline) -> None:
        """Reach the guest again, which boots anew.

        :param check: raises when there is no point in waiting for it; see :meth:`Vm.booting`.
        """

    @abstractmethod
    def prepare_again(self, *, start_driver: bool, ready: Callable[[], None], deadline: Deadline) -> None:
        """Prepare a guest that was just reached again, as after its first boot, and open all ways into it.

        :param ready: called when that is done, before the driver is started.
        :raise DriverRefusedError: it does not start.
        """

    @abstractmethod
    def announce(self, announcement: Announcement, *, deadline: Deadline) -> str:
        """Have the PnP manager tell of an interface without hardware, and return its symbolic link."""

    def last_words(self) -> str | None:
        """Return what the operating system said of its own panic, where it leaves a word."""
        return None

    def crash(self) -> str | None:
        """Return what the operating system said of a program that crashed, where it leaves a word."""
        return None

    def misuse(self) -> str | None:
        """Return what the operating system said of a driver that called it wrongly, where it says so."""
        return None

    @abstractmethod
    def check_parts(self, *, deadline: Deadline) -> None:
        """Do nothing while everything of the bench's own in the guest is in order, with room for the log.

        :raise DriverCrashedError: it is not because the driver crashed.
        :raise GuestError: something is not, naming it.
        """


@contextmanager
def blaming_vm(vm: Vm) -> Iterator[None]:
    """Raise what befell VM or guest in place of an error that only follows from it.

    :raise VmExitedError: QEMU has ended.
    :raise GuestGoneError: the guest restarted, panicked or switched itself off.
    :raise VmDisturbedError: somebody or the host paused or reset it.
    :raise VmStalledError: QEMU is kept from running.
    """
    try:
        yield
    except (VmExitedError, GuestGoneError, VmDisturbedError, VmStalledError):
        raise
    except (GuestUnreachableError, GuestCommandError, DeadlineExpiredError):
        vm.heartbeat.check(patience_s=0.0)
        # SSH ends some time before a guest that shuts down does.
        told = threading.Event()
        with vm.watch.when_incident(lambda _incident: told.set()):
            told.wait(INCIDENT_WITHIN_S)
        _raise_what_befell(vm)
        raise
    except BenchError:
        _raise_what_befell(vm)
        raise


def _raise_what_befell(vm: Vm) -> None:
    # Asks QEMU: if it ended, this raises with its exit status and last words.
    vm.execute("query-status")
    vm.watch.check()
