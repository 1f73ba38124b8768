# SPDX-License-Identifier: MIT
"""What a program says of itself is remembered while it is the same file, and a script is always asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import HostError
from harness.host.answers import answer_of

ECHO = Path("/bin/echo")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Return a program of this host's that can be replaced."""
    path = tmp_path / "program"
    shutil.copy(ECHO, path)
    return path


def ask(program: Path, *arguments: str) -> str:
    return answer_of(str(program), *arguments, deadline=Deadline.after(10))


def forge(cache: Path) -> None:
    """Put another answer in the place of the one kept, so that using it shows."""
    [kept] = (cache / "answers").iterdir()
    kept.write_text("kept")


def test_an_answer_is_kept(binary: Path, cache: Path) -> None:
    assert ask(binary, "version 1") == "version 1\n"
    forge(cache)
    assert ask(binary, "version 1") == "kept"


def test_another_question_is_asked(binary: Path, cache: Path) -> None:
    ask(binary, "version 1")
    forge(cache)
    assert ask(binary, "version", "1") == "version 1\n"


def test_a_program_that_was_replaced_is_asked(binary: Path, cache: Path) -> None:
    ask(binary, "version 1")
    forge(cache)
    other = binary.with_name("other")
    shutil.copy2(ECHO, other)
    other.replace(binary)
    assert ask(binary, "version 1") == "version 1\n"


def test_a_script_is_asked_each_time(tmp_path: Path, cache: Path) -> None:
    said = tmp_path / "said"
    said.write_text("1")
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ncat {said}\n")
    script.chmod(0o755)
    assert ask(script) == "1"
    said.write_text("2")
    assert ask(script) == "2"


def test_a_failure_is_not_kept(tmp_path: Path, cache: Path) -> None:
    false = tmp_path / "false"
    shutil.copy("/bin/false", false)
    with pytest.raises(HostError, match="failed with exit status 1"):
        ask(false)
    assert not (cache / "answers").exists()


def test_a_program_that_does_not_answer_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho once >>{asked}\nexec sleep 600\n")
    script.chmod(0o755)
    for _ in range(2):
        with pytest.raises(HostError, match=r"script did not end in"):
            answer_of(str(script), deadline=Deadline.after(0.5))
    assert asked.read_text() == "once\n"
    monkeypatch.setattr("harness.host.answers._failures", {})
    with pytest.raises(HostError, match=r"did not end in"):
        answer_of(str(script), deadline=Deadline.after(0.5))
    assert asked.read_text() == "once\nonce\n"


def test_a_cache_that_cannot_be_written_is_no_error(binary: Path, cache: Path) -> None:
    cache.write_text("not a folder")
    assert ask(binary, "version 1") == "version 1\n"
