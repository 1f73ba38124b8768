# SPDX-License-Identifier: MIT
"""A program that runs in the guest: collected to its end, or talked to line by line.

Works on an open SSH session channel whose program has been started; :mod:`harness.wires.ssh` opens it.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from harness.deadline import Deadline
from harness.errors import BenchError, GuestCommandError

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 65536
_KEPT_STDERR_BYTES = 4096
# A service that a command leaves behind may hold the command's output open for ever.
_LINGER_S = 2.0
# The end of a program does not wake a poll on its output, so that is looked at this often.
_LOOK_S = 0.25
_CLOSE_S = 5.0

Bounded = Callable[[str, Deadline], AbstractContextManager[None]]


class Channel(Protocol):
    """What is used of an SSH session channel."""

    eof_received: int
    closed: bool
    exit_status: int
    status_event: threading.Event

    def settimeout(self, timeout: float | None) -> None: ...
    def recv(self, nbytes: int) -> bytes: ...
    def recv_ready(self) -> bool: ...
    def recv_stderr(self, nbytes: int) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def sendall(self, s: bytes) -> None: ...
    def shutdown_write(self) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command in the guest ended.

    :ivar exit_status: all 32 bits, so that a Windows error or an NTSTATUS is seen as it is.
    """

    argv: tuple[str, ...]
    exit_status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text with LF line ends; what is not UTF-8 is replaced."""
        return self.stdout.decode(errors="replace").replace("\r\n", "\n")

    def check(self) -> Self:
        """Return this result.

        :raise GuestCommandError: when the exit status is not 0.
        """
        if self.exit_status != 0:
            raise GuestCommandError(
                f"{shown(self.argv)} in the guest ended with exit status {self.exit_status}: "
                f"{_last_line(self.stderr) or _last_line(self.stdout) or 'it printed nothing'}"
            )
        return self


def shown(argv: Sequence[str]) -> str:
    """Return the command as it is named in messages."""
    return "'" + " ".join(argv) + "'"


def text_of(error: BaseException) -> str:
    """Return what an error says, or at least its name."""
    return str(error) or type(error).__name__


def collect(channel: Channel, argv: Sequence[str], *, deadline: Deadline) -> CommandResult:
    """Give the program no input and return its output and exit status.

    :raise TimeoutError: when the deadline passes first.
    :raise EOFError: when the channel ends without an exit status.
    """
    channel.settimeout(deadline.remaining_s())
    channel.shutdown_write()
    # paramiko makes this descriptor readable for standard output and standard error alike.
    readable = select.poll()
    readable.register(channel.fileno(), select.POLLIN)
    stdout, stderr = bytearray(), bytearray()
    lingering: Deadline | None = None
    while True:
        readable.poll(deadline.sooner(_LOOK_S).remaining_s() * 1000)
        ended = bool(channel.eof_received or channel.closed)
        while channel.recv_ready():
            stdout += channel.recv(_CHUNK_BYTES)
        while channel.recv_stderr_ready():
            stderr += channel.recv_stderr(_CHUNK_BYTES)
        if ended:
            break
        if channel.status_event.is_set():
            lingering = lingering or deadline.sooner(_LINGER_S)
            if lingering.expired():
                _log.warning("%s ended, but something it left behind holds its output open", shown(argv))
                break
        if deadline.expired():
            raise TimeoutError
    return CommandResult(tuple(argv), _exit_status(channel, deadline=deadline), bytes(stdout), bytes(stderr))


class RemoteProcess:
    """A program in the guest that is talked to line by line; it loses its input with the ``with`` block."""

    def __init__(self, channel: Channel, argv: Sequence[str], *, bounded: Bounded) -> None:
        self._channel = channel
        self._name = shown(argv)
        self._bounded = bounded
        self._pending = b""
        self._stderr = b""

    def write_line(self, line: str, *, deadline: Deadline) -> None:
        """Send one line.

        :raise GuestUnreachableError: when the connection is gone.
        :raise GuestCommandError: when the program is gone.
        """
        with self._bounded(f"writing a line to {self._name}", deadline):
            self._channel.settimeout(deadline.remaining_s())
            # The exit status may be here a moment before the channel is closed.
            if self._channel.closed or self._channel.status_event.is_set():
                self._raise_ended(deadline)
            self._channel.sendall(line.encode() + b"\n")

    def read_line(self, *, deadline: Deadline) -> str:
        """Return the next line of standard output without its line end.

        :raise DeadlineExpiredError: when it does not come in time; what came of it is kept.
        :raise GuestUnreachableError: when the connection is gone.
        :raise GuestCommandError: when the program ended instead.
        """
        with self._bounded(f"a line from {self._name}", deadline):
            while b"\n" not in self._pending:
                self._channel.settimeout(deadline.remaining_s())
                data = self._channel.recv(_CHUNK_BYTES)
                self._keep_stderr()
                if not data:
                    self._raise_ended(deadline)
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.rstrip(b"\r").decode(errors="replace")

    def close(self) -> None:
        """End the program's input and let go of it; never raises for a guest that is gone."""
        try:
            with self._bounded(f"closing {self._name}", Deadline.after(_CLOSE_S)):
                self._channel.close()
        except BenchError as error:
            _log.debug("%s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _keep_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self._stderr = (self._stderr + self._channel.recv_stderr(_CHUNK_BYTES))[-_KEPT_STDERR_BYTES:]

    def _raise_ended(self, deadline: Deadline) -> None:
        status = _exit_status(self._channel, deadline=deadline)
        self._keep_stderr()
        raise GuestCommandError(
            f"{self._name} in the guest ended early with exit status {status}: "
            f"{_last_line(self._stderr) or 'it gave no reason'}"
        )


def _exit_status(channel: Channel, *, deadline: Deadline) -> int:
    if not channel.status_event.wait(deadline.remaining_s()):
        raise TimeoutError
    if channel.exit_status < 0:
        raise EOFError("no exit status")
    return channel.exit_status


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
