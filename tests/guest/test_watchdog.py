# SPDX-License-Identifier: MIT
"""The watchdog barks for a call that outlives its deadline, and only for that."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from harness.deadline import Deadline
from harness.wires.watchdog import Watchdog

FAR_S = 3600.0
PATIENCE_S = 30.0


class Bench:
    """A watchdog, and whether it has barked."""

    def __init__(self) -> None:
        self.barked = threading.Event()
        self.dog = Watchdog(self.barked.set, name="test-watchdog")

    def thread(self) -> threading.Thread | None:
        return next((thread for thread in threading.enumerate() if thread.name == "test-watchdog"), None)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.dog.close()
    thread = bench.thread()
    if thread is not None:
        thread.join(PATIENCE_S)
    assert bench.thread() is None


def test_it_barks_for_a_call_that_outlives_its_deadline(bench: Bench) -> None:
    with bench.dog.watching(Deadline.after(0.02), grace_s=0.02):
        assert bench.barked.wait(PATIENCE_S)


def test_it_barks_for_a_shorter_call_begun_while_it_watches_a_longer(bench: Bench) -> None:
    with bench.dog.watching(Deadline.after(FAR_S)), bench.dog.watching(Deadline.after(0.02)):
        assert bench.barked.wait(PATIENCE_S)


def test_it_barks_for_the_longer_call_when_a_shorter_has_ended(bench: Bench) -> None:
    with bench.dog.watching(Deadline.after(0.05)):
        with bench.dog.watching(Deadline.after(0.02)):
            pass
        assert bench.barked.wait(PATIENCE_S)


def test_it_does_not_bark_for_calls_that_end(bench: Bench) -> None:
    for _ in range(50):
        with bench.dog.watching(Deadline.after(1)):
            pass
    with pytest.raises(KeyError), bench.dog.watching(Deadline.after(1)):
        raise KeyError
    # Long enough to notice all of them if they were still watched.
    assert not bench.barked.wait(1.2)


def test_one_thread_watches_all_calls(bench: Bench) -> None:
    before = threading.active_count()
    with bench.dog.watching(Deadline.after(FAR_S)), bench.dog.watching(Deadline.after(FAR_S)):
        assert threading.active_count() == before + 1
