# SPDX-License-Identifier: MIT
"""The plans of one run, in order, and what became of each: none is ever missing in a report.

:class:`Batch` gives plans to a crew and gets a :class:`concurrent.futures.Future` for each:
:class:`harness.run.local_crew.LocalCrew` runs them on this host, :class:`harness.cluster.cluster.ClusterCrew`
on many.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from harness.errors import BenchError, UsageError
from harness.evidence.verdict import Verdict
from harness.host.current_folder import current_folder
from harness.plan.plan import Plan
from harness.run.junit import write_junit
from harness.run.report import PlanResult, names_of, write_evidence, write_results
from harness.run.session import Session
from harness.run.unexpected import told

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

    def end(self, folder: Path) -> None:
        """End the plan whose evidence goes to the folder, or cancel it if it has not begun; do not wait."""

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

    def end(self, folder: Path) -> None:
        """See :class:`Crew`."""

    def close(self) -> None:
        """See :class:`Crew`."""


@dataclass(eq=False, slots=True)
class _Entry:
    plan: Plan
    file: str  #: the same for each time the plan is loaded
    path: str  #: as people are shown it
    future: Future[Verdict] | None = None
    folder: Path | None = None
    is_taken: bool = False


class Batch:
    """The plans of one run, in order.

    :param plans: those that are known already. They are in the reports even if they are never begun.
    :param junit: whether to write ``junit.xml`` too.
    :ivar session: what they are run with.
    :ivar crew: who runs them.
    :ivar is_reported: whether the reports say how each plan ended.
    """

    def __init__(
        self, crew: Crew, session: Session, *, plans: Sequence[Plan] = (), junit: bool = False
    ) -> None:
        self.session = session
        self.crew = crew
        self.is_reported = False
        self._entries: list[_Entry] = []
        self._junit = junit
        self._began_at = datetime.now(UTC)
        for plan in plans:
            self.expect(plan)

    def expect(self, plan: Plan) -> None:
        """Have the plan in the reports, though it may never be begun; once for each file."""
        if self._find(plan, lambda _entry: True) is None:
            self._entries.append(_entry_of(plan))

    def begin(self, plan: Plan) -> Future[Verdict]:
        """Have the plan run as soon as there is room; all its evidence folders are named in this order.

        The future raises nothing but :class:`BenchError`.
        """
        entry = self._find(plan, lambda entry: entry.future is None)
        if entry is None:
            entry = _entry_of(plan)
            # After the runs there were, so that people find them together.
            same = [index for index, one in enumerate(self._entries) if one.file == entry.file]
            self._entries.insert(same[-1] + 1 if same else len(self._entries), entry)
        try:
            entry.folder = self.session.evidence_folder(plan)
            entry.future = self.crew.submit(plan, folder=entry.folder)
        except Exception as err:  # noqa: BLE001 - the other plans are to run
            error = err if isinstance(err, BenchError) else BenchError(told(err, folder=self.session.results))
            entry.future = Future()
            entry.future.set_exception(error)
        return entry.future

    def take(self, plan: Plan) -> Future[Verdict]:
        """Return the run of a plan that was begun and that nobody took yet; if there is none, begin it."""
        entry = self._find(plan, lambda entry: entry.future is not None and not entry.is_taken)
        if entry is None or entry.future is None:
            future = self.begin(plan)
            entry = next(entry for entry in self._entries if entry.future is future)
        entry.is_taken = True
        assert entry.future is not None
        return entry.future

    def results(self) -> list[PlanResult]:
        """Return what became of each plan so far, in the order of the plans."""
        names = names_of([entry.path for entry in self._entries])
        return [_result(entry, name) for entry, name in zip(self._entries, names, strict=True)]

    def result_of(self, plan: Plan, *, future: Future[Verdict] | None = None) -> PlanResult:
        """Return what became of a plan that is in the reports.

        :param future: of which of its runs, if it was run more than once; the first unless given.
        """
        wanted = self._find(plan, lambda entry: future is None or entry.future is future)
        results = zip(self._entries, self.results(), strict=True)
        return next(result for entry, result in results if entry is wanted)

    def give_up(self, future: Future[Verdict]) -> None:
        """End a run that nobody waits for any more, and wait until what it saw is written down."""
        entry = next(entry for entry in self._entries if entry.future is future)
        if entry.folder is not None and not future.done():
            self.crew.end(entry.folder)
            _await_end([future])

    def finish(self) -> None:
        """Interrupt what is still under way, wait until that is written down, and let go of the crew."""
        futures = [entry.future for entry in self._entries if entry.future is not None]
        if not all(future.done() for future in futures):
            self.crew.stop()
            _await_end(futures)
        self.crew.close()
        for entry in self._entries:
            # Nothing was written there: the plan was not begun, or had no bench.
            with suppress(OSError):
                if entry.folder is not None:
                    entry.folder.rmdir()

    def report(self, *, is_last: bool = False) -> None:
        """Write ``results.json``, and ``junit.xml`` if so asked, as things stand now.

        A folder that somebody removed is made again. Where that is not possible, one line says so.

        :param is_last: the run is over.
        """
        results, folder = self.results(), self.session.results
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_results(results, folder=folder, began_at=self._began_at)
            if self._junit:
                write_junit(results, folder=folder, began_at=self._began_at)
        except OSError as err:
            logger.error("the reports cannot be written to %s: %s", folder, err.strerror)
        else:
            self.is_reported = is_last

    def _find(self, plan: Plan, wanted: Callable[[_Entry], bool]) -> _Entry | None:
        file = os.fspath(plan.file)
        same = (entry for entry in self._entries if entry.plan is plan or entry.file == file)
        return next((entry for entry in same if wanted(entry)), None)


def _await_end(futures: Sequence[Future[Verdict]]) -> None:
    _, late = wait(futures, timeout=STOP_WITHIN_S)
    if late:
        logger.error("%d plans did not end within %g s", len(late), STOP_WITHIN_S)
    for future in late:
        with suppress(InvalidStateError):
            future.set_exception(BenchError(f"{INTERRUPTED}; it did not end within {STOP_WITHIN_S:g} s"))


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


def _result(entry: _Entry, name: str) -> PlanResult:
    future = entry.future
    if future is None or future.cancelled() or not (future.running() or future.done()):
        return PlanResult(name=name, path=entry.path)
    if not future.done():
        return PlanResult(name=name, path=entry.path, error="it has not ended")
    error = future.exception()
    if error is not None:
        return PlanResult(name=name, path=entry.path, error=str(error))
    return PlanResult(name=name, path=entry.path, verdict=future.result())


def _entry_of(plan: Plan) -> _Entry:
    return _Entry(plan, os.fspath(plan.file), _shown(plan.file))


def _shown(path: Path) -> str:
    """Return a path as a person in the current folder would type it, if it is below that."""
    here = current_folder()
    return os.fspath(path.relative_to(here) if here is not None and path.is_relative_to(here) else path)
