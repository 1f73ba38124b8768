# SPDX-License-Identifier: MIT
"""Whether the guest's login shell is the one its profile names, for commands are quoted for that one."""

from __future__ import annotations

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.wires.quoting import Shell
from harness.wires.ssh import SshConnection

#: Each shell puts something else in place of one of these: cmd.exe the name of the system, a POSIX shell its
#: own name, and PowerShell nothing, for it has no such variable (about_Parsing).
QUESTION = "echo %OS%$0."

_ANSWERS = {"cmd": "Windows_NT$0.", "PowerShell": "%OS%."}
_REMEDIES = {
    "cmd": "write shell: cmd in the profile",
    "posix": "write shell: posix in the profile",
    "PowerShell": "remove its registry value DefaultShell of HKLM\\SOFTWARE\\OpenSSH, so that it is cmd.exe",
}


def shell_of(answer: str) -> str | None:
    """Return which shell answers so: ``cmd``, ``posix`` or ``PowerShell``; None if it is none of these."""
    said = answer.strip()
    for shell, expected in _ANSWERS.items():
        if said == expected:
            return shell
    return "posix" if said.startswith("%OS%") and said.endswith(".") else None


def check_login_shell(ssh: SshConnection, *, expected: Shell, deadline: Deadline) -> None:
    """Do nothing unless the guest's login shell is known to be another than expected.

    :raise GuestError: it is, with what to do.
    """
    seen = shell_of(ssh.run_line(QUESTION, deadline=deadline).text)
    if seen not in (None, expected):
        remedy = _REMEDIES[str(seen)]
        raise GuestError(f"the guest's login shell is {seen}, its profile says shell: {expected}; {remedy}")
