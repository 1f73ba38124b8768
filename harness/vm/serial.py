# SPDX-License-Identifier: MIT
"""What a guest has said on its serial console."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

SERIAL_LOG_FILE = "serial.log"
#: A guest can fill its console with anything; what it said last is what is looked at.
_LAST_BYTES = 256 * 1024


def read_serial_log(folder: Path) -> str:
    """Return the end of what the guest of a VM that logs to the folder has said, or nothing."""
    with suppress(OSError), (folder / SERIAL_LOG_FILE).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _LAST_BYTES))
        return file.read().decode(errors="replace").replace("\r\n", "\n")
    return ""
