# SPDX-License-Identifier: MIT
"""The login shell is asked what it is: real shells answer; PowerShell is not to be had here."""

from __future__ import annotations

import subprocess

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.login_shell import QUESTION, check_login_shell, shell_of
from harness.host.tools import find_tool
from harness.wires.quoting import Shell
from tests.guest.wine_guest import WineGuest

POWERSHELL = "%OS%.\r\n"  #: as its about_Parsing has it


@pytest.mark.parametrize("shell", ["sh", "bash", "/bin/sh"])
def test_a_posix_shell_is_known(shell: str) -> None:
    answer = subprocess.run([find_tool(shell), "-c", QUESTION], capture_output=True, text=True, check=True)
    assert shell_of(answer.stdout) == "posix"


def test_cmd_is_known(wine_guest: WineGuest) -> None:
    answer = wine_guest.wine.run("cmd.exe", "/c", QUESTION)
    assert shell_of(answer.stdout) == "cmd"


def test_powershell_is_known() -> None:
    assert shell_of(POWERSHELL) == "PowerShell"


@pytest.mark.parametrize("answer", ["", "Illegal variable name.", "%OS%$0", "Windows_NT"])
def test_nothing_is_said_of_another(answer: str) -> None:
    assert shell_of(answer) is None


@pytest.mark.parametrize("expected", ["posix", "cmd"])
def test_the_guest_must_have_the_one_of_its_profile(wine_guest: WineGuest, expected: Shell) -> None:
    if expected == "posix":
        check_login_shell(wine_guest, expected=expected, deadline=Deadline.after(60))
        return
    with pytest.raises(GuestError) as error:
        check_login_shell(wine_guest, expected=expected, deadline=Deadline.after(60))
    assert str(error.value) == (
        "the guest's login shell is posix, its profile says shell: cmd; write shell: posix in the profile"
    )
