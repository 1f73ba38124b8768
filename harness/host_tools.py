# SPDX-License-Identifier: MIT
"""Programs of this host that build things: run with a deadline, failures in one line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError


def find_tool(name: str, *, folders: Sequence[str] = ()) -> str:
    """Return the path of a program, looked for on PATH, in ``/usr/sbin`` and in the folders given.

    :raise HostError: if this host does not have it.
    """
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *folders])
    found = shutil.which(name, path=search)
    if found is None:
        raise HostError(f"{name} is not installed on this host; ./hil installs what is missing")
    return found


def run_tool(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
) -> str:
    """Run a program to its end and return what it printed on standard output.

    :raise HostError: if it fails or outlives the deadline, with the end of its output.
    """
    command = [os.fspath(part) for part in argv]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=dict(environment) if environment is not None else None,
            stdin=stdin,
            capture_output=True,
            timeout=deadline.remaining_s(),
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise HostError(f"{shlex.join(command)} did not end in {err.timeout:.0f} s") from err
    except OSError as err:
        raise HostError(f"{shlex.join(command)} could not be run: {err.strerror}") from err
    if done.returncode != 0:
        raise HostError(failure(command, done.returncode, done.stderr or done.stdout))
    return done.stdout.decode(errors="replace")


def failure(command: Sequence[str], returncode: int, output: bytes) -> str:
    """Return one line that says which program failed, how, and its last words."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    last_words = " | ".join(lines[-3:])
    return f"{shlex.join(command)[:200]} failed with exit status {returncode}: {last_words}"
