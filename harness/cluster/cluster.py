# SPDX-License-Identifier: MIT
"""The caller's side of a cluster: plans go to a Dask scheduler as tasks, evidence comes back.

Which worker gets which plan, and what happens when one dies, is Dask's business: a plan asks for resources,
workers announce them (:mod:`harness.cluster.worker`), and a task whose worker is lost is run again elsewhere.
That a worker was frozen, its connections open, or the scheduler was, or that a plan hangs on a worker that
lives, is noticed here.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import distributed
from distributed import KilledWorker

from harness.cluster.options import ClusterOptions
from harness.cluster.overdue import Overdue, longest_s
from harness.cluster.resources import Resources, demanded, placed
from harness.cluster.scheduler import Scheduler, resources_of
from harness.cluster.silence import SILENT_WITHIN_S, Silence
from harness.cluster.worker import Assignment, Delivery, run_assignment, unpack
from harness.deadline import Deadline
from harness.document.units import format_duration
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

#: How long a plan may wait while no worker is there that could run it, before it is given up.
WORKER_WITHIN_S = 60.0
WATCH_EVERY_S = 2.0
#: How long the scheduler may leave every question unanswered.
SCHEDULER_WITHIN_S = 60.0


@dataclass(slots=True)
class _Sent:
    """A plan that was handed to the cluster."""

    plan: Plan
    folder: Path
    demand: Resources
    future: Future[Verdict]
    overdue: Overdue
    task: distributed.Future[Delivery] | None = None
    no_worker: Deadline | None = None  #: when to give up, set while nobody could run it
    is_ended: bool = False  #: nobody waits for it any more
    given_up: list[str] = field(default_factory=list)  #: which workers were given up under it, and why


class ClusterCrew:
    """Run plans on the workers of a Dask cluster; see :class:`harness.run.crew.Crew`."""

    def __init__(self, options: ClusterOptions, session: Session) -> None:
        """Connect to the scheduler and wait for a first worker.

        :raise BenchError: neither is there in time.
        """
        self._session = session
        self._run = uuid.uuid4().hex
        self._sent: list[_Sent] = []
        self._begun: list[tuple[int, str]] = []
        self._lost: BenchError | None = None  #: said of all plans once the scheduler has fallen silent
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._scheduler = Scheduler(options, run=self._run)
        threading.Thread(target=self._watch, name="harness-cluster", daemon=True).start()

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        """See :class:`harness.run.crew.Crew`."""
        future: Future[Verdict] = Future()
        try:
            if self._lost is not None:
                raise BenchError(str(self._lost))
            assignment = self._assignment(plan)
            demand = demanded(
                need_of(plan),
                kvm=self._session.accelerator == "kvm",
                guest=assignment.profile_name,
            )
            demand = placed(demand, resources_of(self._scheduler.workers()), plan=plan.name)
        except BenchError as err:
            future.set_exception(err)
            return future
        overdue = Overdue(longest_s(plan, self._session.profile(plan).deadlines))
        sent = _Sent(plan, folder, demand, future, overdue)
        self._sent.append(sent)
        sent.task = self._scheduler.client.submit(
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
        self._look_what_begun()
        begun = {number for number, _worker in self._begun}
        for number, sent in enumerate(self._sent):
            if number not in begun and sent.task is not None and not sent.future.done():
                sent.task.cancel()
        self._scheduler.interrupt()

    def end(self, folder: Path) -> None:
        """See :class:`harness.run.crew.Crew`."""
        number, sent = next((number, one) for number, one in enumerate(self._sent) if one.folder == folder)
        sent.is_ended = True
        if self._begun_on(sent):
            self._scheduler.interrupt(number)
        elif sent.task is not None:
            sent.task.cancel()

    def close(self) -> None:
        """See :class:`harness.run.crew.Crew`."""
        self._closed.set()
        self._scheduler.close()

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

    def _receive(self, sent: _Sent, task: distributed.Future[Delivery]) -> Verdict:
        """Return the verdict of a finished task, its evidence in the caller's folder."""
        name = sent.plan.name
        try:
            delivery: Delivery = task.result()
        except KilledWorker as err:
            lost = ", ".join(self._begun_on(sent)) or str(err.last_worker)
            raise BenchError(f"every worker that was given {name} was lost: {lost}") from err
        except CancelledError as err:
            if self._stopped.is_set() or sent.is_ended:
                raise
            raise BenchError(
                f"{name} was cancelled: the scheduler {self._scheduler.address} was lost"
            ) from err
        unpack(delivery.evidence, sent.folder)
        begun_on = self._begun_on(sent)
        verdict = dataclasses.replace(
            delivery.verdict,
            evidence=sent.folder,
            worker=delivery.worker,
            lost_workers=tuple(begun_on[:-1] if begun_on[-1:] == [delivery.worker] else begun_on),
        )
        write_evidence(verdict, folder=sent.folder)
        return as_interrupted(verdict) if self._stopped.is_set() or sent.is_ended else verdict

    def _settle(self, sent: _Sent, receive: Callable[[], Verdict]) -> None:
        """Pass what became of a task on to whoever waits for the plan."""
        if sent.future.done():
            return
        try:
            sent.future.set_result(receive())
        except CancelledError:
            sent.future.cancel()
            sent.future.set_running_or_notify_cancel()
        except InvalidStateError:
            logger.debug("%s was given up before it came back", sent.plan.name)
        except BenchError as err:
            sent.future.set_exception(err)
        except Exception as err:  # noqa: BLE001 - whatever Dask or the way back did, the plan has no verdict
            error = BenchError(f"{sent.plan.name} did not come back from the cluster: {err!r}")
            sent.future.set_exception(error)

    def _look_what_begun(self) -> None:
        with suppress(BenchError):
            self._begun = self._scheduler.begun()

    def _begun_on(self, sent: _Sent) -> list[str]:
        self._look_what_begun()
        return self._known_to_have_begun(sent)

    def _known_to_have_begun(self, sent: _Sent) -> list[str]:
        return [worker for number, worker in self._begun if self._sent[number] is sent]

    def _watch(self) -> None:
        """Give up plans that nobody is there to run any more, once workers had time to come back."""
        silence = Silence()
        answers_until: Deadline | None = None
        while not self._closed.wait(WATCH_EVERY_S):
            waiting = [sent for sent in self._sent if not sent.future.done()]
            if not waiting:
                answers_until = None
                continue
            try:
                known = self._scheduler.workers()
                names = {address: str(worker["name"]) for address, worker in known.items()}
                seen = {address: worker["last_seen"] for address, worker in known.items()}
                for address in silence.look(seen, at_s=time.monotonic()):
                    self._give_up_silent(address, names.pop(address), waiting)
                    del known[address]
                self._give_up_overdue(waiting, names)
            except BenchError:
                answers_until = answers_until or Deadline.after(SCHEDULER_WITHIN_S)
                if answers_until.expired():
                    lost = f"{self._scheduler.address} has not answered for {SCHEDULER_WITHIN_S:g} s"
                    self._lost = BenchError(f"the scheduler {lost}")
                    for sent in waiting:
                        self._give_up(sent, self._lost)
                continue
            except Exception as err:  # noqa: BLE001 - Dask tells of a lost scheduler by cancelling the tasks
                logger.debug("the scheduler does not answer: %s", err)
                continue
            answers_until = None
            for sent in waiting:
                self._give_up_if_alone(sent, resources_of(known))

    def _give_up_silent(self, address: str, name: str, waiting: list[_Sent]) -> None:
        """Let what a frozen worker was to do be done by others."""
        logger.warning("worker %s has not been heard of for %g s; it is given up", name, SILENT_WITHIN_S)
        for sent in waiting:
            if self._begun_on(sent)[-1:] == [name]:
                self._blame(sent, f"{name} fell silent")
        self._scheduler.remove(address)

    def _give_up_overdue(self, waiting: list[_Sent], names: dict[str, str]) -> None:
        """Let plans that hang be run by other workers; what else theirs were to do goes along."""
        self._look_what_begun()
        addresses = {name: address for address, name in names.items()}
        for sent in waiting:
            begun_on = self._known_to_have_begun(sent)
            if sent.overdue.look(len(begun_on)) and begun_on[-1] in addresses:
                longest = format_duration(round(sent.overdue.longest_s))
                why = f"{begun_on[-1]} did not end it in {longest}, longer than its deadlines allow"
                logger.warning("%s: %s; the worker is given up", sent.plan.name, why)
                self._blame(sent, why)
                self._scheduler.remove(addresses.pop(begun_on[-1]))

    def _blame(self, sent: _Sent, why: str) -> None:
        """Remember why a worker was given up under a plan; at the second time the plan is."""
        sent.given_up.append(why)
        if len(sent.given_up) > 1:
            self._give_up(sent, BenchError(f"{sent.plan.name} was given up: {', '.join(sent.given_up)}"))

    def _give_up(self, sent: _Sent, error: BenchError) -> None:
        with suppress(InvalidStateError):
            sent.future.set_exception(error)
        if sent.task is not None:
            sent.task.cancel()

    def _give_up_if_alone(self, sent: _Sent, workers: dict[str, Resources]) -> None:
        try:
            placed(sent.demand, workers, plan=sent.plan.name)
        except BenchError as err:
            sent.no_worker = sent.no_worker or Deadline.after(WORKER_WITHIN_S)
            if sent.no_worker.expired():
                self._give_up(sent, BenchError("; ".join([str(err), *sent.given_up])))
        else:
            sent.no_worker = None
