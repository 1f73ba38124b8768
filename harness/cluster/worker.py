# SPDX-License-Identifier: MIT
"""The worker's side of a cluster: announce what this host has, and run one plan that comes as text.

Image, template, driver and probe are built here and kept in this host's cache; evidence goes back as bytes.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from distributed import Status, Worker, get_worker

from harness.cluster.options import ClusterOptions
from harness.cluster.resources import offered
from harness.document.files import yaml_files
from harness.errors import BenchError, HilError
from harness.evidence.verdict import Verdict
from harness.guest.images import why_not_available
from harness.guest.profile import SshProfile, load_profile
from harness.host.budget import host_amounts
from harness.host.cache import content_key
from harness.run.run import run_plan
from harness.run.session import Session
from harness.vm.accelerator import choose_accelerator
from harness.vm.argv import AcceleratorChoice
from harness.vm.qemu_choice import chosen_qemu
from harness.vm.qemu_process import end_all_under

logger = logging.getLogger(__name__)

#: How long a worker may take to end once it has begun to.
END_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.5

_WORK = "hil"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A plan on its way to a worker.

    :ivar run: the run it belongs to, for :func:`interrupt` and :func:`topic`.
    :ivar number: which of the run's plans it is.
    """

    run: str
    number: int
    plan_name: str
    plan_text: str
    profile_name: str
    profile_text: str
    driver: tuple[str, bytes] | None  #: name and content of the user's own
    accelerator: AcceleratorChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What comes back; ``evidence`` is the evidence folder, packed."""

    verdict: Verdict
    evidence: bytes
    worker: str


def topic(run: str) -> str:
    """Return the name of the events that tell where each plan of a run was begun."""
    return f"hil-{run}"


def run_assignment(assignment: Assignment) -> Delivery:
    """Run a plan on this worker; a task of Dask.

    :raise BenchError: there is no verdict, not even that the bench broke under the plan.
    """
    worker = get_worker()
    name = str(worker.name)
    worker.log_event(topic(assignment.run), {"number": assignment.number, "name": name})
    parent = _run_folder(worker, assignment.run)
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{assignment.number}-", dir=parent))
    try:
        source = folder / f"{assignment.plan_name}.yaml"
        source.write_text(assignment.plan_text)
        session = _sessions.get(worker, assignment)
        plan = session.load(source)
        evidence = folder / "evidence"
        verdict = run_plan(plan, bench=session.bench(plan), folder=evidence)
        return Delivery(verdict=verdict, evidence=pack(evidence), worker=name)
    except HilError as err:
        # Of the harness's errors not all survive the way to the caller, but their text says it all.
        raise BenchError(f"worker {name}: {err}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def interrupt(run: str, number: int | None, dask_worker: Worker) -> None:
    """End the VMs of a run on this worker and let none start there; for ``Client.run``.

    :param number: of which of its plans; of all of them if None.
    """
    folder = _run_folder(dask_worker, run)
    for each in [folder] if number is None else folder.glob(f"{number}-*"):
        end_all_under(each)


def dask_setup(worker: Worker) -> None:
    """See to it that a worker which begins to end does end; Dask calls this when it preloads the module.

    A signal that arrives while it ends because its scheduler did (seen with distributed 2026.8) leaves it
    waiting for ever, and for a plan that still runs it would wait for half a minute. QEMU ends with it.
    """

    def watch() -> None:
        never = threading.Event()
        while worker.status not in (Status.closing, Status.closed, Status.failed):
            never.wait(_LOOK_EVERY_S)
        never.wait(END_WITHIN_S)
        logger.error("the worker did not end within %g s; ending it and its VMs", END_WITHIN_S)
        os._exit(1)

    threading.Thread(target=watch, name="harness-worker-end", daemon=True).start()


def worker_command(
    options: ClusterOptions, *, guests: Path, folder: Path | None = None, name: str | None = None
) -> list[str]:
    """Return the command that runs a Dask worker which announces what this host has.

    :param guests: guest profiles; those whose image is here, or can be built here, are announced.
    :param folder: where VMs write while they run; by default Dask's own in the system's temporary folder.
    """
    host = host_amounts(folder or Path(tempfile.gettempdir()))
    kvm = choose_accelerator("auto", qemu=chosen_qemu()).name == "kvm"
    resources = offered(host, kvm=kvm, guests=available_guests(guests))
    command = [
        *(sys.executable, "-P", "-m", "distributed.cli.dask_worker", options.address),
        *("--name", name or f"{socket.gethostname()}-{os.getpid()}"),
        *("--nworkers", "1", "--nthreads", str(max(1, host.vcpus))),
        *("--resources", " ".join(f"{what}={amount:.0f}" for what, amount in resources.items())),
        # QEMU dies with the process that started it, so that must be the one that others watch. Memory is
        # what guests use, and none of it is in this process.
        *("--no-nanny", "--memory-limit", "0"),
        # Dask serves HTTP without a dashboard too, in clear text to whoever asks.
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        *("--preload", __name__),
    ]
    if folder is not None:
        command += ["--local-directory", os.fspath(folder)]
    if not options.is_encrypted:
        command += ["--host", "127.0.0.1"]
    for option, file in (
        ("--tls-ca-file", options.tls_ca),
        ("--tls-cert", options.tls_cert),
        ("--tls-key", options.tls_key),
    ):
        if file is not None:
            command += [option, os.fspath(file)]
    return command


def available_guests(folder: Path) -> Iterator[str]:
    """Yield the names of the profiles in the folder whose image is on this host or can be built on it."""
    for path in yaml_files(folder):
        profile = load_profile(path)
        lacks = why_not_available(profile) if isinstance(profile, SshProfile) else None
        if lacks is None:
            yield profile.name
        else:
            logger.warning("the guest %s is not announced: %s", profile.name, lacks)


def pack(folder: Path) -> bytes:
    """Return the files of a folder as a compressed tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.add(path, arcname=path.relative_to(folder).as_posix())
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Write the files of an archive below the folder, and nothing anywhere else.

    :raise BenchError: it holds something that is no plain file inside it, or is damaged.
    """
    try:
        # All at once, for its checksum comes last and tarfile would not read that far.
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed)), mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or path.is_absolute() or not path.parts or ".." in path.parts:
                    raise BenchError(f"the evidence holds {member.name!r}, which is no file inside it")
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as err:
        raise BenchError(f"the evidence cannot be unpacked: {err}") from err


class _Sessions:
    """The benches of this worker: one session per guest profile and accelerator, for all runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, Session] = {}

    def get(self, worker: Worker, assignment: Assignment) -> Session:
        name, data = assignment.driver or ("", b"")
        key = content_key(
            [assignment.profile_name, assignment.profile_text, assignment.accelerator, name, data]
        )
        with self._lock:
            session = self._of.get(key)
            if session is None:
                profiles = _work_folder(worker) / "guests" / key
                profiles.mkdir(parents=True, exist_ok=True)
                (profiles / f"{assignment.profile_name}.yaml").write_text(assignment.profile_text)
                driver = None
                if name:
                    driver = _work_folder(worker) / "drivers" / key / name
                    driver.parent.mkdir(parents=True, exist_ok=True)
                    driver.write_bytes(data)
                session = Session(
                    results=_work_folder(worker),
                    accelerator=assignment.accelerator,
                    profiles=profiles,
                    driver=driver,
                )
                self._of[key] = session
            return session


_sessions = _Sessions()


def _work_folder(worker: Worker) -> Path:
    return Path(worker.local_directory) / _WORK


def _run_folder(worker: Worker, run: str) -> Path:
    return _work_folder(worker) / "runs" / run
