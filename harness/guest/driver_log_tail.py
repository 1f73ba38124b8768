# SPDX-License-Identifier: MIT
"""Follows the driver's log in the guest while it grows, and notices when it is no longer the same file."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.errors import DriverLogError, GuestCommandError
from harness.evidence.record import LogParser, Record
from harness.wires.ssh import FileStatus, SshConnection

# Read again with whatever is new: the end of what is known must still be there. Longer than any two records
# that could be alike, as each carries its own sequence number and time.
_OVERLAP_BYTES = 512
#: A record has about 160 bytes and each plug leads to one: no plan gets near this.
MOST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """A record of the driver's log and when the host had read it, on ``time.monotonic``."""

    record: Record
    seen_at_s: float


class DriverLogTail:
    """Reads each byte of the log once, in order, from its beginning.

    :ivar data: everything read so far, a line not yet ended included.
    """

    def __init__(self, ssh: SshConnection, path: str) -> None:
        self._ssh = ssh
        self._path = path
        self._parser = LogParser()
        self._status: FileStatus | None = None
        self.data = b""

    @property
    def pending(self) -> bytes:
        """What was read of a line that has not ended yet."""
        return self._parser.pending

    def poll(self, *, deadline: Deadline) -> list[SeenRecord]:
        """Return the records completed since the last call; none before the log exists.

        Costs one round trip while nothing is new.

        :raise DriverLogError: the log vanished, shrank or was replaced, cannot be read, is no driver log, or
            has more than :data:`MOST_BYTES`.
        """
        status = self._ssh.file_status(self._path, deadline=deadline)
        if status is None:
            if self._status is not None:
                raise DriverLogError(f"the driver's log {self._path} has vanished from the guest")
            return []
        if status == self._status:
            return []
        self._check_length(status.size_bytes)
        if status.size_bytes > MOST_BYTES:
            raise DriverLogError(
                f"the driver's log {self._path} has grown to {status.size_bytes} bytes, more than the"
                f" {MOST_BYTES} that are read; does the driver log without end?"
            )
        overlap = self.data[-_OVERLAP_BYTES:]
        try:
            found = self._ssh.read_file(
                self._path,
                offset=len(self.data) - len(overlap),
                size_bytes=status.size_bytes,
                deadline=deadline,
            )
        except GuestCommandError as error:
            raise DriverLogError(f"the driver's log cannot be read: {error}") from error
        seen_at_s = time.monotonic()
        self._check_length(len(self.data) - len(overlap) + len(found))
        if not found.startswith(overlap):
            raise DriverLogError(f"the driver's log {self._path} was replaced by another file")
        new = found[len(overlap) :]
        # Of the moment before the reading, so that what was appended meanwhile is looked for again.
        self._status = status
        self.data += new
        return [SeenRecord(record, seen_at_s) for record in self._parser.feed(new)]

    def _check_length(self, size_bytes: int) -> None:
        if size_bytes < len(self.data):
            raise DriverLogError(
                f"the driver's log {self._path} shrank from {len(self.data)} to {size_bytes} bytes"
            )
