# SPDX-License-Identifier: MIT
"""How an argument list and a file path are written for the guest's login shell and its SFTP server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Literal

from harness.errors import UsageError

Shell = Literal["posix", "cmd"]

# "Command line string limitation", Microsoft's documentation of cmd.exe.
_CMD_LIMIT = 8191
_CMD_NEEDS_QUOTES = re.compile(r"[\s&|<>^()@,;=!`']")
_CMD_FORBIDDEN = {"%": "%", '"': '"', "\n": "a line feed", "\r": "a carriage return"}
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]")


def quote_command(argv: Sequence[str], *, shell: Shell) -> str:
    """Return the one line that makes the guest's shell start exactly this argument list.

    :raise UsageError: when no such line exists: an empty list, a NUL, text that is not Unicode, and for
        ``cmd`` a percent sign, a double quote, a line break or more than 8191 characters.
    """
    if not argv:
        raise UsageError("an empty command cannot be run in the guest")
    for argument in argv:
        _check_argument(argument, shell=shell)
    if shell == "posix":
        return shlex.join(argv)
    line = " ".join(_quote_for_cmd(argument) for argument in argv)
    if len(line) > _CMD_LIMIT:
        raise UsageError(f"a command of {len(line)} characters is too long for cmd.exe ({_CMD_LIMIT})")
    return line


def sftp_path(path: str) -> str:
    r"""Return the path for the guest's SFTP server: ``C:\a\b`` is ``/C:/a/b``, a posix path stays as it is.

    Win32-OpenSSH takes a drive letter behind a leading slash as an absolute path, and clients do not
    mistake it for a relative one.

    :raise UsageError: when the path is relative, so that its meaning would depend on the server.
    """
    if _WINDOWS_PATH.match(path):
        return "/" + path.replace("\\", "/")
    if not path.startswith("/"):
        raise UsageError(f"guest path {path!r} is not absolute (C:\\... or /...)")
    return path


def _check_argument(argument: str, *, shell: Shell) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"argument {argument!r} of a guest command is not Unicode text") from error
    if "\0" in argument:
        raise UsageError(f"argument {argument!r} of a guest command holds a NUL")
    if shell == "cmd":
        for character, name in _CMD_FORBIDDEN.items():
            if character in argument:
                raise UsageError(
                    f"argument {argument!r} holds {name}, which cmd.exe gives no safe way to quote"
                )


def _quote_for_cmd(argument: str) -> str:
    # Inside double quotes cmd.exe leaves every character but % alone; the C run-time of the program then
    # takes backslashes literally unless they stand before a double quote.
    if argument and not _CMD_NEEDS_QUOTES.search(argument):
        return argument
    trailing = len(argument) - len(argument.rstrip("\\"))
    return '"' + argument + "\\" * trailing + '"'
