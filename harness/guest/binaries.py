# SPDX-License-Identifier: MIT
"""The programs of ``guest-driver/``, built by its Makefile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.host.cache import cache_folder, content_key, locked
from harness.host.checkout import BUILD_FOLDER, CHECKOUT, DRIVER_SOURCES, SAMPLE_DRIVER, driver_source_files
from harness.host.tools import find_tool, run_tool

BUILD_LIMIT_S = 300.0
_COMPILERS = ("gcc", "x86_64-w64-mingw32-gcc")


@dataclass(frozen=True, slots=True)
class GuestBinaries:
    """Where each built program lies on the host."""

    folder: Path

    @property
    def driver(self) -> Path:
        """The sample driver under test, ``hpnotify.sys``."""
        return self.folder / f"{SAMPLE_DRIVER}.sys"

    @property
    def probe(self) -> Path:
        """The console program that says what the guest's OS uses."""
        return self.folder / "hpprobe.exe"

    @property
    def pnp_manager(self) -> Path:
        """The PnP manager for Wine, ``winepnp.sys``."""
        return self.folder / "winepnp.sys"

    @property
    def pnp_feed(self) -> Path:
        """The console program that tells the PnP manager of arrivals."""
        return self.folder / "pnpfeed.exe"

    @property
    def acpi_feed(self) -> Path:
        """The Linux program that watches ACPI and tells :attr:`pnp_feed`."""
        return self.folder / "hpfeed"

    @property
    def spare_probe(self) -> Path:
        """The Linux program that answers to the probe's name and keeps a started one ready."""
        return self.folder / "spareprobe"


def build_guest_binaries() -> GuestBinaries:
    """Build what is out of date and return where it lies.

    :raise HostError: if a tool is missing or the sources do not compile.
    """
    folder = build_folder()
    # As seen from the sources: make takes no folder whose name has a space in it.
    build = os.path.relpath(folder, DRIVER_SOURCES)
    if " " in build:
        raise HostError(f"{folder}: make builds into no folder with a space in its name; set HIL_CACHE")
    with locked(folder / ".lock"):
        command = [find_tool("make"), "--silent", f"--directory={DRIVER_SOURCES}", f"BUILD={build}"]
        try:
            run_tool(command, deadline=Deadline.after(BUILD_LIMIT_S))
        except HostError:
            for compiler in _COMPILERS:
                find_tool(compiler)
            raise
    return GuestBinaries(folder)


def build_folder() -> Path:
    """Return where the programs are built: beside their sources in a checkout, else in the cache."""
    if CHECKOUT is not None:
        return DRIVER_SOURCES / BUILD_FOLDER
    parts = [part for name, path in driver_source_files().items() for part in (name, path.read_bytes())]
    return cache_folder() / "binaries" / content_key(parts)
