# SPDX-License-Identifier: MIT
"""Waiting for plans."""

from __future__ import annotations

import select
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import BenchError
from harness.evidence.verdict import Verdict
from harness.plan.plan import Plan
from harness.run.crew import Batch, NoCrew, verdict_of
from harness.run.local_crew import LocalCrew
from harness.run.session import Session

PLAN = Path(__file__).resolve().parents[2] / "testplans" / "one-dimm.yaml"


def main_thread_is_blocked_in_verdict_of() -> bool:
    """Return whether the main thread waits for a verdict and for nothing else."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    top, names = frame.f_code.co_name, []
    walked = frame.f_back
    while walked is not None:
        names.append(walked.f_code.co_name)
        walked = walked.f_back
    return top == "wait" and "verdict_of" in names


def test_ctrl_c_is_noticed_though_another_thread_gets_the_signal() -> None:
    future: Future[Verdict] = Future()

    def interrupt() -> None:
        while not main_thread_is_blocked_in_verdict_of():
            select.select([], [], [], 0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        # Wakes whoever waits without looking up, and too late.
        threading.Event().wait(10)
        future.cancel()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        verdict_of(future)
    assert not future.done()


def test_a_plan_that_was_begun_is_taken_and_not_begun_again(tmp_path: Path) -> None:
    session = Session(results=tmp_path)
    batch = Batch(NoCrew(BenchError("nobody")), session)
    plan = session.load(PLAN)
    batch.begin(plan)
    first = batch.take(session.load(PLAN))
    assert session.evidence_folder(plan).name == "one-dimm-2"
    second = batch.take(plan)
    assert session.evidence_folder(plan).name == "one-dimm-4"
    assert first is not second
    with pytest.raises(BenchError, match="nobody"):
        verdict_of(first)


def test_a_run_that_is_given_up_ends_or_is_not_begun_and_makes_room_for_others(tmp_path: Path) -> None:
    text = "guest: qtest\nacpi: [silent]\nwithin: 60 s\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]\n"
    session = Session(results=tmp_path / "out")
    batch = Batch(LocalCrew(session, workers=1), session)
    plans = []
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text(text if name != "c" else text.replace("silent", "accept"))
        plans.append(session.load(tmp_path / f"{name}.yaml"))
    a, b, c = (batch.begin(plan) for plan in plans)
    deadline = Deadline.after(60)
    while not (tmp_path / "out/a/qmp.jsonl").exists():
        deadline.check("the first plan's VM")
        select.select([], [], [], 0.01)
    batch.give_up(b)
    batch.give_up(a)
    assert verdict_of(c).outcome == "passed"
    results = [batch.result_of(plan) for plan in plans]
    assert [result.outcome for result in results] == ["error", "not run", "passed"]
    assert results[0].verdict is not None
    assert results[0].verdict.error == "interrupted"
    batch.give_up(c)
    assert batch.result_of(plans[2]).outcome == "passed"


class _Deaf(NoCrew):
    """A crew that goes on with what it was given."""

    def submit(self, plan: Plan, *, folder: Path) -> Future[Verdict]:
        return Future()


def test_a_plan_that_does_not_end_when_it_is_interrupted_is_in_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.run.crew.STOP_WITHIN_S", 0.1)
    session = Session(results=tmp_path)
    batch = Batch(_Deaf(BenchError("nobody")), session)
    plan = session.load(PLAN)
    future = batch.begin(plan)
    batch.finish()
    result = batch.result_of(plan)
    assert (result.outcome, result.error) == ("error", "interrupted; it did not end within 0.1 s")
    assert isinstance(future.exception(), BenchError)
