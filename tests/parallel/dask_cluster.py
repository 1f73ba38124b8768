# SPDX-License-Identifier: MIT
"""A real Dask scheduler and real workers on loopback, and certificates for them."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from tests.e2e.test_command_line import HIL

START_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate authority's files."""

    ca: Path
    cert: Path
    key: Path

    def options(self, *, ca_option: str = "--tls-ca") -> list[str]:
        """Return them as options of ``hil``, or of Dask."""
        return [ca_option, str(self.ca), "--tls-cert", str(self.cert), "--tls-key", str(self.key)]


def make_certificates(folder: Path) -> Certificates:
    """Make a certificate authority and one certificate of it, as docs/cluster.md does."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *new_key, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca.pem"
    )
    openssl("req", *new_key, "-subj", "/CN=host", "-keyout", "key.pem", "-out", "host.csr")
    signing = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", "host.csr", *signing, "-out", "cert.pem")
    return Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


@dataclass(slots=True)
class Cluster:
    """A scheduler, and workers by name."""

    address: str
    folder: Path
    tls: Certificates | None
    stack: ExitStack
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Return the options of ``hil run`` that lead here."""
        return ["--cluster", self.address, *(self.tls.options() if self.tls else [])]

    def start_worker(self, name: str) -> None:
        """Start ``hil worker`` and wait until the scheduler has it."""
        scratch = self.folder / name
        scratch.mkdir()
        argv = [*HIL, "worker", self.address, "--name", name, "--folder", str(scratch)]
        argv += self.tls.options() if self.tls else []
        log = self.folder / f"{name}.log"
        self.workers[name] = self.stack.enter_context(_process(argv, log=log))
        await_text(log, r"Registered to:")


@contextmanager
def start_cluster(folder: Path, *workers: str, tls: Certificates | None = None) -> Iterator[Cluster]:
    """Run a scheduler and workers of these names until the end of the block."""
    folder.mkdir()
    log = folder / "scheduler.log"
    argv = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    if tls:
        argv += ["--protocol", "tls", *tls.options(ca_option="--tls-ca-file")]
    argv += ["--host", "127.0.0.1", "--port", "0"]
    with ExitStack() as stack:
        stack.enter_context(_process(argv, log=log))
        address = await_text(log, r"Scheduler at: +(t\w+://127\.0\.0\.1:\d+)")
        cluster = Cluster(address, folder, tls, stack)
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
            # A Dask worker whose scheduler ends at the same time may never end by itself.
            process.kill()
