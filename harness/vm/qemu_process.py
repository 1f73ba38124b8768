# SPDX-License-Identifier: MIT
"""Own one QEMU process: it dies with the harness, and its end is told by signal name and last words."""

from __future__ import annotations

import logging
import os
import re
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.deadline import Deadline
from harness.document.units import format_duration
from harness.errors import VmError, VmStalledError
from harness.host.tools import find_tool
from harness.vm.heartbeat import Heartbeat, total_s

logger = logging.getLogger(__name__)

COMMAND_FILE = "qemu-command.txt"
STDERR_FILE = "qemu-stderr.log"

#: How long QEMU may take to end after SIGTERM before it is killed, and to vanish after SIGKILL.
TERMINATE_WITHIN_S = 2.0
KILL_WITHIN_S = 10.0

#: How much of QEMU's standard error is quoted in an error.
STDERR_TAIL_LINES = 8

#: What QEMU writes before a message of its own when it is to say the time.
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")

# Run after the signal at the parent's death is armed. A parent that died before that is caught by asking
# for the parent once more; $1 is the harness. A core dump would hold the guest's whole memory.
_GUARD = '[ "$PPID" = "$1" ] || exit 1; shift; ulimit -c 0; exec "$@"'

# The signal at the parent's death is tied to the thread that forked, not to the process (prctl(2),
# PR_SET_PDEATHSIG), so every QEMU is forked by one thread that lives as long as the harness.
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-fork")

# All that end_all_under() must know; a QEMU is in the set before anybody can wait for it.
_registry = threading.Lock()
_running: set[QemuProcess] = set()
_ended_folders: set[Path] = set()


def end_all_under(folder: Path) -> None:
    """Kill every QEMU that logs to the folder or below it, and let none start there from now on.

    For another thread than those that use them: whoever does finds its QEMU killed and cleans up as ever.
    """
    folder = folder.absolute()
    with _registry:
        _ended_folders.add(folder)
        for process in _running:
            if process._is_under(folder):
                process._process.kill()


class QemuProcess:
    """A running QEMU. Made by :meth:`start` only.

    :ivar heartbeat: when it did not run.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self.heartbeat = Heartbeat(process.pid)
        self._folder = folder.absolute()
        self._stderr = folder / STDERR_FILE

    @classmethod
    @contextmanager
    def start(
        cls, argv: Sequence[str], *, folder: Path, pass_fds: Sequence[int] = ()
    ) -> Iterator[QemuProcess]:
        """Start QEMU with the folder for its logs and temporary files; end it at the end, however that comes.

        :raise HostError: if QEMU or setpriv is not installed.
        :raise VmError: after :func:`end_all_under` for this folder or one above it.
        """
        command = [find_tool(argv[0]), *argv[1:]]
        setpriv = find_tool("setpriv")
        guarded = [setpriv, "--pdeathsig", "KILL", "sh", "-c", _GUARD, "sh", str(os.getpid()), *command]
        (folder / COMMAND_FILE).write_text(shlex.join(command) + "\n")

        def fork() -> subprocess.Popen[bytes]:
            with (folder / STDERR_FILE).open("wb") as output:
                return subprocess.Popen(
                    guarded,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=pass_fds,
                    # Should QEMU need a temporary file, it belongs to the run.
                    env={**os.environ, "TMPDIR": os.fspath(folder.absolute())},
                    # Ctrl-C is for the harness, which then ends QEMU in order.
                    start_new_session=True,
                )

        started = _forker.submit(fork)
        try:
            process = cls(started.result(), folder)
        except BaseException:
            # Ctrl-C while the other thread forks: what it started must still end.
            with suppress(OSError):
                started.result().kill()
                started.result().wait()
            raise
        try:
            process._register()
            with process.heartbeat.beating():
                yield process
        finally:
            with _registry:
                _running.discard(process)
            process._stop()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def wait(self, deadline: Deadline) -> bool:
        """Wait for QEMU to end by itself and return whether it did in time."""
        if self._process.poll() is None:
            select.select([self._pidfd], [], [], deadline.remaining_s())
        return self._process.poll() is not None

    def exit_status(self) -> int | None:
        """Return the exit status, or minus the signal that killed QEMU, or None while it runs."""
        return self._process.poll()

    def describe_end(self) -> str:
        """Return how QEMU ended and its last words, in one line."""
        status = self._process.poll()
        if status is None:
            how = "QEMU still runs"
        elif status < 0:
            how = f"QEMU was killed by {_signal_name(-status)}"
        else:
            how = f"QEMU ended with exit status {status}"
        words = self.last_words()
        return f"{how}: {words}" if words else f"{how}, without a word on its standard error"

    def silent(self, *, since_s: float) -> VmError:
        """Return the error of a QEMU that runs and has not said a word over QMP since it was started."""
        silent_s = time.monotonic() - since_s
        stalls = self.heartbeat.stalls(since_s=since_s)
        if total_s(stalls) > silent_s / 2:
            return VmStalledError(f"{stalls[-1]} while it was started; run again")
        program = (self._folder / COMMAND_FILE).read_text().split(maxsplit=1)[0]
        words = self.last_words()
        return VmError(
            f"QEMU did not start: {program} runs and has said nothing over QMP for"
            f" {format_duration(round(silent_s, 1))}; try it by hand, the command line is in {COMMAND_FILE}"
            + (f"; it printed: {words}" if words else "")
        )

    def last_words(self) -> str:
        """Return the end of QEMU's standard error in one line."""
        with suppress(OSError):
            text = self._stderr.read_bytes().decode(errors="replace")
            lines = [_TIME.sub("", line).strip() for line in text.splitlines() if line.strip()]
            return " | ".join(lines[-STDERR_TAIL_LINES:])
        return ""

    def _register(self) -> None:
        with _registry:
            if any(self._is_under(folder) for folder in _ended_folders):
                raise VmError("QEMU may not start any more: the run was interrupted")
            _running.add(self)

    def _is_under(self, folder: Path) -> bool:
        return self._folder.is_relative_to(folder)

    def _stop(self) -> None:
        try:
            if self._process.poll() is None:
                logger.info("terminating QEMU %s", self.pid)
                self._process.terminate()
                if not self.wait(Deadline.after(TERMINATE_WITHIN_S)):
                    logger.warning("QEMU %s does not end on SIGTERM; killing it", self.pid)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                if not self.wait(Deadline.after(KILL_WITHIN_S)):
                    logger.error("QEMU %s does not end on SIGKILL", self.pid)
            os.close(self._pidfd)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
