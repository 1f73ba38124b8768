# SPDX-License-Identifier: MIT
"""Windows, in an image of the user's. Built after Microsoft's documentation and not yet run on Windows."""

from __future__ import annotations

import ntpath
from collections.abc import Iterator, Sequence
from contextlib import suppress

from harness.deadline import Deadline
from harness.errors import GuestCommandError, GuestError
from harness.guest.dialect import Dialect
from harness.guest.driver_file import Finding, listed
from harness.guest.ssh_kind import SshKind
from harness.wires.ssh import SshConnection

# Those of Windows' kernel modules that are no .sys, and extension API sets (Microsoft, "Windows API sets").
_KERNEL_MODULES = {"ntoskrnl.exe", "hal.dll", "bootvid.dll", "ci.dll", "kdcom.dll", "pshed.dll"}
_API_SETS = "ext-ms-win-"
#: As much as a driver writes in many records.
_ROOM_BYTES = 65536


def _check_room(ssh: SshConnection, *, log: str | None, crash: str | None, deadline: Deadline) -> None:
    # Of the bench's own it has only the probe, which answers or does not.
    if log is None:
        return
    tried = ntpath.join(ntpath.dirname(log), "room.tmp")
    try:
        ssh.write_file(tried, bytes(_ROOM_BYTES), deadline=deadline)
    except GuestCommandError as err:
        raise GuestError(f"the guest has no room for the driver's log: {err}") from err
    finally:
        # What was tried takes no room from the driver, also if only a part of it could be written.
        with suppress(GuestError):
            ssh.remove_file(tried, deadline=deadline)


def _close_folder(ssh: SshConnection, folder: str, *, deadline: Deadline) -> None:
    # What is made below C:\ or C:\ProgramData lets users write into it by inheritance: a driver that the
    # kernel loads, or in the place of its log a link to a file that only the system may write.
    try:
        ssh.run(closing(folder), deadline=deadline).check()
    except GuestCommandError as err:
        raise GuestError(f"the folder {folder} could not be closed to users: {err}") from err


def closing(folder: str) -> list[str]:
    """Return the command that lets only the system and administrators into a folder and what is in it.

    By their SIDs, for names are translated ("icacls", "Security identifiers", Microsoft's documentation).
    """
    allowed = [f"*{sid}:(OI)(CI)F" for sid in ("S-1-5-18", "S-1-5-32-544")]
    return ["icacls.exe", folder, "/inheritance:r", "/grant:r", *allowed, "/q"]


def _imports_lacking(module: str, names: Sequence[str]) -> Iterator[Finding]:
    # What a kernel exports differs from Windows to Windows, and another driver may well export something; so
    # this is only for what no kernel loads.
    name = module.lower()
    if name not in _KERNEL_MODULES and not name.endswith(".sys") and not name.startswith(_API_SETS):
        yield Finding(
            f"imports {listed(names)} from {module}, which is for programs; import from ntoskrnl.exe, hal.dll"
            " and other drivers only"
        )


# "shutdown", Microsoft's documentation of Windows commands: /t 0 for at once, /f closes programs unasked.
WINDOWS = SshKind(
    dialect=Dialect(
        restart=("shutdown.exe", "/r", "/f", "/t", "0"),
        power_off=("shutdown.exe", "/s", "/f", "/t", "0"),
        check_parts=_check_room,
        close_folder=_close_folder,
    ),
    imports=_imports_lacking,
    signs=True,
)
