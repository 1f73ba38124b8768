# SPDX-License-Identifier: MIT
"""The programs of ``guest-driver/``, built by its Makefile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.cache import locked
from harness.deadline import Deadline
from harness.errors import HostError
from harness.host_tools import find_tool, run_tool

SOURCE_FOLDER = Path(__file__).resolve().parent.parent / "guest-driver"
BUILD_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class GuestBinaries:
    """Where each built program lies on the host."""

    folder: Path

    @property
    def driver(self) -> Path:
        """The sample driver under test, ``hpnotify.sys``."""
        return self.folder / "hpnotify.sys"

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

    :raise HostError: if the sources are not here or do not compile.
    """
    if not (SOURCE_FOLDER / "Makefile").is_file():
        raise HostError(f"no driver sources in {SOURCE_FOLDER}; run from a checkout of the project")
    folder = SOURCE_FOLDER / "build"
    with locked(folder / ".lock"):
        run_tool(
            [find_tool("make"), "--silent", f"--directory={SOURCE_FOLDER}"],
            deadline=Deadline.after(BUILD_LIMIT_S),
        )
    return GuestBinaries(folder)
