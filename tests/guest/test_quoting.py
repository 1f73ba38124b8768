# SPDX-License-Identifier: MIT
"""Command lines for both kinds of shell, and path forms."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.wires.quoting import quote_command, sftp_path

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
CMD_TEXT = st.text(st.sampled_from("ab \\\\&|<>^()@,;=!'`\tü"), max_size=12)


def program_arguments(line: str) -> list[str]:
    """Split a line as a Windows program's C run-time does (Microsoft, "Parsing C command-line arguments")."""
    arguments: list[str] = []
    current, inside, started, position = "", False, False, 0
    while position < len(line):
        character = line[position]
        if character == "\\":
            end = position
            while end < len(line) and line[end] == "\\":
                end += 1
            count = end - position
            if end < len(line) and line[end] == '"':
                current += "\\" * (count // 2)
                if count % 2:
                    current += '"'
                    end += 1
            else:
                current += "\\" * count
            position, started = end, True
            continue
        if character == '"':
            inside, started = not inside, True
        elif character in " \t" and not inside:
            if started:
                arguments.append(current)
            current, started = "", False
        else:
            current, started = current + character, True
        position += 1
    assert not inside
    return [*arguments, current] if started else arguments


def live_for_cmd(line: str) -> str:
    """Return the characters that cmd.exe would act on: the special ones outside double quotes."""
    inside, live = False, ""
    for character in line:
        if character == '"':
            inside = not inside
        elif character == "%" or (not inside and character in "&|<>^()@,;=!"):
            live += character
    return live


@given(st.lists(TEXT, min_size=1))
def test_posix_words_survive_the_shell(argv: list[str]) -> None:
    assert shlex.split(quote_command(argv, shell="posix")) == argv


@given(st.lists(CMD_TEXT, min_size=1))
def test_cmd_words_reach_the_program_and_nothing_is_left_to_cmd(argv: list[str]) -> None:
    line = quote_command(argv, shell="cmd")
    assert program_arguments(line) == argv
    assert live_for_cmd(line) == ""


def test_plain_cmd_words_stay_plain() -> None:
    assert quote_command(["sc.exe", "query", "hpnotify"], shell="cmd") == "sc.exe query hpnotify"
    assert quote_command(["x", r"C:\a b" + "\\"], shell="cmd") == r'x "C:\a b\\"'


@pytest.mark.parametrize("bad", ["100%", 'say "hi"', "two\nlines", "a\rb", "a\0b", "\ud800"])
def test_what_cmd_cannot_quote_is_refused_and_shown(bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        quote_command(["echo", bad], shell="cmd")
    assert repr(bad) in str(caught.value)


def test_a_line_too_long_for_cmd_is_refused() -> None:
    with pytest.raises(UsageError, match="8191"):
        quote_command(["echo", "x" * 8190], shell="cmd")
    assert len(quote_command(["echo", "x" * 8186], shell="cmd")) == 8191


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        quote_command([], shell="posix")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"C:\ProgramData\hpnotify\hpnotify.log", "/C:/ProgramData/hpnotify/hpnotify.log"),
        ("d:/x/y", "/d:/x/y"),
        ("/var/log/x\\y", "/var/log/x\\y"),
    ],
)
def test_sftp_paths(path: str, expected: str) -> None:
    assert sftp_path(path) == expected


@pytest.mark.parametrize("path", ["", "x", r"..\x", "C:x", r"\x"])
def test_a_path_that_depends_on_the_server_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        sftp_path(path)
