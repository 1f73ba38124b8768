# SPDX-License-Identifier: MIT
"""A Wine on this host behind a real sshd, answering like a guest."""

from __future__ import annotations

from pathlib import Path

from harness.deadline import Deadline
from harness.wires.ssh import FileStatus, SshConnection
from tests.driver.wine import WINE, Wine
from tests.guest.sshd_server import Sshd, start_sshd


class WineGuest(SshConnection):
    """The connection of the harness, except that Windows paths mean the files of that Wine.

    In the reference guest a link in its root does that; the root of this host is not the tests' to change.
    """

    wine: Wine

    def file_status(self, path: str, *, deadline: Deadline) -> FileStatus | None:
        return super().file_status(self._host(path), deadline=deadline)

    def read_file(
        self, path: str, *, offset: int = 0, size_bytes: int | None = None, deadline: Deadline
    ) -> bytes:
        return super().read_file(self._host(path), offset=offset, size_bytes=size_bytes, deadline=deadline)

    def write_file(self, path: str, data: bytes, *, deadline: Deadline) -> None:
        super().write_file(self._host(path), data, deadline=deadline)

    def make_directories(self, path: str, *, deadline: Deadline) -> None:
        super().make_directories(self._host(path), deadline=deadline)

    def _host(self, path: str) -> str:
        return str(self.wine.host_path(path))


def start_wine_sshd(folder: Path, wine: Wine, *, programs: dict[str, str]) -> Sshd:
    """Start an sshd whose sessions know these programs by name, with Wine's path of each."""
    commands = folder / "bin"
    commands.mkdir()
    for name, program in programs.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {WINE} {program} "$@"\n')
        (commands / name).chmod(0o755)
    environment = {
        "PATH": f"{commands}:/usr/bin:/bin",
        "WINEPREFIX": str(wine.drive_c.parent),
        "WINEDEBUG": "-all,err+sc",
        "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
    }
    return start_sshd(folder, environment=environment)


def connect(server: Sshd, wine: Wine) -> WineGuest:
    guest = WineGuest.connect(
        "127.0.0.1",
        server.port,
        user=server.user,
        key_file=server.key_file,
        host_key=server.host_key,
        deadline=Deadline.after(20),
    )
    guest.wine = wine
    return guest
