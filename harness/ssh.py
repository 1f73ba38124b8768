# SPDX-License-Identifier: MIT
"""One SSH connection to the guest: commands, line-by-line programs and files, each bounded by a deadline.

The only module that imports paramiko. Start reading at :class:`SshConnection`.

Whatever the peer does (is not up yet, stops, dies), no call outlives its deadline by more than a moment:
channel timeouts end the ordinary waits, and a watchdog closes the whole connection under the few calls that
paramiko would let wait for ever.
"""

from __future__ import annotations

import logging
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestCommandError, GuestUnreachableError
from harness.host_key import HostKey
from harness.quoting import Shell, quote_command, sftp_path
from harness.remote_files import FileStatus, RemoteFiles
from harness.remote_process import CommandResult, RemoteProcess, collect, shown
from harness.watchdog import Watchdog

with warnings.catch_warnings():
    # Older paramiko names ciphers that newer cryptography deprecates; neither is used here.
    warnings.simplefilter("ignore")
    import paramiko

__all__ = ["CommandResult", "FileStatus", "RemoteProcess", "SshConnection", "sftp_path"]

_log = logging.getLogger(__name__)
# paramiko logs a traceback for each attempt on a guest that still boots. Every one of them is either retried
# or raised, so this log is only for those who attach a handler to it.
_WIRE_LOG = f"{__name__}.wire"
logging.getLogger(_WIRE_LOG).propagate = False
logging.getLogger(_WIRE_LOG).addHandler(logging.NullHandler())

# Cheapest for an emulated guest first; the rest is for servers that were configured without them.
_KEX = ("ecdh-sha2-nistp256", "curve25519-sha256@libssh.org", "diffie-hellman-group14-sha256")
_CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-256")

# A forwarded port accepts connections before the guest has a network; a connection made that early may never
# carry a banner, so it is given up soon, and later ones are given longer.
_FIRST_BANNER_WAIT_S = 2.0
_LONGEST_BANNER_WAIT_S = 30.0
_RETRY_PAUSE_S = 0.1
_KEEPALIVE_S = 10
_WATCHDOG_GRACE_S = 0.5
_LOST = (EOFError, OSError, paramiko.SSHException, paramiko.SFTPError)


class _NotUpError(Exception):
    """The server does not answer yet; trying again may help."""


class SshConnection:
    """A live, authenticated connection; made by :meth:`connect`, closed by its ``with`` block.

    Every method raises :exc:`DeadlineExpiredError` when its deadline passes and
    :exc:`GuestUnreachableError` when the connection is lost.

    :ivar address: host and port, as in messages.
    """

    def __init__(self, transport: paramiko.Transport, *, address: str, shell: Shell) -> None:
        self._transport = transport
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
        address = f"{host}:{port}"
        try:
            pinned = HostKey.parse(host_key)
            key = paramiko.PKey.from_path(key_file)
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise GuestUnreachableError(f"cannot log in to {address}: {_text(error)}") from error
        login = _Login(host, port, user, key, pinned)
        banner_wait_s = _FIRST_BANNER_WAIT_S
        while True:
            try:
                transport = login.attempt(banner_wait_s=banner_wait_s, deadline=deadline)
                return cls(transport, address=address, shell=shell)
            except _NotUpError as error:
                if deadline.remaining_s() <= _RETRY_PAUSE_S:
                    message = f"{address} did not answer over SSH in time: {error}"
                    raise GuestUnreachableError(message) from error
                _log.debug("%s does not answer yet: %s", address, error)
            except _LOST as error:
                message = f"cannot log in to {address} as {user}: {_text(error)}"
                raise GuestUnreachableError(message) from error
            threading.Event().wait(_RETRY_PAUSE_S)
            check()
            banner_wait_s = min(2 * banner_wait_s, _LONGEST_BANNER_WAIT_S)

    def run(self, argv: Sequence[str], *, deadline: Deadline) -> CommandResult:
        """Run a command with empty input to its end; any exit status is a result.

        :raise GuestCommandError: when it ended without an exit status, as by a signal.
        :raise UsageError: when the guest's shell has no way to quote it.
        """
        with (
            self._bounded(f"the end of {shown(argv)}", deadline),
            closing(self._exec(argv, deadline)) as channel,
        ):
            return collect(channel, argv, deadline=deadline)

    def start(self, argv: Sequence[str], *, deadline: Deadline) -> RemoteProcess:
        """Start a program that is to be talked to; close what is returned.

        :raise UsageError: when the guest's shell has no way to quote it.
        """
        with self._bounded(f"the start of {shown(argv)}", deadline):
            return RemoteProcess(self._exec(argv, deadline), argv, bounded=self._bounded)

    def file_status(self, path: str, *, deadline: Deadline) -> FileStatus | None:
        """Return size and last change of a file, or None when there is no such file."""
        return self._files.status(path, deadline=deadline)

    def file_size(self, path: str, *, deadline: Deadline) -> int | None:
        """Return the size of a file in bytes, or None when there is no such file."""
        status = self.file_status(path, deadline=deadline)
        return None if status is None else status.size_bytes

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

    def _exec(self, argv: Sequence[str], deadline: Deadline) -> paramiko.Channel:
        command = quote_command(argv, shell=self._shell)
        channel = self._transport.open_session(timeout=deadline.remaining_s())
        channel.settimeout(deadline.remaining_s())
        channel.exec_command(command)
        return channel

    def _open_sftp(self, deadline: Deadline) -> paramiko.SFTPClient:
        channel = self._transport.open_session(timeout=deadline.remaining_s())
        channel.settimeout(deadline.remaining_s())
        channel.invoke_subsystem("sftp")
        return paramiko.SFTPClient(channel)

    @contextmanager
    def _bounded(self, waited_for: str, deadline: Deadline) -> Iterator[None]:
        deadline.check(waited_for)
        try:
            with self._watchdog.watching(deadline, grace_s=_WATCHDOG_GRACE_S):
                yield
        except _LOST as error:
            if isinstance(error, TimeoutError) or deadline.expired():
                raise DeadlineExpiredError(f"{waited_for} did not happen in time ({self.address})") from error
            # The thread of a dying connection closes the channels a moment before it ends itself.
            self._transport.join(_WATCHDOG_GRACE_S)
            if self._transport.is_active():
                raise GuestCommandError(f"{waited_for} failed in the guest: {_text(error)}") from error
            cause = self._transport.get_exception() or error
            raise GuestUnreachableError(
                f"the SSH connection to {self.address} was lost at {waited_for}: {_text(cause)}"
            ) from error


@dataclass(frozen=True, slots=True)
class _Login:
    host: str
    port: int
    user: str
    key: paramiko.PKey
    pinned: HostKey

    def attempt(self, *, banner_wait_s: float, deadline: Deadline) -> paramiko.Transport:
        """Return a connection that is logged in.

        :raise _NotUpError: when the server does not answer, or ends the connection before the login is done.
        """
        within = deadline.sooner(banner_wait_s)
        try:
            # A timeout of zero would mean "do not wait at all" to the socket.
            sock = socket.create_connection((self.host, self.port), timeout=max(0.001, within.remaining_s()))
        except OSError as error:
            if isinstance(error, socket.gaierror):
                raise
            raise _NotUpError(_text(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock)
        try:
            transport.set_log_channel(_WIRE_LOG)
            self._prefer(transport.get_security_options())
            transport.banner_timeout = within.remaining_s()
            self._agree_on_keys(transport, deadline)
            self._check_host_key(transport)
            transport.auth_timeout = deadline.remaining_s()
            transport.auth_publickey(self.user, self.key)
            transport.set_keepalive(_KEEPALIVE_S)
        except BaseException as error:
            ended = deadline.expired() or not transport.is_active()
            transport.close()
            sock.close()
            # Otherwise paramiko's timer thread would live on until the handshake's last moment.
            transport.packetizer.complete_handshake()
            if ended and _is_not_up(error):
                raise _NotUpError(_text(error)) from error
            raise
        return transport

    def _prefer(self, options: paramiko.transport.SecurityOptions) -> None:
        key_type = self.pinned.key_type
        options.kex = [name for name in _KEX if name in options.kex]
        options.ciphers = [name for name in _CIPHERS if name in options.ciphers]
        options.digests = [name for name in _MACS if name in options.digests]
        options.key_types = ["rsa-sha2-512", "rsa-sha2-256"] if key_type == "ssh-rsa" else [key_type]

    def _agree_on_keys(self, transport: paramiko.Transport, deadline: Deadline) -> None:
        agreed = threading.Event()
        transport.handshake_timeout = deadline.remaining_s()
        transport.start_client(event=agreed)
        agreed.wait(deadline.remaining_s())
        if not transport.is_active():
            raise transport.get_exception() or EOFError("the connection was closed")
        if not agreed.is_set():
            raise TimeoutError("no key agreement" if transport.remote_version else "no banner")

    def _check_host_key(self, transport: paramiko.Transport) -> None:
        offered = HostKey(self.pinned.key_type, transport.get_remote_server_key().asbytes())
        if offered.blob != self.pinned.blob:
            raise GuestUnreachableError(
                f"the server at {self.host}:{self.port} is not the guest: its host key is "
                f"{offered.fingerprint}, the pinned one is {self.pinned.fingerprint}"
            )


def _is_not_up(error: BaseException) -> bool:
    if isinstance(error, paramiko.SSHException):
        return isinstance(error, paramiko.AuthenticationException) or "protocol banner" in str(error)
    return isinstance(error, EOFError | OSError)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
