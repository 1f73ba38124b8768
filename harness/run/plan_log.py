# SPDX-License-Identifier: MIT
"""What the harness logs while a plan runs, written into the plan's evidence as it happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG_FILE = "harness.log"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_harness = logging.getLogger("harness")
_changing = threading.Lock()
_threads: dict[int, int] = {}
_level_before = logging.NOTSET


@contextmanager
def plan_log(folder: Path) -> Iterator[None]:
    """Write all that this thread logs in the block to ``harness.log`` in the folder, and nothing of others.

    :raise OSError: the file cannot be made.
    """
    handler = _Handler(folder / LOG_FILE, thread=threading.get_ident())
    _open(handler)
    try:
        yield
    finally:
        _close(handler)


def is_of_a_plan(record: logging.LogRecord) -> bool:
    """Say whether a record goes into some plan's evidence."""
    return record.thread in _threads


class DriverLogFile:
    """The driver's log in the evidence: what was read of it is there at once, also if the run is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept_bytes = 0

    def keep(self, data: bytes) -> None:
        """Add what is new in the log, which is given as a whole.

        :raise OSError: the file cannot be written.
        """
        is_new = self._kept_bytes == 0 or len(data) < self._kept_bytes
        if len(data) == self._kept_bytes and not is_new:
            return
        with self._path.open("wb" if is_new else "ab") as file:
            file.write(data if is_new else data[self._kept_bytes :])
        self._kept_bytes = len(data)


class _Handler(logging.FileHandler):
    def __init__(self, path: Path, *, thread: int) -> None:
        super().__init__(path, mode="w", encoding="utf-8", errors="backslashreplace")
        self.owner = thread
        self.setFormatter(logging.Formatter(_FORMAT))
        self.addFilter(lambda record: record.thread == thread)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Lose the record: a full disk is told by whoever writes evidence."""


def _open(handler: _Handler) -> None:
    global _level_before
    with _changing:
        if not _threads:
            _level_before = _harness.level
            _harness.setLevel(logging.DEBUG)
        _threads[handler.owner] = _threads.get(handler.owner, 0) + 1
        _harness.addHandler(handler)


def _close(handler: _Handler) -> None:
    with _changing:
        _harness.removeHandler(handler)
        _threads[handler.owner] -= 1
        if not _threads[handler.owner]:
            del _threads[handler.owner]
        if not _threads:
            _harness.setLevel(_level_before)
    handler.close()
