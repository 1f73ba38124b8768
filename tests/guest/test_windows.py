# SPDX-License-Identifier: MIT
"""What is done over SSH to a Windows guest, here on a posix server: there a backslash is part of a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.windows import WINDOWS
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
