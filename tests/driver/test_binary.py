# SPDX-License-Identifier: MIT
"""What the loader of Windows sees of the shipped ``hpnotify.sys``, and what the sources promise of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pefile
import pytest

from harness.guest.binaries import build_guest_binaries
from harness.host.checkout import DRIVER_SOURCES

HPNOTIFY = DRIVER_SOURCES / "hpnotify"
SECTION_EXECUTE = 0x20000000
SECTION_WRITE = 0x80000000
RELOCATION_TABLE = 5
SERVER_2019 = (10, 0, 17763)
KERNEL = {"ntoskrnl.exe", "hal.dll"}


@pytest.fixture(scope="module")
def image() -> Iterator[pefile.PE]:
    with pefile.PE(build_guest_binaries().driver) as image:
        yield image


def listed_imports() -> list[list[str]]:
    lines = (HPNOTIFY / "imports.txt").read_text(encoding="ascii").splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


def imports(image: pefile.PE) -> list[str]:
    return sorted(
        f"{library.dll.decode()} {entry.name.decode()}"
        for library in image.DIRECTORY_ENTRY_IMPORT
        for entry in library.imports
    )


def test_imports_are_those_listed(image: pefile.PE) -> None:
    assert imports(image) == [f"{row[0]} {row[1]}" for row in listed_imports()]


def test_every_import_is_in_the_oldest_windows_that_is_meant() -> None:
    for _, name, since, header in listed_imports():
        if name in ("memcmp", "memcpy", "MmGetPhysicalMemoryRanges"):
            assert (since, header) == ("-", "-")
            continue
        assert tuple(int(part) for part in since.split(".")) <= SERVER_2019
        assert header in ("wdm", "ntddk", "ntifs")


def test_what_newer_windows_has_is_found_by_name_and_not_imported(image: pefile.PE) -> None:
    names = {line.split()[1] for line in imports(image)}
    content = build_guest_binaries().driver.read_bytes()
    for name in ("MmGetPhysicalMemoryRangesEx2", "KeQuerySystemTimePrecise"):
        assert name not in names
        assert name.encode("utf-16-le") in content


def test_imports_the_ex_form_of_unregister_and_not_the_obsolete_one(image: pefile.PE) -> None:
    names = {line.split()[1] for line in imports(image)}
    assert "IoUnregisterPlugPlayNotificationEx" in names
    assert "IoUnregisterPlugPlayNotification" not in names


def test_imports_from_the_kernel_only(image: pefile.PE) -> None:
    assert {line.split()[0].lower() for line in imports(image)} == KERNEL


def test_is_a_native_x64_image_and_no_dll(image: pefile.PE) -> None:
    assert image.FILE_HEADER.Machine == pefile.MACHINE_TYPE["IMAGE_FILE_MACHINE_AMD64"]
    assert image.OPTIONAL_HEADER.Subsystem == pefile.SUBSYSTEM_TYPE["IMAGE_SUBSYSTEM_NATIVE"]
    assert image.FILE_HEADER.IMAGE_FILE_EXECUTABLE_IMAGE
    assert not image.FILE_HEADER.IMAGE_FILE_DLL
    assert image.OPTIONAL_HEADER.MajorSubsystemVersion == 10
    assert not hasattr(image, "DIRECTORY_ENTRY_EXPORT")


def test_can_be_loaded_anywhere(image: pefile.PE) -> None:
    assert not image.FILE_HEADER.IMAGE_FILE_RELOCS_STRIPPED
    assert image.OPTIONAL_HEADER.IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE
    assert image.OPTIONAL_HEADER.DATA_DIRECTORY[RELOCATION_TABLE].Size > 0


def test_no_section_is_writable_and_executable(image: pefile.PE) -> None:
    assert image.OPTIONAL_HEADER.IMAGE_DLLCHARACTERISTICS_NX_COMPAT
    executable = [s for s in image.sections if s.Characteristics & SECTION_EXECUTE]
    assert [s.Name.rstrip(b"\0") for s in executable] == [b".text"]
    assert not any(s.Characteristics & SECTION_WRITE for s in executable)


def test_entry_lies_in_the_code(image: pefile.PE) -> None:
    section = image.get_section_by_rva(image.OPTIONAL_HEADER.AddressOfEntryPoint)
    assert section.Name.rstrip(b"\0") == b".text"


def test_checksum_is_the_one_the_loader_demands_of_drivers(image: pefile.PE) -> None:
    assert image.verify_checksum()


def test_carries_the_version_it_logs() -> None:
    assert b"hpnotify/1.0.0\0" in build_guest_binaries().driver.read_bytes()


def test_carries_no_path_of_this_machine() -> None:
    content = build_guest_binaries().driver.read_bytes()
    assert str(DRIVER_SOURCES).encode() not in content
    assert str(Path.home()).encode() + b"/" not in content


def test_wdk_project_has_the_very_same_sources() -> None:
    project = ElementTree.parse(HPNOTIFY / "hpnotify.vcxproj").getroot()
    listed = {
        element.attrib["Include"]
        for element in project.iter()
        if element.tag.rpartition("}")[2] in ("ClCompile", "ClInclude") and "Include" in element.attrib
    }
    assert listed == {path.name for path in HPNOTIFY.iterdir() if path.suffix in (".c", ".h")}


def test_wdk_project_asks_for_no_standard_of_c_that_older_kits_do_not_have() -> None:
    project = ElementTree.parse(HPNOTIFY / "hpnotify.vcxproj").getroot()
    assert not [element for element in project.iter() if "LanguageStandard" in element.tag]


def test_no_source_file_outgrows_its_concern() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in HPNOTIFY.glob("*.[ch]")}
    assert {name: count for name, count in lines.items() if count >= 200} == {}
