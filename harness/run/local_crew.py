# SPDX-License-Identifier: MIT
"""Many plans at once on this host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BenchError
from harness.evidence.verdict import Verdict
from harness.host.amounts import Amounts
from harness.host.budget import Ledger, host_amounts, plans_at_once, within
from harness.plan.need import need_of
from harness.plan.plan import Plan
from harness.run.crew import Workers, as_interrupted
from harness.run.run import run_plan
from harness.run.session import Session
from harness.run.unexpected import told
from harness.vm.qemu_process import end_all_under


@dataclass(eq=False, frozen=True, slots=True)
class _Job:
    run: Callable[[], Verdict]
    folder: Path
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
        self._futures: dict[Path, Future[Verdict]] = {}
        self._ended: set[Path] = set()

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        """See :class:`Crew`. What the plan's bench needs is built first, in the calling thread."""
        future: Future[Verdict] = Future()
        try:
            need = within(need_of(plan), self._host, plan=plan.name, folder=self._session.results)
            bench = self._session.bench(plan)
        except BenchError as err:
            future.set_exception(err)
            return future
        self._futures[folder] = future
        job = _Job(lambda: run_plan(plan, bench=bench, folder=folder), folder, future)
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

    def end(self, folder: Path) -> None:
        """See :class:`Crew`."""
        self._ended.add(folder)
        future = self._futures[folder]
        if future.cancel():
            future.set_running_or_notify_cancel()
        else:
            end_all_under(folder)

    def close(self) -> None:
        """See :class:`Crew`."""

    def _admit(self) -> None:
        with self._lock:
            admitted = self._ledger.admit()
        for job, need in admitted:
            # A plan that hangs must not keep the harness from ending; QEMU dies with it.
            threading.Thread(target=self._run, args=(job, need), name="harness-plan", daemon=True).start()

    def _run(self, job: _Job, need: Amounts) -> None:
        if not job.future.cancelled() and job.future.set_running_or_notify_cancel():
            self._settle(job)
        with self._lock:
            self._ledger.give_back(need)
        self._admit()

    def _settle(self, job: _Job) -> None:
        try:
            verdict = job.run()
            if self._stopped.is_set() or job.folder in self._ended:
                verdict = as_interrupted(verdict)
        except BenchError as err:
            result: BenchError | Verdict = err
        except BaseException as err:  # noqa: BLE001 - whoever waits for the plan is to see it
            result = BenchError(told(err, folder=self._session.results))
        else:
            result = verdict
        # One that took too long to end when it was interrupted has been given up.
        with suppress(InvalidStateError):
            if isinstance(result, BenchError):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
