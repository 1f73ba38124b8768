# SPDX-License-Identifier: MIT
"""Programs of this host that build things: run with a deadline, failures in one line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.host.checkout import CHECKOUT

#: Which Debian packages are needed, and for which programs; the script ``hil`` reads it too.
PACKAGES_FILE = Path(__file__).with_name("debian-packages.txt")
_QUERY_WITHIN_S = 10.0


def find_tool(name: str, *, folders: Sequence[str] = ()) -> str:
    """Return the path of a program, looked for on PATH, in ``/usr/sbin`` and in the folders given.

    :raise HostError: if this host does not have it.
    """
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *folders])
    found = shutil.which(name, path=search)
    if found is None:
        raise HostError(_missing(name, search))
    return found


def packages_for(*who: str) -> dict[str, tuple[str, ...]]:
    """Return the Debian packages that these need (``hil``, ``run``, ``test``), with the programs of each."""
    rows = (line.split() for line in PACKAGES_FILE.read_text().splitlines() if not line.startswith("#"))
    return {package: tuple(programs) for needed_by, package, *programs in rows if needed_by in who}


def install_line(packages: Iterable[str]) -> str:
    """Return the command that installs Debian packages."""
    return f"apt-get install --yes --no-install-recommends {' '.join(packages)}"


def _missing(name: str, search: str) -> str:
    """Return what to say of a program that is not here: how to get it and whatever else is missing."""
    missing = f"{name} is not installed on this host"
    packages = packages_for("run", "test")
    package = next((package for package, programs in packages.items() if name in programs), None)
    if package is None:
        return missing
    if CHECKOUT is not None:
        return f"{missing}; ./hil installs what is missing"
    wanted = {package, *packages_for("run")} - _installed_packages(packages, search)
    if package not in wanted:
        return f"{name} is not on PATH, although the Debian package {package} is installed"
    return f"{missing}; as root: {install_line(each for each in packages if each in wanted)}"


def _installed_packages(packages: Iterable[str], search: str) -> set[str]:
    """Return those Debian packages that are installed; none on a host that has no dpkg."""
    query = shutil.which("dpkg-query", path=search)
    if query is None:
        return set()
    command = [query, "--show", "--showformat=${db:Status-Status} ${Package}\n", *packages]
    # It says of each that it does not know, and fails.
    shown = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_WITHIN_S, check=False)
    states = (line.partition(" ") for line in shown.stdout.splitlines())
    return {package for state, _, package in states if state == "installed"}


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
