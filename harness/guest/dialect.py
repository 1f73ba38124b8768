# SPDX-License-Identifier: MIT
"""What one kind of operating system does its own way, of all that is entered over SSH."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.deadline import Deadline
from harness.wires.ssh import SshConnection


class CheckParts(Protocol):
    """Says whether all of the bench's own in a guest is in order."""

    def __call__(self, ssh: SshConnection, *, log: str | None, crash: str | None, deadline: Deadline) -> None:
        """Do nothing if it is.

        :param log: the driver's log, for which there must be room; None before the driver is there.
        :param crash: what the guest has said of a program that crashed.
        :raise DriverCrashedError: what is not in order is so because the driver crashed.
        :raise GuestError: it is not, naming what.
        """


class CloseFolder(Protocol):
    """Lets nobody but the system and administrators into a folder, where others could enter it."""

    def __call__(self, ssh: SshConnection, folder: str, *, deadline: Deadline) -> None:
        """Close it.

        :raise GuestError: that did not work.
        """


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of operating system does its own way.

    :ivar close_folder: where others than the system and administrators could write into a new folder.
    :ivar panic: a regular expression for the line of the serial console that tells of one.
    :ivar crash: the same for a program that crashed.
    :ivar misuse: the same for a driver that called the system wrongly.
    """

    restart: tuple[str, ...]
    power_off: tuple[str, ...]
    check_parts: CheckParts
    close_folder: CloseFolder | None = None
    panic: str | None = None
    crash: str | None = None
    misuse: str | None = None
