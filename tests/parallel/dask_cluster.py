# SPDX-License-Identifier: MIT
"""A real Dask scheduler and real workers on loopback, started with the very commands of docs/cluster.md."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from tests.e2e.test_command_line import HIL

PAGE = Path(__file__).resolve().parents[2] / "docs/cluster.md"
START_WITHIN_S = 60
ADDRESS = "tls://head:8786"  #: on the page

_DASK = [sys.executable, "-m", "distributed.cli.dask_scheduler"]


def block_of(beginning: str) -> str:
    """Return the one shell block of the page that begins so."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if block.startswith(beginning)]
    return str(block)


def command_of(beginning: str, changes: Mapping[str, str]) -> list[str]:
    """Return the one command of the page that begins so, word by word, with what is another here changed."""
    text = block_of(beginning).replace("\\\n", " ")
    for there, here in changes.items():
        assert there in text, f"{there!r} is not on the page any more"
        text = text.replace(there, here)
    return shlex.split(text)


def make_certificates(home: Path) -> Path:
    """Make the certificates of the three hosts of the page, and return their folder in that home."""
    home.mkdir()
    script = block_of("umask 077").replace("~", str(home))
    subprocess.run(["sh", "-eu", "-c", script], check=True, capture_output=True)
    return home / "hil-tls"


@dataclass(slots=True)
class Cluster:
    """A scheduler, and workers by name.

    :ivar tls: the folder of the certificates; None for plain TCP.
    """

    address: str
    folder: Path
    tls: Path | None
    scheduler: subprocess.Popen[bytes]
    stack: ExitStack
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Return the options of ``hil run`` that lead here."""
        if self.tls is None:
            return ["--cluster", self.address]
        there = {ADDRESS: self.address, "~/hil-tls": str(self.tls)}
        return command_of("./hil run", there)[2:]

    def start_worker(self, name: str) -> None:
        """Start ``hil worker`` and wait until the scheduler has it; with TLS, on a host of that name."""
        scratch = self.folder / name
        scratch.mkdir()
        there = {ADDRESS: self.address, "$(hostname)": name, "~/hil-tls": str(self.tls)}
        command = (
            command_of("./hil worker", there)[1:] if self.tls else ["worker", self.address, "--name", name]
        )
        log = self.folder / f"{name}.log"
        argv = [*HIL, *command, "--folder", str(scratch)]
        self.workers[name] = self.stack.enter_context(_process(argv, log=log))
        await_text(log, r"Registered to:")


@contextmanager
def start_cluster(folder: Path, *workers: str, tls: Path | None = None) -> Iterator[Cluster]:
    """Run a scheduler and workers of these names until the end of the block."""
    folder.mkdir()
    log = folder / "scheduler.log"
    here = "--host 127.0.0.1 --port 0"
    if tls is None:
        options = [*here.split(), "--no-dashboard"]
    else:
        there = {"--port 8786": here, "~/hil-tls": str(tls)}
        options = command_of(".venv/bin/dask scheduler", there)[2:]
    with ExitStack() as stack:
        scheduler = stack.enter_context(_process([*_DASK, *options], log=log))
        address = await_text(log, r"Scheduler at: +(t\w+://127\.0\.0\.1:\d+)")
        cluster = Cluster(address, folder, tls, scheduler, stack)
        for name in workers:
            cluster.start_worker(name)
        yield cluster


def await_text(file: Path, pattern: str, *, within_s: float = START_WITHIN_S) -> str:
    """Wait until the file has what the pattern looks for, and return its last group."""
    deadline = Deadline.after(within_s)
    while True:
        text = file.read_text() if file.exists() else ""
        found = re.search(pattern, text)
        if found:
            return found[found.re.groups]
        deadline.check(f"{pattern!r} in {file}: {text[-500:]}")
        select.select([], [], [], 0.05)


@contextmanager
def _process(argv: Sequence[str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(argv, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
