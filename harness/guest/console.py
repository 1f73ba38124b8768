# SPDX-License-Identifier: MIT
"""What a guest says on its serial console of drivers and of itself."""

from __future__ import annotations

import re

from harness.errors import DriverRefusedError
from harness.vm.serial import read_serial_log
from harness.vm.vm import Vm


def said(vm: Vm, pattern: str | None) -> str | None:
    """Return what the guest has said last on its console of what the pattern is for."""
    found = re.findall(pattern, read_serial_log(vm.folder)) if pattern else [None]
    return found[-1] if found else None


def refuse_misuse(misuse: str | None) -> None:
    """Take what a driver did wrong while it started for a start that failed: no fork tells of it.

    :raise DriverRefusedError: it did something wrong.
    """
    if misuse is not None:
        raise DriverRefusedError(f"it misused the PnP manager: {misuse}")
