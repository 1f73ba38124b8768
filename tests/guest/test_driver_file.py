# SPDX-License-Identifier: MIT
"""What the host finds wrong with a driver's file: built drivers, spoiled in every way that is looked for."""

from __future__ import annotations

import os
import random
import re
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import pefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HostError, UsageError
from harness.guest.binaries import build_guest_binaries
from harness.guest.driver_file import check_driver_file, kept_driver, listed
from harness.guest.linux_wine import LINUX_WINE
from harness.guest.windows import WINDOWS
from harness.host.cache import file_hash

System = Literal["linux-wine", "windows"]
IMPORTS = {"linux-wine": LINUX_WINE.imports, "windows": WINDOWS.imports}
SIGNATURE = 4  # index of a data directory
DRIVER = build_guest_binaries().driver


def complaints(path: Path, *, system: System = "linux-wine", signed: bool = False) -> list[str]:
    """Return what is said of a file, less its name."""
    try:
        check_driver_file(path, imports=IMPORTS[system], signed=signed)
    except UsageError as err:
        lines = str(err).splitlines()
        assert all(line.startswith(f"{path}: ") for line in lines)
        return [line.removeprefix(f"{path}: ") for line in lines]
    return []


@pytest.fixture
def spoiled(tmp_path: Path) -> Callable[..., Path]:
    """Write a copy of the sample driver with its headers changed and one text in it replaced."""

    def spoiled(
        change: Callable[[pefile.PE], None] = lambda _: None,
        *,
        replace: tuple[bytes, bytes] = (b"", b""),
        source: Path = DRIVER,
    ) -> Path:
        old, new = replace
        assert len(old) == len(new)
        with pefile.PE(source) as image:
            image.OPTIONAL_HEADER.CheckSum = 0
            change(image)
            data = bytes(image.write())
        assert old in data
        path = tmp_path / "spoiled.sys"
        path.write_bytes(data.replace(old, new) if old else data)
        return path

    return spoiled


@pytest.mark.parametrize("system", ["linux-wine", "windows"])
@pytest.mark.parametrize("name", ["hpnotify.sys", "winepnp.sys", "pnptest.sys", "pnptest-readonly.sys"])
def test_a_driver_is_one(name: str, system: System) -> None:
    assert complaints(DRIVER.with_name(name), system=system) == []


def test_a_driver_without_a_checksum_is_one(spoiled: Callable[..., Path]) -> None:
    assert complaints(spoiled()) == []


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    [line] = complaints(tmp_path / "mine.sys")
    assert line == "no such file; name the driver's .sys file, and build it first"
    [line] = complaints(tmp_path / "mine.sys" / "deeper")
    assert line.startswith("no such file")
    (tmp_path / "file").touch()
    [line] = complaints(tmp_path / "file" / "mine.sys")
    assert line.startswith("cannot be read: Not a directory; ")


def test_what_is_no_file_is_told_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.sys")
    for path in (tmp_path, tmp_path / "pipe.sys", Path("/dev/zero")):
        assert complaints(path) == ["no file but a folder or a device; name the driver's .sys file"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (random.Random(1).randbytes(4096), "DOS Header magic not found"),
        (b"MZ", "The file is too small|.*"),
        (b"MZ" + bytes(4096), ".+"),
        (Path(sys.executable).resolve().read_bytes()[:8192], "DOS Header magic not found"),
    ],
    ids=["empty", "random", "two letters", "DOS", "ELF"],
)
def test_what_is_no_pe_file_is_told(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "mine.sys"
    path.write_bytes(data)
    [line] = complaints(path)
    assert re.fullmatch(
        f"no Windows driver, nor any PE file: ({says}); name what the linker made of it", line
    )


@pytest.mark.parametrize(
    ("machine", "name"), [(0x14C, "I386"), (0xAA64, "ARM64"), (0x1234, "a processor of type 0x1234")]
)
def test_a_driver_for_another_processor_is_told(
    spoiled: Callable[..., Path], machine: int, name: str
) -> None:
    def change(image: pefile.PE) -> None:
        image.FILE_HEADER.Machine = machine

    assert complaints(spoiled(change)) == [f"built for {name}, and the guests are x86-64; build it for x64"]


def test_a_program_for_user_mode_is_told() -> None:
    [line] = complaints(DRIVER.with_name("hpprobe.exe"))
    assert line.startswith("a program for user mode (subsystem 3) and no driver; link it with /DRIVER")


def test_a_dll_for_user_mode_is_told(spoiled: Callable[..., Path]) -> None:
    def change(image: pefile.PE) -> None:
        image.FILE_HEADER.Characteristics |= 0x2000

    [line] = complaints(spoiled(change, source=DRIVER.with_name("hpprobe.exe")))
    assert line.startswith("a DLL for user mode (subsystem 3) and no driver;")


@pytest.mark.parametrize("entry", [0, 0x7FFFFFFF])
def test_a_driver_without_an_entry_point_is_told(spoiled: Callable[..., Path], entry: int) -> None:
    def change(image: pefile.PE) -> None:
        image.OPTIONAL_HEADER.AddressOfEntryPoint = entry

    [line] = complaints(spoiled(change))
    assert line.startswith("has no entry point; link it with /ENTRY:DriverEntry")


def test_half_a_copy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "half.sys"
    whole = DRIVER.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    cut, *_others = complaints(path)
    assert cut == f"cut off: it has {len(whole) // 2} of {len(whole)} bytes; copy or build it again"


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    data = bytearray(DRIVER.read_bytes())
    data[0x400] ^= 1  # somewhere in the code
    path = tmp_path / "changed.sys"
    path.write_bytes(data)
    assert complaints(path) == [
        "its checksum is wrong: it was changed after it was linked; copy or build it again"
    ]


def test_a_table_of_imports_that_is_nowhere_is_told(spoiled: Callable[..., Path]) -> None:
    def change(image: pefile.PE) -> None:
        image.OPTIONAL_HEADER.DATA_DIRECTORY[1].VirtualAddress = 0x7FFF0000

    assert complaints(spoiled(change)) == ["its table of imports lies outside it; copy or build it again"]


class TestSignature:
    def test_is_asked_for_only_where_the_guest_does(self) -> None:
        assert complaints(DRIVER, signed=False) == []
        [line] = complaints(DRIVER, signed=True)
        assert line.startswith("not signed, and the guest asks for it (signature: required)")

    @pytest.mark.parametrize(("bytes_there", "counts"), [(64, True), (63, False)])
    def test_must_be_inside_the_file(
        self, spoiled: Callable[..., Path], bytes_there: int, counts: bool
    ) -> None:
        size_bytes = DRIVER.stat().st_size

        def change(image: pefile.PE) -> None:
            place = image.OPTIONAL_HEADER.DATA_DIRECTORY[SIGNATURE]
            place.VirtualAddress, place.Size = size_bytes, 64

        path = spoiled(change)
        with path.open("ab") as file:
            file.write(struct.pack("<IHH", 64, 0x200, 2).ljust(64, b"\0")[:bytes_there])
        assert (complaints(path, signed=True) == []) is counts


class TestImports:
    def test_of_a_module_that_the_reference_guest_lacks(self, spoiled: Callable[..., Path]) -> None:
        path = spoiled(replace=(b"HAL.dll\0", b"TDI.sys\0"))
        assert complaints(path) == [
            "imports from TDI.sys, which the reference guest does not have (it has ntoskrnl.exe, hal.dll,"
            " fltmgr.sys); do without it, or run on Windows"
        ]
        assert complaints(path, system="windows") == []

    def test_of_a_name_that_the_reference_guest_lacks(self, spoiled: Callable[..., Path]) -> None:
        path = spoiled(replace=(b"KeQueryPerformanceCounter\0", b"KeQueryPerformanceKounter\0"))
        [line] = complaints(path)
        assert line.startswith("imports KeQueryPerformanceKounter from HAL.dll, where the reference guest's")
        assert complaints(path, system="windows") == []

    @pytest.mark.parametrize("system", ["linux-wine", "windows"])
    def test_of_a_module_for_programs(self, spoiled: Callable[..., Path], system: System) -> None:
        [line] = complaints(spoiled(replace=(b"HAL.dll\0", b"GDI.dll\0")), system=system)
        assert re.match(r"imports (KeQueryPerformanceCounter )?from GDI\.dll, which ", line)

    def test_of_a_mere_name_is_a_warning(
        self, spoiled: Callable[..., Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        path = spoiled(replace=(b"KeSetEvent\0", b"CcCopyRead\0"))
        assert complaints(path) == []
        [record] = caplog.records
        assert record.getMessage().startswith(f"{path}: imports CcCopyRead from ntoskrnl.exe: a mere name")

    def test_that_winepnp_supplies_are_there(self, caplog: pytest.LogCaptureFixture) -> None:
        # Of these one is a mere name in Wine, and the other is not even that.
        assert list(LINUX_WINE.imports("ntoskrnl.exe", ["MmGetPhysicalMemoryRanges"])) == []
        assert list(LINUX_WINE.imports("NTOSKRNL.EXE", ["KeRegisterProcessorChangeCallback"])) == []

    def test_by_number_are_of_no_use_to_another_kernel(self) -> None:
        [finding] = LINUX_WINE.imports("ntoskrnl.exe", ["number 7"])
        assert finding.fatal
        assert finding.what.startswith("imports number 7 from ntoskrnl.exe, ")

    def test_of_a_driver_that_has_none(self, spoiled: Callable[..., Path]) -> None:
        def change(image: pefile.PE) -> None:
            image.OPTIONAL_HEADER.DATA_DIRECTORY[1].VirtualAddress = 0

        assert complaints(spoiled(change)) == []

    def test_many_are_told_in_one_line(self) -> None:
        assert listed(["a", "b", "c", "d"]) == "a, b, c, d"
        assert listed(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"


def test_each_problem_has_a_line(spoiled: Callable[..., Path]) -> None:
    def change(image: pefile.PE) -> None:
        image.OPTIONAL_HEADER.AddressOfEntryPoint = 0
        image.OPTIONAL_HEADER.CheckSum = 1

    path = spoiled(change, replace=(b"HAL.dll\0", b"TDI.sys\0"))
    said = complaints(path, signed=True)
    assert [line.split()[0] for line in said] == ["has", "imports", "its", "not"]


@settings(max_examples=300)
@given(
    edits=st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.integers(0, 100),
)
def test_whatever_the_headers_say_it_comes_to_an_end_in_words(
    tmp_path_factory: pytest.TempPathFactory, edits: Iterable[tuple[int, int]], kept: int
) -> None:
    data = bytearray(DRIVER.read_bytes())
    for offset, value in edits:
        data[offset] = value
    path = tmp_path_factory.getbasetemp() / "edited.sys"
    path.write_bytes(data[: len(data) * kept // 100] if kept < 50 else data)
    for line in complaints(path):
        assert len(line) > 20


class TestKept:
    def test_stays_as_it_was_when_the_driver_is_built_again(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.sys"
        path.write_bytes(b"one")
        kept = kept_driver(path, cache=tmp_path / "cache")
        before = file_hash(path)
        path.write_bytes(b"two")
        other = kept_driver(path, cache=tmp_path / "cache")
        assert kept.name == other.name == "mine.sys"
        assert (file_hash(kept), file_hash(other)) == (before, file_hash(path))

    def test_is_not_kept_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.sys"
        path.write_bytes(b"one")
        assert kept_driver(path, cache=tmp_path / "c") == kept_driver(path, cache=tmp_path / "c")

    def test_one_that_is_gone_by_then_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(HostError, match=r"mine\.sys cannot be read: No such file"):
            kept_driver(tmp_path / "mine.sys", cache=tmp_path / "cache")
