# SPDX-License-Identifier: MIT
"""Which error made ``sc.exe`` fail: as Wine 8, Wine 10 and Windows say it, through either kind of shell."""

from __future__ import annotations

import pytest

from harness.guest.sc_error import REASONS, describe, sc_error, was_run

# What sc.exe of Wine 8.0 and of Wine 10.0 was seen to end with and to log, under a POSIX shell.
WINE_8 = [
    (1, "0170:err:sc:query_service failed to open service 1060\n", 1060),
    (1, "01a8:err:sc:wmain failed to open service 1060\n", 1060),
    (1, "01cc:err:sc:wmain failed to stop service 1062\n", 1062),
    (1, "01a4:err:sc:wmain failed to start service 3\n", 3),
    (1, "0048:err:sc:wmain failed to start service 1114\n", 1114),
    (1, "0048:err:sc:wmain failed to start service 31\n", 31),
    (1, "", None),
]
WINE_10 = [
    (36, "016c:err:sc:query_service failed to open service 1060\n", 1060),
    (
        36,
        "015c:fixme:ntdll:init_cpu_info Failed to get\n018c:err:sc:wmain failed to open service 1060\n",
        1060,
    ),
    (38, "0204:err:sc:wmain failed to stop service 1062\n", 1062),
    (31, "0218:err:sc:wmain failed to start service 1055\n", 1055),
    # With its log off there is only the low byte.
    (36, "", 1060),
    (38, "", 1062),
    (170, "", 1450),
    (5, "", 5),
    (31, "", None),
]
WINDOWS = [
    (
        1060,
        "[SC] EnumQueryServicesStatus:OpenService FAILED 1060:\r\n\r\nThe service does not exist.\r\n",
        1060,
    ),
    (1056, "[SC] StartService FEHLER 1056:\r\n\r\nEs wird bereits eine Instanz ausgef\u00fchrt.\r\n", 1056),
    (577, "", 577),
    (1, "", 1),
    (127, "", 127),
    (36, "", 36),
]
WINDOWS_BEHIND_A_POSIX_SHELL = [
    (36, "[SC] EnumQueryServicesStatus:OpenService FAILED 1060:\r\n", 1060),
    (65, "", 577),
    (1, "", None),
]


@pytest.mark.parametrize(("exit_status", "stderr", "code"), [*WINE_8, *WINE_10])
def test_of_wine(exit_status: int, stderr: str, code: int | None) -> None:
    error = sc_error(exit_status, stdout="", stderr=stderr, shell="posix", wine=True)
    assert error.code == code


@pytest.mark.parametrize(("exit_status", "stdout", "code"), WINDOWS)
def test_of_windows(exit_status: int, stdout: str, code: int) -> None:
    error = sc_error(exit_status, stdout=stdout, stderr="", shell="cmd", wine=False)
    assert error == describe(code)


@pytest.mark.parametrize(("exit_status", "stdout", "code"), WINDOWS_BEHIND_A_POSIX_SHELL)
def test_of_windows_behind_a_posix_shell(exit_status: int, stdout: str, code: int | None) -> None:
    error = sc_error(exit_status, stdout=stdout, stderr="", shell="posix", wine=False)
    assert error.code == code


def test_every_known_error_is_known_by_its_low_byte_but_for_one() -> None:
    for code in REASONS.keys() - {31}:
        error = sc_error(code & 0xFF, stdout="", stderr="", shell="posix", wine=True)
        assert error == describe(code)


def test_an_error_is_told_with_its_number() -> None:
    assert describe(1060).reason == "it is not installed (error 1060)"
    assert describe(4711).reason == "error 4711"


@pytest.mark.parametrize(
    ("exit_status", "reason"), [(1, "the guest gave no reason"), (31, "an error that is 31 modulo 256")]
)
def test_an_error_that_cannot_be_known_is_told_as_such(exit_status: int, reason: str) -> None:
    assert sc_error(exit_status, stdout="", stderr="", shell="posix", wine=True).reason == reason


def test_a_shell_that_does_not_find_it_did_not_run_it() -> None:
    assert not was_run(127, stdout="", stderr="sh: sc.exe: not found\n", shell="posix")
    assert not was_run(126, stdout="", stderr="sh: sc.exe: Permission denied\n", shell="posix")
    assert was_run(127, stdout="", stderr="0024:err:sc:wmain failed to start service 127\n", shell="posix")
    assert was_run(127, stdout="", stderr="", shell="cmd")
    assert was_run(36, stdout="", stderr="", shell="posix")
