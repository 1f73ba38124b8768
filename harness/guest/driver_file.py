# SPDX-License-Identifier: MIT
"""A look at a driver's file before anything is booted: is it one that this kind of guest can load at all?

What is found here would otherwise be found by the guest, half a minute later and in fewer words. Sources: the
PE format (Microsoft, "PE Format"), and what each kind of guest says of imports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HostError, UsageError
from harness.host.cache import built_folder, content_key

logger = logging.getLogger(__name__)

_X86_64 = 0x8664
_NATIVE = 1
_PE32_PLUS = 0x20B
_IS_DLL = 0x2000
_IMPORTS, _SIGNATURE = 1, 4  # indices of data directories
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a driver's file and what to do, in one line."""

    what: str
    fatal: bool = True  #: if not, it may come to nothing


ImportCheck = Callable[[str, Sequence[str]], Iterable[Finding]]
"""Says what is wrong with importing these names from that module, in one kind of guest."""


def check_driver_file(path: Path, *, imports: ImportCheck, signed: bool, always_signed: bool = False) -> None:
    """Do nothing if the file is a driver that the guest can load, as far as the host can tell.

    What may come to nothing is logged as a warning.

    :param signed: whether the guest wants a signature; whose it is and whether it is valid is not looked at.
    :param always_signed: whether this kind of guest loads none without one, in the file or in a catalog.
    :raise UsageError: it is none; a line for each reason, with the file and what to do.
    """
    findings = list(_findings(path, imports, signed, always_signed))
    fatal = [f"{path}: {finding.what}" for finding in findings if finding.fatal]
    if fatal:
        raise UsageError("\n".join(fatal))
    for finding in findings:
        logger.warning("%s: %s", path, finding.what)


def kept_driver(path: Path, *, cache: Path) -> Path:
    """Return a copy of a driver's file that nobody changes: what is tested is what the report names.

    Who builds the driver again while plans run goes on with the one that the run began with.

    :raise HostError: the file cannot be read any more.
    """
    data = read_driver(path)
    key = content_key([path.name, data])
    folder = built_folder(cache / "drivers" / key, lambda scratch: _write(scratch / path.name, data))
    return folder / path.name


def read_driver(path: Path) -> bytes:
    """Return what is in a driver's file.

    :raise HostError: it cannot be read any more.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise HostError(f"the driver {path} cannot be read: {err.strerror}") from err


def listed(names: Sequence[str]) -> str:
    """Return names as a person reads them: the first few, and how many more."""
    shown, more = names[:_MOST_NAMES], len(names) - _MOST_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _findings(path: Path, imports: ImportCheck, signed: bool, always_signed: bool) -> Iterator[Finding]:
    if path.exists() and not path.is_file():
        yield Finding("no file but a folder or a device; name the driver's .sys file")
        return
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        yield Finding("no such file; name the driver's .sys file, and build it first")
        return
    except OSError as err:
        yield Finding(f"cannot be read: {err.strerror}; name a driver's .sys file that can be")
        return
    image, wrong = _read(data)
    if wrong is not None:
        yield wrong
        return
    # Of a file for another processor or for programs, whatever else is different goes without saying.
    wrong = _kind(image)
    if wrong is not None:
        yield wrong
        return
    yield from _layout(image, len(data))
    yield from _imports(image, imports)
    header = image.OPTIONAL_HEADER
    if header.CheckSum != 0 and not image.verify_checksum():
        yield Finding("its checksum is wrong: it was changed after it was linked; copy or build it again")
    if _has(header, _SIGNATURE, len(data)):
        return
    if signed:
        yield Finding(
            "not signed, and the guest asks for it (signature: required); use signtool or osslsigncode"
        )
    elif always_signed:
        yield Finding(
            "has no signature in it, and Windows loads no driver without one, in test mode neither; if no"
            " catalog of the guest's signs it, use signtool or osslsigncode",
            fatal=False,
        )


def _read(data: bytes) -> tuple[Any, Finding | None]:
    # Takes a twentieth of a second to load, and most runs have no use for it.
    import pefile  # type: ignore[import-untyped]

    try:
        return pefile.PE(data=data, fast_load=True), None
    except pefile.PEFormatError as err:
        reason = "it is empty" if not data else str(err).strip("'").rstrip(".")
        return None, Finding(f"no Windows driver, nor any PE file: {reason}; name what the linker made of it")


def _kind(image: Any) -> Finding | None:
    machine, header = image.FILE_HEADER.Machine, image.OPTIONAL_HEADER
    if machine != _X86_64 or header.Magic != _PE32_PLUS:
        return Finding(f"built for {_machine_name(machine)}, and the guests are x86-64; build it for x64")
    if header.Subsystem != _NATIVE:
        what = "a DLL" if image.FILE_HEADER.Characteristics & _IS_DLL else "a program"
        return Finding(
            f"{what} for user mode (subsystem {header.Subsystem}) and no driver;"
            " link it with /DRIVER /SUBSYSTEM:NATIVE, with mingw -Wl,--subsystem,native"
        )
    return None


def _machine_name(machine: int) -> str:
    import pefile

    name = pefile.MACHINE_TYPE.get(machine)
    return str(name).removeprefix("IMAGE_FILE_MACHINE_") if name else f"a processor of type {machine:#06x}"


def _layout(image: Any, size_bytes: int) -> Iterator[Finding]:
    needed_bytes = max(
        (section.PointerToRawData + section.SizeOfRawData for section in image.sections), default=0
    )
    if needed_bytes > size_bytes:
        yield Finding(f"cut off: it has {size_bytes} of {needed_bytes} bytes; copy or build it again")
    entry = image.OPTIONAL_HEADER.AddressOfEntryPoint
    if entry == 0 or not _is_inside(image, entry):
        yield Finding("has no entry point; link it with /ENTRY:DriverEntry, with mingw -Wl,-e,DriverEntry")


def _imports(image: Any, imports: ImportCheck) -> Iterator[Finding]:
    header = image.OPTIONAL_HEADER
    if len(header.DATA_DIRECTORY) <= _IMPORTS or header.DATA_DIRECTORY[_IMPORTS].VirtualAddress == 0:
        return
    if not _is_inside(image, header.DATA_DIRECTORY[_IMPORTS].VirtualAddress):
        yield Finding("its table of imports lies outside it; copy or build it again")
        return
    image.parse_data_directories(directories=[_IMPORTS])
    for library in getattr(image, "DIRECTORY_ENTRY_IMPORT", []):
        names = [
            entry.name.decode(errors="replace") if entry.name else f"number {entry.ordinal}"
            for entry in library.imports
        ]
        yield from imports(library.dll.decode(errors="replace"), names)


def _is_inside(image: Any, address: int) -> bool:
    return any(
        section.VirtualAddress <= address < section.VirtualAddress + section.Misc_VirtualSize
        for section in image.sections
    )


def _has(header: Any, directory: int, size_bytes: int) -> bool:
    if len(header.DATA_DIRECTORY) <= directory:
        return False
    # Of the signature this is a place in the file and not in memory.
    found = header.DATA_DIRECTORY[directory]
    return bool(found.Size > 0 and 0 < found.VirtualAddress <= size_bytes - found.Size)
