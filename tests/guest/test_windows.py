# SPDX-License-Identifier: MIT
"""What is done over SSH to a Windows guest, here on a posix server: there a backslash is part of a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.windows import WINDOWS, closing
from harness.wires.quoting import quote_command
from harness.wires.ssh import SshConnection


def check_room(ssh: SshConnection, folder: Path) -> None:
    log = f"{folder}\\driver.log"
    WINDOWS.dialect.check_parts(ssh, log=log, crash=None, deadline=Deadline.after(30))


def test_room_for_the_log_is_tried_and_given_back(ssh: SshConnection, tmp_path: Path) -> None:
    check_room(ssh, tmp_path / "log")
    assert not list(tmp_path.glob("log*"))


def test_room_that_is_not_there_is_named_and_nothing_stays(ssh: SshConnection, tmp_path: Path) -> None:
    tried = tmp_path / "log\\room.tmp"
    tried.symlink_to("/dev/full")
    with pytest.raises(GuestError, match=r"^the guest has no room for the driver's log: writing .*: Failure"):
        check_room(ssh, tmp_path / "log")
    assert not tried.is_symlink()


def test_a_folder_that_is_gone_has_no_room(ssh: SshConnection, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"^the guest has no room for the driver's log: .*: No such file"):
        check_room(ssh, tmp_path / "nowhere" / "log")


def test_without_a_log_nothing_is_tried(ssh: SshConnection) -> None:
    WINDOWS.dialect.check_parts(ssh, log=None, crash=None, deadline=Deadline.after(30))


def test_a_folder_is_closed_to_all_but_the_system_and_administrators() -> None:
    assert closing(r"C:\ProgramData\hpnotify") == [
        *("icacls.exe", r"C:\ProgramData\hpnotify", "/inheritance:r", "/grant:r"),
        *("*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F", "/q"),
    ]


def test_what_cmd_makes_of_it_is_what_was_meant() -> None:
    written = quote_command(closing(r"C:\Program Data\x"), shell="cmd")
    assert written == (
        r'icacls.exe "C:\Program Data\x" /inheritance:r /grant:r'
        r' "*S-1-5-18:(OI)(CI)F" "*S-1-5-32-544:(OI)(CI)F" /q'
    )


def test_a_folder_that_cannot_be_closed_is_named(ssh: SshConnection) -> None:
    close_folder = WINDOWS.dialect.close_folder
    assert close_folder is not None
    with pytest.raises(GuestError, match=r"^the folder C:\\hil could not be closed to users: "):
        close_folder(ssh, r"C:\hil", deadline=Deadline.after(30))
