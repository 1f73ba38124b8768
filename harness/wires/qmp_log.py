# SPDX-License-Identifier: MIT
"""What is said over QMP, kept as lines of JSON; a log that cannot be written ends, and nothing else does."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)


class QmpLog:
    """A file that each line is in as soon as it was written.

    :ivar lost: why the file ends before QEMU did; None if it does not.
    """

    def __init__(self, path: Path | None) -> None:
        self.lost: str | None = None
        self._file = None if path is None else path.open("a", encoding="utf-8", buffering=1)

    def append(self, line: Mapping[str, object]) -> None:
        """Write one line if the log is still open."""
        if self._file is None or self._file.closed:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as err:
            # Such as a full disk, which is just what QEMU has to tell of then.
            self.lost = f"{self._file.name} could not be written to its end: {err.strerror}"
            logger.info("%s", self.lost)
            self.close()

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
