# SPDX-License-Identifier: MIT
"""The caller's side of a cluster: plans go to a Dask scheduler as tasks, evidence comes back.

Which worker gets which plan, and what happens when one dies, is Dask's business: a plan asks for resources,
workers announce them (:mod:`harness.cluster.worker`), and a task whose worker is lost is run again elsewhere.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import distributed
from distributed import Client, KilledWorker, Security

from harness.cluster.options import ClusterOptions
from harness.cluster.resources import Resources, demanded, placed
from harness.cluster.worker import Assignment, Delivery, interrupt, run_assignment, topic, unpack
from harness.deadline import Deadline
from harness.errors import BenchError
from harness.evidence.verdict import Verdict
from harness.guest.driver_file import read_driver
from harness.guest.profile import SshProfile
from harness.plan.need import need_of
from harness.plan.plan import Plan
from harness.run.crew import as_interrupted
from harness.run.report import write_evidence
from harness.run.session import Session

logger = logging.getLogger(__name__)

CONNECT_WITHIN_S = 10.0
#: How long a plan may wait while no worker is there that could run it, before it is given up.
WORKER_WITHIN_S = 60.0
WATCH_EVERY_S = 2.0
CLOSE_WITHIN_S = 5.0


@dataclass(slots=True)
class _Sent:
    """A plan that was handed to the cluster."""

    plan: Plan
    folder: Path
    demand: Resources
    future: Future[Verdict]
    task: distributed.Future[Delivery] | None = None
    no_worker: Deadline | None = None  #: when to give up, set while nobody could run it


class ClusterCrew:
    """Run plans on the workers of a Dask cluster; see :class:`harness.run.crew.Crew`."""

    def __init__(self, options: ClusterOptions, session: Session) -> None:
        """Connect to the scheduler and wait for a first worker.

        :raise BenchError: neither is there in time.
        """
        self._session = session
        self._address = options.address
        self._run = uuid.uuid4().hex
        self._sent: list[_Sent] = []
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._client = _connect(options)
        threading.Thread(target=self._watch, name="harness-cluster", daemon=True).start()

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        """See :class:`harness.run.crew.Crew`."""
        future: Future[Verdict] = Future()
        try:
            assignment = self._assignment(plan)
            demand = demanded(
                need_of(plan),
                kvm=self._session.accelerator == "kvm",
                guest=assignment.profile_name,
            )
            demand = placed(demand, self._workers(), plan=plan.name)
        except BenchError as err:
            future.set_exception(err)
            return future
        sent = _Sent(plan, folder, demand, future)
        self._sent.append(sent)
        sent.task = self._client.submit(
            run_assignment,
            assignment,
            key=f"hil-{self._run}-{assignment.number}",
            resources=demand,
            pure=False,
        )
        sent.task.add_done_callback(lambda task: self._settle(sent, lambda: self._receive(sent, task)))
        return future

    def stop(self) -> None:
        """See :class:`harness.run.crew.Crew`."""
        self._stopped.set()
        begun = {number for number, _worker in self._begun()}
        for number, sent in enumerate(self._sent):
            if number not in begun and sent.task is not None and not sent.future.done():
                sent.task.cancel()
        self._client.run(interrupt, self._run, on_error="ignore")

    def close(self) -> None:
        """See :class:`harness.run.crew.Crew`."""
        self._closed.set()
        self._client.close(timeout=CLOSE_WITHIN_S)

    def _assignment(self, plan: Plan) -> Assignment:
        profile = self._session.profile(plan)
        driver = self._session.own_driver(profile)
        disk = profile.image.disk if isinstance(profile, SshProfile) else None
        if disk is not None and not Path(disk).expanduser().is_absolute():
            raise BenchError(
                f"the guest {profile.name} names its disk {disk}; for a cluster it must be an absolute path"
            )
        return Assignment(
            run=self._run,
            number=len(self._sent),
            plan_name=plan.name,
            plan_text=plan.text,
            profile_name=profile.name,
            profile_text=profile.source.read_text(),
            driver=None if driver is None else (driver.name, read_driver(driver)),
            accelerator=self._session.accelerator,
        )

    def _workers(self) -> dict[str, Resources]:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return dict(sorted((str(worker["name"]), worker["resources"]) for worker in workers.values()))

    def _begun(self) -> list[tuple[int, str]]:
        events = self._client.get_events(topic(self._run))
        return [(event["number"], event["name"]) for _at, event in events]

    def _receive(self, sent: _Sent, task: distributed.Future[Delivery]) -> Verdict:
        """Return the verdict of a finished task, its evidence in the caller's folder."""
        name = sent.plan.name
        try:
            delivery: Delivery = task.result()
        except KilledWorker as err:
            lost = ", ".join(self._begun_on(sent)) or str(err.last_worker)
            raise BenchError(f"every worker that was given {name} was lost: {lost}") from err
        except CancelledError as err:
            if self._stopped.is_set():
                raise
            raise BenchError(f"{name} was cancelled: the scheduler {self._address} was lost") from err
        unpack(delivery.evidence, sent.folder)
        begun_on = self._begun_on(sent)
        verdict = dataclasses.replace(
            delivery.verdict,
            evidence=sent.folder,
            worker=delivery.worker,
            lost_workers=tuple(begun_on[:-1] if begun_on[-1:] == [delivery.worker] else begun_on),
        )
        write_evidence(verdict, folder=sent.folder)
        return as_interrupted(verdict) if self._stopped.is_set() else verdict

    def _settle(self, sent: _Sent, receive: Callable[[], Verdict]) -> None:
        """Pass what became of a task on to whoever waits for the plan."""
        if sent.future.done():
            return
        try:
            sent.future.set_result(receive())
        except CancelledError:
            sent.future.cancel()
            sent.future.set_running_or_notify_cancel()
        except BenchError as err:
            sent.future.set_exception(err)
        except Exception as err:  # noqa: BLE001 - whatever Dask or the way back did, the plan has no verdict
            error = BenchError(f"{sent.plan.name} did not come back from the cluster: {err!r}")
            sent.future.set_exception(error)

    def _begun_on(self, sent: _Sent) -> list[str]:
        return [worker for number, worker in self._begun() if self._sent[number] is sent]

    def _watch(self) -> None:
        """Give up plans that nobody is there to run any more, once workers had time to come back."""
        while not self._closed.wait(WATCH_EVERY_S):
            waiting = [sent for sent in self._sent if not sent.future.done()]
            if not waiting:
                continue
            try:
                workers = self._workers()
            except Exception as err:  # noqa: BLE001 - Dask tells of a lost scheduler by cancelling the tasks
                logger.debug("the scheduler does not answer: %s", err)
                continue
            for sent in waiting:
                self._give_up_if_alone(sent, workers)

    def _give_up_if_alone(self, sent: _Sent, workers: dict[str, Resources]) -> None:
        try:
            placed(sent.demand, workers, plan=sent.plan.name)
        except BenchError as err:
            sent.no_worker = sent.no_worker or Deadline.after(WORKER_WITHIN_S)
            if sent.no_worker.expired() and sent.task is not None:
                with suppress(InvalidStateError):
                    sent.future.set_exception(err)
                sent.task.cancel()
        else:
            sent.no_worker = None


def _connect(options: ClusterOptions) -> Client:
    security = None
    if options.is_encrypted:
        files = {
            "tls_ca_file": options.tls_ca,
            "tls_client_cert": options.tls_cert,
            "tls_client_key": options.tls_key,
        }
        given = {name: os.fspath(file) for name, file in files.items() if file is not None}
        security = Security(require_encryption=True, **given)
    try:
        client = Client(options.address, security=security, timeout=CONNECT_WITHIN_S, set_as_default=False)
    except (OSError, TimeoutError, RuntimeError, ValueError) as err:
        raise BenchError(f"no scheduler answers at {options.address}: {err}") from err
    try:
        client.wait_for_workers(1, timeout=CONNECT_WITHIN_S)
    except TimeoutError as err:
        client.close(timeout=CLOSE_WITHIN_S)
        raise BenchError(
            f"{options.address} has no worker; start one with: hil worker {options.address}"
        ) from err
    return client
