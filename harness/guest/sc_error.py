# SPDX-License-Identifier: MIT
"""Which Win32 error made ``sc.exe`` fail in the guest, and what it means for a driver: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.wires.quoting import Shell

NO_SUCH_SERVICE = 1060

#: Win32 error codes with which sc.exe ends.
REASONS = {
    2: "the driver's file is missing",
    5: "access denied: the SSH user is no administrator",
    31: "its DriverEntry failed and gave no reason (STATUS_UNSUCCESSFUL)",
    127: "it imports something this Windows kernel does not have",
    193: "its file is no driver for this Windows",
    577: "its signature is not accepted; is test signing on?",
    1053: "it ended, or hung, while it was loaded",
    1056: "it is running already",
    NO_SUCH_SERVICE: "it is not installed",
    1062: "it is not running",
    1073: "there is such a service already",
    1072: "its deletion is not finished yet: something still uses it",
    1450: "its DriverEntry failed for want of resources",
    1275: "Windows blocks this driver",
}

# Wine logs "0024:err:sc:wmain failed to open service 1060"; its name for the routine changes with the verb.
_WINE_NAMES = re.compile(r"^\w+:err:sc:.* (\d+)\s*$", re.MULTILINE)
# Windows prints "[SC] StartService FAILED 1056:", with another word for the failure in each language.
_WINDOWS_NAMES = re.compile(r"^\[SC\] .* (\d+):\s*$", re.MULTILINE)
#: With this Wine's sc.exe ends whatever went wrong, in Wine 8; in Wine 10 it ends with the error.
WINE_FAILED = 1
# POSIX sh, "Exit Status for Commands": found but not run, and not found.
_NOT_RUN = (126, 127)
# 1055, which Wine 10 was seen to end with, has the low byte 31 too.
_BY_LOW_BYTE = {code & 0xFF: code for code in REASONS if code != 31}


@dataclass(frozen=True, slots=True)
class ScError:
    """Why sc.exe failed.

    :ivar code: the Win32 error; None when it cannot be known from what there is.
    :ivar reason: in words, with the number where it is known.
    """

    code: int | None
    reason: str


def describe(code: int) -> ScError:
    """Return a Win32 error with what it means for a driver."""
    number = f"error {code}"
    return ScError(code, f"{REASONS[code]} ({number})" if code in REASONS else number)


def sc_error(exit_status: int, *, stdout: str, stderr: str, shell: Shell, wine: bool) -> ScError:
    """Return the error of an ``sc.exe`` that ended with this exit status, which is not 0, and these words.

    What it names itself comes first. Else it is the exit status, of which a POSIX shell keeps the low
    eight bits only, so that 1060 arrives as 36: there an error that is known stands for its low byte.

    :param shell: the guest's login shell.
    :param wine: whether it is Wine's ``sc.exe``, whose older versions end with 1 whatever went wrong.
    """
    named = _named(stdout=stdout, stderr=stderr)
    if named is not None:
        return describe(named)
    if wine and exit_status == WINE_FAILED:
        return ScError(None, "the guest gave no reason")
    if shell == "cmd":
        return describe(exit_status)
    if exit_status in _BY_LOW_BYTE:
        return describe(_BY_LOW_BYTE[exit_status])
    return ScError(None, f"an error that is {exit_status} modulo 256")


def was_run(exit_status: int, *, stdout: str, stderr: str, shell: Shell) -> bool:
    """Return whether it was ``sc.exe`` that ended so, and not the shell that did not find or start it."""
    return shell == "cmd" or exit_status not in _NOT_RUN or _named(stdout=stdout, stderr=stderr) is not None


def _named(*, stdout: str, stderr: str) -> int | None:
    named = _WINE_NAMES.search(stderr) or _WINDOWS_NAMES.search(stdout.replace("\r\n", "\n"))
    return None if named is None else int(named[1])
