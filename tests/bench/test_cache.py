# SPDX-License-Identifier: MIT
"""Built folders are whole or not there, and built once; content keys tell any two contents apart."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.host.cache import built_folder, cache_folder, content_key

PROGRAM = Path(__file__).with_name("ask_for_a_folder.py")
ANSWER_WITHIN_S = 20.0
#: Two builders at once would both say so within milliseconds of asking.
QUIET_S = 0.5

Parts = list[bytes]


class Asker:
    """A process that asks for the folder."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def hears(self, within_s: float = ANSWER_WITHIN_S) -> str | None:
        """Return the next line it says, or None when it says nothing in time."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            return None
        return self.process.stdout.readline().decode().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@contextmanager
def asking(target: Path) -> Iterator[Asker]:
    # Unbuffered, so that select sees what has not been read.
    process = subprocess.Popen(
        [sys.executable, PROGRAM, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    with process:
        try:
            asker = Asker(process)
            assert asker.hears() == "asking"
            yield asker
        finally:
            process.kill()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "things" / "0123456789abcdef"


def left_beside(target: Path) -> set[str]:
    """Return all that lies beside the target, but for the target and its lock."""
    return {path.name for path in target.parent.iterdir()} - {target.name, f"{target.name}.lock"}


def whole(scratch: Path) -> None:
    assert list(scratch.iterdir()) == []
    (scratch / "content").write_text("whole")


def must_not_build(_scratch: Path) -> None:
    raise AssertionError("built again")


class TestBuiltFolder:
    def test_is_built_and_then_found(self, target: Path) -> None:
        assert built_folder(target, whole) == target
        assert (target / "content").read_text() == "whole"
        assert built_folder(target, must_not_build) == target
        assert left_beside(target) == set()

    def test_is_not_there_before_it_is_whole(self, target: Path) -> None:
        def build(scratch: Path) -> None:
            whole(scratch)
            assert not target.exists()
            # A rename is at once only within one file system.
            assert scratch.parent == target.parent

        built_folder(target, build)

    def test_is_built_once_by_two_processes(self, target: Path) -> None:
        with asking(target) as first, asking(target) as second:
            askers = {asker.process.stdout: asker for asker in (first, second)}
            [stdout, *_], _, _ = select.select(list(askers), [], [], ANSWER_WITHIN_S)
            builder = askers.pop(stdout)
            [waiter] = askers.values()
            assert builder.hears() == "building"
            assert waiter.hears(QUIET_S) is None
            assert not target.exists()
            builder.go_on()
            assert builder.hears() == "first second"
            assert waiter.hears() == "first second"
        assert left_beside(target) == set()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_leaves_nothing_when_the_build_raises(self, target: Path, error: type[BaseException]) -> None:
        def fail(scratch: Path) -> None:
            (scratch / "first").write_text("half")
            (scratch / "folder").mkdir()
            raise error

        with pytest.raises(error):
            built_folder(target, fail)
        assert not target.exists()
        assert left_beside(target) == set()
        built_folder(target, whole)
        assert (target / "content").read_text() == "whole"

    def test_is_built_anew_after_its_builder_was_killed(self, target: Path) -> None:
        with asking(target) as asker:
            assert asker.hears() == "building"
            asker.process.send_signal(signal.SIGKILL)
            assert asker.process.wait(ANSWER_WITHIN_S) == -signal.SIGKILL
        assert not target.exists()
        [scratch] = left_beside(target)
        assert (target.parent / scratch / "first").exists()
        built_folder(target, whole)
        assert [path.name for path in target.iterdir()] == ["content"]
        assert left_beside(target) == set()

    def test_is_built_by_the_one_who_waits_when_the_builder_is_killed(self, target: Path) -> None:
        with asking(target) as builder:
            assert builder.hears() == "building"
            with asking(target) as waiter:
                assert waiter.hears(QUIET_S) is None
                builder.process.kill()
                assert waiter.hears() == "building"
                waiter.go_on()
                assert waiter.hears() == "first second"
        assert left_beside(target) == set()

    def test_leaves_the_builds_of_others_alone(self, target: Path) -> None:
        other = target.with_name("fedcba9876543210")
        with asking(other) as builder:
            assert builder.hears() == "building"
            built_folder(target, whole)
            builder.go_on()
            assert builder.hears() == "first second"
        assert left_beside(target) == {other.name, f"{other.name}.lock"}


class TestCacheFolder:
    def test_is_where_the_environment_says(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HIL_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path

    def test_is_absolute_whatever_is_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for chosen, meant in (("mine", "mine"), ("./a/b", "a/b"), ("~/mine", "home/mine")):
            monkeypatch.setenv("HIL_CACHE", chosen)
            assert cache_folder() == tmp_path / meant

    @pytest.mark.parametrize("chosen", [None, ""])
    def test_is_the_users_otherwise(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str | None
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        if chosen is None:
            monkeypatch.delenv("HIL_CACHE", raising=False)
        else:
            monkeypatch.setenv("HIL_CACHE", chosen)
        assert cache_folder() == tmp_path / "hil-hotplug"


@st.composite
def two_splits(draw: Callable[[st.SearchStrategy[Parts]], Parts]) -> tuple[Parts, Parts]:
    """Draw the same bytes, split into parts at different places."""
    data = draw(st.binary(min_size=1, max_size=40))
    places = st.lists(st.integers(0, len(data)), max_size=4).map(sorted)

    def split() -> Parts:
        return [data[start:end] for start, end in pairwise([0, *draw(places), len(data)])]

    return split(), split()


class TestContentKey:
    @given(st.lists(st.binary() | st.text()))
    def test_is_a_name_and_always_the_same(self, parts: list[bytes | str]) -> None:
        key = content_key(parts)
        assert key == content_key(iter(parts))
        assert len(key) == 16
        assert set(key) <= set("0123456789abcdef")

    @given(st.lists(st.binary(), min_size=1), st.data())
    def test_changes_with_any_part(self, parts: Parts, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(parts) - 1))
        other = data.draw(st.binary())
        assume(other != parts[index])
        assert content_key(parts) != content_key([*parts[:index], other, *parts[index + 1 :]])

    @given(st.lists(st.binary()), st.binary(max_size=9))
    def test_changes_with_one_part_more(self, parts: Parts, more: bytes) -> None:
        assert content_key(parts) != content_key([*parts, more])

    @given(two_splits())
    def test_knows_where_the_parts_end(self, splits: tuple[Parts, Parts]) -> None:
        one, other = splits
        assume(one != other)
        assert b"".join(one) == b"".join(other)
        assert content_key(one) != content_key(other)

    @given(st.text())
    def test_takes_text_as_its_bytes(self, text: str) -> None:
        assert content_key([text]) == content_key([text.encode()])
