# SPDX-License-Identifier: MIT
"""A hash is remembered for a file that nothing has happened to, and for no other."""

from __future__ import annotations

import json
import os
import select
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.host.cache import file_hash
from harness.host.hashes import RememberedHashes

#: More than a tick of the kernel's clock.
SETTLED_AFTER_S = 0.05
WRONG = "0" * 64


class Remembered:
    """A file with a remembered hash that is wrong on purpose, so that using it shows."""

    def __init__(self, folder: Path) -> None:
        self.file, self.memory = folder / "disk.img", folder / "hashes.json"
        self.file.write_bytes(b"as it was built")
        deadline = Deadline.after(30)
        while not self.memory.exists():
            deadline.check("a hash that is remembered")
            select.select([], [], [], SETTLED_AFTER_S / 5)
            assert self.found() == file_hash(self.file)
        known = json.loads(self.memory.read_text())
        [entry] = known.values()
        entry["sha256"] = WRONG
        self.memory.write_text(json.dumps(known))

    def found(self) -> str:
        hashes = RememberedHashes(self.memory, settled_after_s=SETTLED_AFTER_S)
        found = hashes.hash_of(self.file)
        hashes.keep()
        return found


@pytest.fixture
def remembered(tmp_path: Path) -> Remembered:
    return Remembered(tmp_path)


def test_a_file_that_is_as_it_was_is_not_read(remembered: Remembered) -> None:
    assert remembered.found() == WRONG
    assert remembered.found() == WRONG


def test_the_memory_is_its_owners_alone(remembered: Remembered) -> None:
    remembered.file.write_bytes(b"another")
    remembered.found()
    assert stat.S_IMODE(remembered.memory.stat().st_mode) == 0o600


def change_a_byte(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"A")


def change_a_byte_and_put_the_time_back(file: Path) -> None:
    before = file.stat()
    change_a_byte(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_size == before.st_size


def put_another_in_its_place(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"another of size")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert other.stat().st_size == before.st_size
    other.replace(file)


def make_it_longer(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"!")


@pytest.mark.parametrize(
    "happens",
    [change_a_byte, change_a_byte_and_put_the_time_back, put_another_in_its_place, make_it_longer, os.utime],
)
def test_a_file_that_something_happened_to_is_hashed_in_full(
    remembered: Remembered, happens: Callable[[Path], None]
) -> None:
    happens(remembered.file)
    assert remembered.found() == file_hash(remembered.file)


def test_a_file_is_hashed_in_full_after_the_host_was_restarted(remembered: Remembered) -> None:
    text = remembered.memory.read_text()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot_id in text
    remembered.memory.write_text(text.replace(boot_id, "of another boot"))
    assert remembered.found() == file_hash(remembered.file)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1}', "\udcff"])
def test_a_memory_that_is_none_only_costs_time(remembered: Remembered, text: str) -> None:
    remembered.memory.write_text(text, errors="surrogateescape")
    assert remembered.found() == file_hash(remembered.file)


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    # It could change again within the same tick of the kernel's clock, and look the same.
    file = tmp_path / "file"
    file.write_bytes(b"1")
    hashes = RememberedHashes(tmp_path / "hashes.json")
    assert hashes.hash_of(file) == file_hash(file)
    hashes.keep()
    assert not (tmp_path / "hashes.json").exists()


def test_a_folder_that_cannot_be_written_is_no_error(remembered: Remembered, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    hashes = RememberedHashes(gone / "hashes.json")
    assert hashes.hash_of(remembered.file) == file_hash(remembered.file)
    hashes.keep()
    assert not gone.exists()
