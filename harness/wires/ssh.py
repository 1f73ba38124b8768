# SPDX-License-Identifier: MIT
"""One SSH connection to the guest: commands, line-by-line programs and files, each bounded by a deadline.

Start reading at :class:`SshConnection`; :mod:`harness.wires.login` opens it.

Whatever the peer does (is not up yet, stops, dies), no call outlives its deadline by more than a moment:
channel timeouts end the ordinary waits, and a watchdog closes the whole connection under the few calls that
paramiko would let wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestCommandError, GuestUnreachableError
from harness.wires.quoting import Shell, quote_command, sftp_path
from harness.wires.remote_files import FileStatus, RemoteFiles, SftpSession
from harness.wires.remote_process import CommandResult, RemoteProcess, collect, shown, text_of
from harness.wires.watchdog import Watchdog

if TYPE_CHECKING:
    from harness.wires.login import Channel, Transport

__all__ = ["CommandResult", "FileStatus", "RemoteProcess", "SshConnection", "sftp_path"]

_WATCHDOG_GRACE_S = 0.5


class SshConnection:
    """A live, authenticated connection; made by :meth:`connect`, closed by its ``with`` block.

    Every method raises :exc:`DeadlineExpiredError` when its deadline passes and
    :exc:`GuestUnreachableError` when the connection is lost.

    :ivar address: host and port, as in messages.
    """

    def __init__(
        self, transport: Transport, *, address: str, shell: Shell, lost: tuple[type[Exception], ...]
    ) -> None:
        self._transport = transport
        self._lost = lost
        self._shell: Shell = shell
        self._files = RemoteFiles(self._open_sftp, bounded=self._bounded)
        self._watchdog = Watchdog(transport.close, name=f"harness-ssh-{address}")
        self.address = address

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        *,
        user: str,
        key_file: Path,
        host_key: str,
        deadline: Deadline,
        shell: Shell = "posix",
        check: Callable[[], None] = lambda: None,
    ) -> Self:
        """Log in with the key file, to exactly the server that owns the pinned host key.

        Tries again while the server is not up yet. A wrong host key or a refused login is final at once.

        :param host_key: OpenSSH public key text, ``<type> <base64> [comment]``.
        :param shell: how the guest's login shell takes commands.
        :param check: called before each new attempt; raises when there is no point in one.
        :raise GuestUnreachableError: naming the address and the last cause.
        """
        # Only now, for this loads paramiko; a QEMU that was started before it is ready by then.
        from harness.wires.login import LOST, log_in

        transport = log_in(
            host,
            port,
            user=user,
            key_file=key_file,
            host_key=host_key,
            deadline=deadline,
            check=check,
        )
        return cls(transport, address=f"{host}:{port}", shell=shell, lost=LOST)

    def run(self, argv: Sequence[str], *, deadline: Deadline) -> CommandResult:
        """Run a command with empty input to its end; any exit status is a result.

        :raise GuestCommandError: when it ended without an exit status, as by a signal.
        :raise UsageError: when the guest's shell has no way to quote it.
        """
        return self._run(quote_command(argv, shell=self._shell), argv, deadline)

    def run_line(self, line: str, *, deadline: Deadline) -> CommandResult:
        """Run a line as it stands, whatever the login shell makes of it; see :meth:`run`."""
        return self._run(line, [line], deadline)

    def start(self, argv: Sequence[str], *, deadline: Deadline) -> RemoteProcess:
        """Start a program that is to be talked to; close what is returned.

        :raise UsageError: when the guest's shell has no way to quote it.
        """
        line = quote_command(argv, shell=self._shell)
        with self._bounded(f"the start of {shown(argv)}", deadline):
            return RemoteProcess(self._exec(line, deadline), argv, bounded=self._bounded)

    def file_status(self, path: str, *, deadline: Deadline) -> FileStatus | None:
        """Return size and last change of a file, or None when there is no such file."""
        return self._files.status(path, deadline=deadline)

    def read_file(
        self, path: str, *, offset: int = 0, size_bytes: int | None = None, deadline: Deadline
    ) -> bytes:
        """Return the bytes of a file from the offset to its present end; none when it is shorter.

        :param size_bytes: its size if just asked for, which saves asking again.
        :raise GuestCommandError: when it does not exist or may not be read.
        """
        return self._files.read(path, offset=offset, size_bytes=size_bytes, deadline=deadline)

    def write_file(self, path: str, data: bytes, *, deadline: Deadline) -> None:
        """Create or replace a file.

        :raise GuestCommandError: when it may not be written, such as a loaded driver's image on Windows.
        """
        self._files.write(path, data, deadline=deadline)

    def remove_file(self, path: str, *, deadline: Deadline) -> None:
        """Remove a file.

        :raise GuestCommandError: when it is not there or may not be removed.
        """
        self._files.remove(path, deadline=deadline)

    def make_directories(self, path: str, *, deadline: Deadline) -> None:
        """Create a folder and its parents where they are missing.

        :raise GuestCommandError: when one cannot be created or is not a folder.
        """
        self._files.make_directories(path, deadline=deadline)

    def close(self) -> None:
        """Close the connection; programs started over it lose their input."""
        self._transport.close()
        self._watchdog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, line: str, argv: Sequence[str], deadline: Deadline) -> CommandResult:
        with (
            self._bounded(f"the end of {shown(argv)}", deadline),
            closing(self._exec(line, deadline)) as channel,
        ):
            return collect(channel, argv, deadline=deadline)

    def _exec(self, line: str, deadline: Deadline) -> Channel:
        channel = self._transport.open_session(timeout=deadline.remaining_s())
        channel.settimeout(deadline.remaining_s())
        channel.exec_command(line)
        return channel

    def _open_sftp(self, deadline: Deadline) -> SftpSession:
        from harness.wires.login import open_sftp

        return open_sftp(self._transport, deadline=deadline)

    @contextmanager
    def _bounded(self, waited_for: str, deadline: Deadline) -> Iterator[None]:
        deadline.check(waited_for)
        try:
            with self._watchdog.watching(deadline, grace_s=_WATCHDOG_GRACE_S):
                yield
        except self._lost as error:
            if isinstance(error, TimeoutError) or deadline.expired():
                raise DeadlineExpiredError(f"{waited_for} did not happen in time ({self.address})") from error
            # The thread of a dying connection closes the channels a moment before it ends itself.
            self._transport.join(_WATCHDOG_GRACE_S)
            if self._transport.is_active():
                raise GuestCommandError(f"{waited_for} failed in the guest: {text_of(error)}") from error
            cause = self._transport.get_exception() or error
            raise GuestUnreachableError(
                f"the SSH connection to {self.address} was lost at {waited_for}: {text_of(cause)}"
            ) from error
