# SPDX-License-Identifier: MIT
"""What the Wine in the reference guest's image exports to drivers, as ``reference_kernel.txt`` lists it.

``python -m tests.e2e.reference_kernel_list`` writes that list anew.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pefile

from harness.deadline import Deadline
from harness.guest.binaries import build_guest_binaries
from harness.guest.images import find_image
from harness.guest.profile import find_profile
from harness.guest.reference_kernel import LIST
from harness.host.cache import cache_folder
from harness.host.checkout import DRIVER_SOURCES, PROJECT_PROFILES
from harness.host.tools import find_tool, run_tool

HEADING = """\
# SPDX-License-Identifier: MIT
# What a driver in the reference guest can import: the exports of its Wine, and what winepnp.sys supplies.
# "stub": Wine exports the name and does not implement it. Made by tests/e2e/reference_kernel_list.py.
"""
FOLDER = "/usr/lib/x86_64-linux-gnu/wine/x86_64-windows"
MODULES = ("ntoskrnl.exe", "hal.dll", "fltmgr.sys")
#: winebuild's code for a name without a routine: sub rsp, 0x28; lea rcx, [its module's name]; lea rdx, [...].
STUB = re.compile(rb"\x48\x83\xec\x28\x48\x8d\x0d....\x48\x8d\x15....\xe8", re.DOTALL)


def wine_module(disk: Path, name: str, folder: Path) -> Path:
    """Copy a module of Wine out of an image of the reference guest."""
    path = folder / name
    command = [find_tool("debugfs"), "-R", f"dump {FOLDER}/{name} {path}", disk]
    run_tool(command, deadline=Deadline.after(60))
    return path


def exports_of(path: Path) -> list[str]:
    """Return the names that a module exports, each with ``stub`` if there is nothing behind it."""
    with pefile.PE(path) as image:
        found = getattr(image, "DIRECTORY_ENTRY_EXPORT", None)
        exported = [symbol for symbol in found.symbols if symbol.name] if found else []
        return sorted(
            symbol.name.decode()
            + (" stub" if not symbol.forwarder and STUB.match(image.get_data(symbol.address, 32)) else "")
            for symbol in exported
        )


def supplied_routines() -> list[str]:
    """Return the names that ``winepnp.sys`` puts its own routines in the place of."""
    source = (DRIVER_SOURCES / "winepnp/routines.c").read_text()
    return sorted(re.findall(r'^ {4}\{"(\w+)", Wp\w+\},$', source, re.MULTILINE))


def written_list(disk: Path, folder: Path) -> str:
    """Return the list as it is to be."""
    sections = {name: exports_of(wine_module(disk, name, folder)) for name in MODULES}
    sections["winepnp.sys"] = supplied_routines()
    return HEADING + "".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())


def reference_disk() -> Path:
    """Return the disk of the reference guest's image, built if the cache has none."""
    profile = find_profile("reference", PROJECT_PROFILES)
    return find_image(profile, binaries=build_guest_binaries(), cache=cache_folder()).disk


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        LIST.write_text(written_list(reference_disk(), Path(scratch)))
