# SPDX-License-Identifier: MIT
"""Standard output and standard error that never stop a run: closed, full, or of another encoding."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast


class Output:
    """A standard stream that drops what cannot be written.

    :ivar error: why something could not be written, or None.
    """

    def __init__(self, stream: TextIO | None, *, fd: int) -> None:
        self.error: OSError | None = None
        self._fd = fd
        self._is_closed = stream is None
        if stream is None:
            # Otherwise the next file that is opened would get its number, and be printed to.
            while os.open(os.devnull, os.O_RDWR) < fd:
                pass
            stream = os.fdopen(os.dup(fd), "w")
        elif hasattr(stream, "reconfigure"):
            # A name or a description in letters that this terminal does not have.
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        if self._is_closed and self.error is None:
            self.error = OSError(errno.EBADF, "it is closed")
        try:
            return self._stream.write(text)
        except OSError as err:
            self._give_up(err)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the lines, or drop them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written, or drop it."""
        try:
            self._stream.flush()
        except OSError as err:
            self._give_up(err)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        self.error = self.error or error
        # What is still in the buffer is written once more when Python ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._fd)
        os.close(null)


def take_standard_streams() -> Output:
    """Put an :class:`Output` in the place of standard output and standard error; return the former."""
    output = Output(sys.stdout, fd=1)
    sys.stdout = cast(TextIO, output)
    sys.stderr = cast(TextIO, Output(sys.stderr, fd=2))
    return output
