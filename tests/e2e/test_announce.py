# SPDX-License-Identifier: MIT
"""The positive control in the real reference guest: the driver hears of what no hardware is behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from harness.deadline import Deadline
from harness.plan.plan import Plan
from harness.run.session import Session
from tests.opening import open_for

LINK = r"\??\SWD#HilHotplug#control#{97fadb10-4e33-40ae-359c-8bef029dbdd0}"
POLL_S = 0.05
EVENTS: tuple[Literal["arrival", "removal"], ...] = ("arrival", "removal")


def test_the_driver_is_told_of_an_announced_arrival_and_removal(
    session: Session, load: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = load("steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]")
    told: list[tuple[str, str, str]] = []
    with open_for(session.bench(plan), plan, folder=tmp_path) as guest:
        before = guest.probe.sample(deadline=Deadline.after(30)).state
        for event in EVENTS:
            link = guest.probe.announce("processor", event, name="control", deadline=Deadline.after(30))
            assert link == LINK
        deadline = Deadline.after(30)
        while len(told) < 2:
            deadline.check("two notifications in the driver's log")
            records = [item.record for item in guest.log.poll(deadline=deadline)]
            told += [
                (record.fields["class"], record.fields["event"], record.fields["link"])
                for record in records
                if record.kind == "notification"
            ]
            threading.Event().wait(POLL_S)
        assert guest.probe.sample(deadline=Deadline.after(30)).state == before
    assert told == [("processor", "arrival", LINK), ("processor", "removal", LINK)]
