# SPDX-License-Identifier: MIT
"""Log in to the guest over SSH, to exactly the server that owns the pinned host key.

The only module that imports paramiko. That takes as long as a QEMU to start, so it is loaded after one was
started (:meth:`harness.wires.ssh.SshConnection.connect`).
"""

from __future__ import annotations

import logging
import socket
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestUnreachableError
from harness.wires.host_key import HostKey
from harness.wires.remote_process import text_of

with warnings.catch_warnings():
    # Older paramiko names ciphers that newer cryptography deprecates; neither is used here.
    warnings.simplefilter("ignore")
    import paramiko

Transport = paramiko.Transport
Channel = paramiko.Channel

#: What paramiko raises when a connection is lost.
LOST = (EOFError, OSError, paramiko.SSHException, paramiko.SFTPError)

_log = logging.getLogger(__name__)
# paramiko logs a traceback for each attempt on a guest that still boots. Every one of them is either retried
# or raised, so this log is only for those who attach a handler to it and set its level.
_WIRE_LOG = "harness.wires.ssh.wire"
logging.getLogger(_WIRE_LOG).propagate = False
logging.getLogger(_WIRE_LOG).addHandler(logging.NullHandler())
# pytest hears it all the same, and would show all of it below a plan that did not pass.
logging.getLogger(_WIRE_LOG).setLevel(logging.CRITICAL + 1)

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


class _NotUpError(Exception):
    """The server does not answer yet; trying again may help."""


def log_in(
    host: str,
    port: int,
    *,
    user: str,
    key_file: Path,
    host_key: str,
    deadline: Deadline,
    check: Callable[[], None],
) -> Transport:
    """Return an authenticated connection; see :meth:`harness.wires.ssh.SshConnection.connect`."""
    address = f"{host}:{port}"
    try:
        pinned = HostKey.parse(host_key)
        key = paramiko.PKey.from_path(key_file)
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise GuestUnreachableError(f"cannot log in to {address}: {text_of(error)}") from error
    login = _Login(host, port, user, key, pinned)
    banner_wait_s = _FIRST_BANNER_WAIT_S
    while True:
        try:
            return login.attempt(banner_wait_s=banner_wait_s, deadline=deadline)
        except _NotUpError as error:
            if deadline.remaining_s() <= _RETRY_PAUSE_S:
                message = f"{address} did not answer over SSH in time: {error}"
                raise GuestUnreachableError(message) from error
            _log.debug("%s does not answer yet: %s", address, error)
        except LOST as error:
            message = f"cannot log in to {address} as {user}: {text_of(error)}"
            raise GuestUnreachableError(message) from error
        threading.Event().wait(_RETRY_PAUSE_S)
        check()
        banner_wait_s = min(2 * banner_wait_s, _LONGEST_BANNER_WAIT_S)


def open_sftp(transport: Transport, *, deadline: Deadline) -> paramiko.SFTPClient:
    """Return a new SFTP session over the connection.

    :raise EOFError, OSError, paramiko.SSHException: it does not come to that; see :data:`LOST`.
    """
    channel = transport.open_session(timeout=deadline.remaining_s())
    channel.settimeout(deadline.remaining_s())
    channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)


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
            raise _NotUpError(text_of(error)) from error
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
                raise _NotUpError(text_of(error)) from error
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
