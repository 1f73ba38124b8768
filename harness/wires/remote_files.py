# SPDX-License-Identifier: MIT
"""Files in the guest, over one SFTP session that is opened when first needed.

Works on whatever opens the session; :mod:`harness.wires.ssh` does.
"""

from __future__ import annotations

import errno
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from harness.deadline import Deadline
from harness.errors import GuestCommandError
from harness.wires.quoting import sftp_path

_CHUNK_BYTES = 32768

Bounded = Callable[[str, Deadline], AbstractContextManager[None]]


class SftpSession(Protocol):
    """What is used of an SFTP session; its refusals are OSError, as are those of its channel."""

    def stat(self, path: str) -> Any: ...
    def open(self, filename: str, mode: str) -> Any: ...
    def mkdir(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def get_channel(self) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileStatus:
    """Size and last change of a file in the guest, as its SFTP server tells them."""

    size_bytes: int
    modified_s: int


class RemoteFiles:
    """Reads and writes whole files and tails by absolute path, Windows or posix."""

    def __init__(self, open_session: Callable[[Deadline], SftpSession], *, bounded: Bounded) -> None:
        self._open_session = open_session
        self._bounded = bounded
        self._session: SftpSession | None = None

    def status(self, path: str, *, deadline: Deadline) -> FileStatus | None:
        """Return size and last change of a file, or None when there is no such file."""
        with self._operation("the status of", path, deadline) as session:
            try:
                found = session.stat(sftp_path(path))
            except FileNotFoundError:
                return None
            return FileStatus(found.st_size or 0, int(found.st_mtime or 0))

    def read(self, path: str, *, offset: int, deadline: Deadline, size_bytes: int | None = None) -> bytes:
        """Return the bytes from the offset to the file's present end; none when it is shorter.

        Whoever knows the file's size from :meth:`status` saves a round trip by giving it.
        """
        with self._operation("reading", path, deadline) as session:
            # Not closed here: paramiko closes a file that is dropped without waiting for the answer.
            file = session.open(sftp_path(path), "rb")
            size = size_bytes if size_bytes is not None else file.stat().st_size or 0
            if size - offset <= _CHUNK_BYTES:
                file.seek(offset)
                return bytes(file.read(max(0, size - offset)))
            chunks = [(at, min(_CHUNK_BYTES, size - at)) for at in range(offset, size, _CHUNK_BYTES)]
            content = bytearray()
            # All chunks are asked for at once, so that a long log costs one round trip.
            for chunk in file.readv(chunks):
                content += chunk
                _set_timeout(session, deadline)
            return bytes(content)

    def write(self, path: str, data: bytes, *, deadline: Deadline) -> None:
        """Create the file, or replace what it holds."""
        with (
            self._operation("writing", path, deadline) as session,
            session.open(sftp_path(path), "wb") as file,
        ):
            # One after the other: paramiko loses the server's refusals of pipelined writes.
            for start in range(0, len(data), _CHUNK_BYTES):
                _set_timeout(session, deadline)
                file.write(data[start : start + _CHUNK_BYTES])

    def remove(self, path: str, *, deadline: Deadline) -> None:
        """Remove a file."""
        with self._operation("removing", path, deadline) as session:
            session.remove(sftp_path(path))

    def make_directories(self, path: str, *, deadline: Deadline) -> None:
        """Create a folder and its parents where they are missing."""
        with self._operation("creating folder", path, deadline) as session:
            missing: list[str] = []
            folder = sftp_path(path).rstrip("/")
            while folder:
                try:
                    if not stat.S_ISDIR(session.stat(folder).st_mode or 0):
                        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
                    break
                except FileNotFoundError:
                    missing.append(folder)
                    folder = posixpath.dirname(folder).rstrip("/")
            for folder in reversed(missing):
                session.mkdir(folder)

    @contextmanager
    def _operation(self, doing: str, path: str, deadline: Deadline) -> Iterator[SftpSession]:
        with self._bounded(f"{doing} {path}", deadline):
            if self._session is None:
                self._session = self._open_session(deadline)
            session = self._session
            _set_timeout(session, deadline)
            try:
                yield session
            except OSError as error:
                if isinstance(error, TimeoutError) or session.get_channel().closed:
                    self._drop()
                    raise
                # The server's refusals are OSError too, and leave the session in step.
                raise GuestCommandError(f"{doing} {path} in the guest: {error.strerror or error}") from error
            except BaseException:
                self._drop()
                raise

    def _drop(self) -> None:
        # After an answer that was read by half the next one would be misread: the next call starts afresh.
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _set_timeout(session: SftpSession, deadline: Deadline) -> None:
    session.get_channel().settimeout(deadline.remaining_s())
