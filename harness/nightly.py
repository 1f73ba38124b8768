# SPDX-License-Identifier: MIT
"""Run many plans at once; their verdicts come in the order of the plans, whichever ends first.

:class:`Nightly` gives plans to a crew and gets a :class:`concurrent.futures.Future` for each:
:class:`LocalCrew` runs them on this host, :class:`harness.cluster.ClusterCrew` on many.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.budget import Amounts, Ledger, host_amounts, need_of, plans_at_once, within
from harness.errors import BenchError, UsageError
from harness.plan import Plan
from harness.qemu_process import end_all_under
from harness.report import write_evidence
from harness.run import run_plan
from harness.session import Session
from harness.verdict import Verdict

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted"
#: How long plans that were interrupted may take to write down what they had seen.
STOP_WITHIN_S = 20.0
# The kernel may give Ctrl-C to any thread, and Python raises it in the main thread when that next wakes.
_WAKE_S = 0.2

Workers = int | Literal["auto"]


class Crew(Protocol):
    """Whoever runs plans."""

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        """Run the plan when there is room for it; the folder gets the evidence.

        The future raises :class:`BenchError` when there is no verdict at all.
        """

    def stop(self) -> None:
        """Cancel the plans that have not begun, and end the VMs of those that run, without waiting."""

    def close(self) -> None:
        """Let go of everything; nothing runs any more."""


class NoCrew:
    """Stands in for a crew that could not be had: every plan gets the same error."""

    def __init__(self, error: BenchError) -> None:
        self._error = error

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        """See :class:`Crew`."""
        future: Future[Verdict] = Future()
        future.set_exception(self._error)
        return future

    def stop(self) -> None:
        """See :class:`Crew`."""

    def close(self) -> None:
        """See :class:`Crew`."""


class Nightly:
    """The plans of one run, in order."""

    def __init__(self, crew: Crew, session: Session) -> None:
        self._crew = crew
        self._session = session
        self._futures: list[Future[Verdict]] = []

    def add(self, plan: Plan) -> Future[Verdict]:
        """Have the plan run as soon as there is room; all its evidence folders are named in this order."""
        future = self._crew.submit(plan, folder=self._session.evidence_folder(plan))
        self._futures.append(future)
        return future

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts reached so far, in the order of the plans."""
        ended = (future for future in self._futures if future.done() and not future.cancelled())
        return [future.result() for future in ended if future.exception() is None]

    def not_run(self) -> int:
        """Return how many plans have not been begun, and now will not be."""
        return sum(future.cancelled() for future in self._futures)

    def finish(self) -> None:
        """Interrupt what is still under way, wait until that is written down, and let go of the crew."""
        if not all(future.done() for future in self._futures):
            self._crew.stop()
            _, late = wait(self._futures, timeout=STOP_WITHIN_S)
            if late:
                logger.error("%d plans did not end within %g s", len(late), STOP_WITHIN_S)
        self._crew.close()


@dataclass(eq=False, frozen=True, slots=True)
class _Job:
    run: Callable[[], Verdict]
    future: Future[Verdict]


class LocalCrew:
    """Run plans on this host, each in a thread and a VM of its own, as many at once as the host has room for.

    :param workers: the most at once, if vCPUs, memory, disk and open files last; ``auto`` for two per core.
    """

    def __init__(self, session: Session, *, workers: Workers, host: Amounts | None = None) -> None:
        self._session = session
        self._host = host or host_amounts(session.results)
        at_once = plans_at_once() if workers == "auto" else workers
        self._ledger: Ledger[_Job] = Ledger(self._host, at_once=at_once)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        """See :class:`Crew`. What the plan's bench needs is built first, in the calling thread."""
        future: Future[Verdict] = Future()
        try:
            need = within(need_of(plan), self._host, plan=plan.name)
            bench = self._session.bench(plan)
        except BenchError as err:
            future.set_exception(err)
            return future
        job = _Job(lambda: run_plan(plan, bench=bench, folder=folder), future)
        with self._lock:
            self._ledger.ask(job, need)
        self._admit()
        return future

    def stop(self) -> None:
        """See :class:`Crew`."""
        self._stopped.set()
        with self._lock:
            dismissed = self._ledger.dismiss()
        for job in dismissed:
            job.future.cancel()
            job.future.set_running_or_notify_cancel()
        end_all_under(self._session.results)

    def close(self) -> None:
        """See :class:`Crew`."""

    def _admit(self) -> None:
        with self._lock:
            admitted = self._ledger.admit()
        for job, need in admitted:
            # A plan that hangs must not keep the harness from ending; QEMU dies with it.
            threading.Thread(target=self._run, args=(job, need), name="harness-plan", daemon=True).start()

    def _run(self, job: _Job, need: Amounts) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            verdict = job.run()
            if self._stopped.is_set():
                verdict = as_interrupted(verdict)
        except BaseException as err:  # noqa: BLE001 - whoever waits for the plan is to see it
            result: BaseException | Verdict = err
        else:
            result = verdict
        with self._lock:
            self._ledger.give_back(need)
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
        self._admit()


def as_interrupted(verdict: Verdict) -> Verdict:
    """Return the verdict of a plan whose VM was taken away, and write it down; others stay as they are."""
    if verdict.outcome != "error":
        return verdict
    verdict = dataclasses.replace(verdict, error=INTERRUPTED)
    write_evidence(verdict, folder=verdict.evidence)
    return verdict


def verdict_of(future: Future[Verdict]) -> Verdict:
    """Wait for the plan's end and return its verdict.

    :raise BenchError: there is none.
    :raise KeyboardInterrupt: in the main thread, soon after Ctrl-C.
    """
    while not future.done():
        wait([future], timeout=_WAKE_S)
    try:
        return future.result()
    except CancelledError as err:
        raise BenchError(INTERRUPTED) from err


def parse_workers(text: str) -> Workers:
    """Return the number of plans at once, or ``auto``.

    :raise UsageError: it is neither.
    """
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(
        f"{text!r} is no number of plans at once; allowed: auto, or a whole number of at least 1"
    )
