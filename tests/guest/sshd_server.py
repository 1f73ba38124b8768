# SPDX-License-Identifier: MIT
"""A real sshd on a free loopback port, with its own host key, user key and configuration."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from harness.wires.ssh import SshConnection

_CONFIG = """\
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
PrintMotd no
{extra}
"""


@dataclass
class Sshd:
    """A running server and what a client must know of it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    user: str = field(default_factory=lambda: pwd.getpwuid(os.getuid()).pw_name)

    @property
    def key_file(self) -> Path:
        return self.folder / "user_key"

    @property
    def host_key(self) -> str:
        return (self.folder / "host_key.pub").read_text()

    def connect(self, *, port: int | None = None, within_s: float = 20.0) -> SshConnection:
        return SshConnection.connect(
            "127.0.0.1",
            port or self.port,
            user=self.user,
            key_file=self.key_file,
            host_key=self.host_key,
            deadline=Deadline.after(within_s),
        )

    def sessions(self) -> list[int]:
        """Return the ids of the processes that serve connections."""
        return _descendants(self.process.pid)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze every process that serves a connection."""
        pids: set[int] = set()
        # A process that is not stopped yet may still start another one, or end.
        while new := set(self.sessions()) - pids:
            pids |= new
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
        assert pids, "no connection to stop"
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill_sessions(self) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        self.process.terminate()
        self.kill_sessions()
        self.process.wait(10)


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in children for found in (int(child), *_descendants(int(child)))]


def make_keys(folder: Path, name: str, key_type: str = "ed25519") -> Path:
    """Generate a key pair ``name`` and ``name.pub``."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", key_type, "-N", "", "-C", "test", "-f", str(folder / name)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return folder / name


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def start_sshd(
    folder: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Sshd:
    """Start a server with keys of its own, or again with those it left in the folder."""
    binary = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert binary is not None, "sshd is missing: install the Debian package openssh-server"
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd refuses to start as root without it
    if not (folder / "host_key").exists():
        make_keys(folder, "host_key")
        shutil.copy(make_keys(folder, "user_key").with_suffix(".pub"), folder / "authorized_keys")
    # A home without anything in it: the login shell must not run what the user has there.
    variables = {"HOME": str(folder), **(environment or {})}
    words = " ".join(f'"{name}={value}"' for name, value in variables.items())
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(folder=folder, extra=f"SetEnv {words}"))
    for _ in range(5):  # another process may take the free port first
        chosen = port or free_port()
        with (folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(
                [binary, "-D", "-e", "-f", str(config), "-p", str(chosen)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        if _listens(process, folder / "sshd.log"):
            return Sshd(folder, chosen, process)
    raise AssertionError((folder / "sshd.log").read_text())


def _listens(process: subprocess.Popen[bytes], log: Path) -> bool:
    deadline = Deadline.after(10)
    ended = os.pidfd_open(process.pid)
    try:
        while not deadline.expired():
            if b"Server listening" in log.read_bytes():
                return True
            if select.select([ended], [], [], 0.02)[0]:
                process.wait()
                return False
    finally:
        os.close(ended)
    process.kill()
    process.wait()
    return False


class Proxy:
    """Forwards TCP connections to a port until told otherwise; accepts and leaves alone the first few."""

    def __init__(self, port: int, *, mute: int = 0) -> None:
        self._target = port
        self._mute = mute
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Close every connection both ways."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._mute:
                self._mute -= 1
                self._sockets.append(near)
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pump, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
