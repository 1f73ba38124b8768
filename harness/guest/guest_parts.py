# SPDX-License-Identifier: MIT
"""The parts of the reference guest that are this project's own: whether each came up, and is still there.

``reference_guest/guest-up`` starts them and notes what became of each; ``reference_guest/guest-parts``, a
program of the guest, says how they are now. Without them no driver is ever told of anything, and without room
none can write down what it was told, which must not be blamed on the driver.
"""

from __future__ import annotations

import re

from harness.deadline import Deadline
from harness.errors import DriverCrashedError, GuestError
from harness.wires.ssh import SshConnection

#: What each part is, in the order in which they depend on each other.
PARTS = {"wineserver": "Wine server", "winepnp": "PnP manager", "hpfeed": "ACPI feeder"}

_PROGRAM = "guest-parts"
_FATES = {"failed": "did not start", "ended": "has ended"}
_REASON_CHARACTERS = 300
# hpfeed stamps what it says: [    5.556632] hpfeed: ...
_STAMP = re.compile(r"^\[ *\d+\.\d+\] \w+: ")
#: What Wine says on the console of a program that ends by an exception nobody handles.
CRASH = r"wine: (Unhandled .*)"
#: What the PnP manager says there of a driver.
MISUSE = r"winepnp: misuse: (.*)\n"


def check_parts(
    ssh: SshConnection, *, log_folder: str | None = None, crash: str | None = None, deadline: Deadline
) -> None:
    """Do nothing if the parts of the reference guest came up and are there, and the log has room.

    Asks anew each time, for one command of the guest's shell and no start of Wine.

    :param log_folder: the folder that the driver writes its log to; not looked at unless given.
    :param crash: what the guest has said of a program that crashed.
    :raise DriverCrashedError: the PnP manager is gone by a crash: as in a kernel it shares its process
        with the driver, so that is the end of both.
    :raise GuestError: one is not there: which, and the reason as the guest gave it, in one line.
    """
    said = ssh.run([_PROGRAM, *([] if log_folder is None else [log_folder])], deadline=deadline)
    lines = [line.split(" ", 1) for line in said.text.splitlines() if " " in line]
    states = dict(reversed(lines))  # the first of a name counts
    for part, what in PARTS.items():
        fate, _, reason = states.get(part, "").partition(":")
        if fate == "ok":
            continue
        if fate not in _FATES:
            words = said.stderr.decode(errors="replace") or said.text
            raise GuestError(_line(f"the guest does not say whether its {what} {part} is up", words))
        if part == "winepnp" and fate == "ended" and crash is not None:
            raise DriverCrashedError(crash)
        raise GuestError(_line(f"the guest's {what} {part} {_FATES[fate]}", reason))
    if "process" in states:
        raise GuestError(_line("a process of the guest does not run", states["process"].partition(":")[2]))
    fate, _, reason = states.get("room", "ok").partition(":")
    if fate != "ok":
        raise GuestError(_line("the guest has no room for the driver's log", reason))


def _line(problem: str, reason: str) -> str:
    text = _STAMP.sub("", " ".join(reason.split()))[:_REASON_CHARACTERS]
    return f"{problem}: {text or 'it gave no reason'}; see serial.log"
