# SPDX-License-Identifier: MIT
"""The real probe under Wine over SSH, and what becomes of a probe that does not do its job."""

from __future__ import annotations

import json
import time

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestCommandError, GuestError
from harness.evidence import GuestState
from harness.probe import Probe
from harness.ssh import SshConnection
from tests.guest.wine_guest import WineGuest

ANSWER = {
    "format": 1,
    "id": "1",
    "active_processors": 2,
    "memory_bytes": 1 << 30,
    "boot_id": "b",
    "boot_time_100ns": 5,
    "qpc": 7,
    "qpc_hz": 10_000_000,
    "system_time_100ns": 9,
    "platform": "wine",
}


def soon() -> Deadline:
    return Deadline.after(30)


def test_the_real_probe_answers_again_and_again(wine_guest: WineGuest) -> None:
    with Probe.start(wine_guest, ["hpprobe.exe"], deadline=soon()) as probe:
        samples = [probe.sample(deadline=soon()) for _ in range(3)]
    assert [sample.id for sample in samples] == ["1", "2", "3"]
    assert len({sample.boot_id for sample in samples}) == 1
    counters = [sample.qpc for sample in samples]
    assert counters == sorted(set(counters))
    for sample in samples:
        assert sample.platform == "wine"
        assert sample.state == GuestState(sample.active_processors, sample.memory_bytes, sample.boot_id)
        assert sample.host_before_s < sample.host_after_s


def test_the_clock_of_the_real_probe_tells_host_time(wine_guest: WineGuest) -> None:
    with Probe.start(wine_guest, ["hpprobe.exe"], deadline=soon()) as probe:
        probe.sample(deadline=soon())  # starting up is slow
        clock = probe.clock(deadline=soon())
        later = probe.sample(deadline=soon())
    assert 0 < clock.error_s < 0.5
    assert (
        later.host_before_s - clock.error_s <= clock.host_s(later.qpc) <= later.host_after_s + clock.error_s
    )


def scripted(ssh: SshConnection, script: str) -> Probe:
    """Return a probe that is a shell script."""
    return Probe.start(ssh, ["sh", "-c", script], deadline=soon())


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("hello", "Invalid JSON"),
        (json.dumps({**ANSWER, "format": 2}), "format"),
        (json.dumps({**ANSWER, "active_processors": 0}), "active_processors"),
        (json.dumps({**ANSWER, "memory_bytes": "much"}), "memory_bytes"),
        (json.dumps({key: ANSWER[key] for key in ANSWER if key != "boot_id"}), "boot_id"),
        (json.dumps({**ANSWER, "id": "7"}), "was asked 1"),
    ],
)
def test_an_answer_that_is_none_is_shown(ssh: SshConnection, answer: str, what: str) -> None:
    with (
        scripted(ssh, f"read a; echo '{answer}'; read a") as probe,
        pytest.raises(GuestError, match=what),
    ):
        probe.sample(deadline=soon())


def test_a_newer_probe_may_say_more(ssh: SshConnection) -> None:
    with scripted(ssh, f"read a; echo '{json.dumps({**ANSWER, 'more': 1})}'") as probe:
        assert probe.sample(deadline=soon()).active_processors == 2


def test_a_late_answer_does_not_pass_for_the_next(ssh: SshConnection) -> None:
    second = json.dumps({**ANSWER, "id": "2", "active_processors": 3})
    with scripted(ssh, f"read a; read b; echo '{json.dumps(ANSWER)}'; echo '{second}'") as probe:
        with pytest.raises(DeadlineExpiredError):
            probe.sample(deadline=Deadline.after(0.3))
        assert probe.sample(deadline=soon()).active_processors == 3


def test_a_probe_that_ends_says_why(ssh: SshConnection) -> None:
    started = time.monotonic()
    with (
        Probe.start(ssh, ["/no/such/probe"], deadline=soon()) as probe,
        pytest.raises(GuestCommandError, match=r"'/no/such/probe --loop' .*exit status 127"),
    ):
        probe.sample(deadline=soon())
    assert time.monotonic() - started < 5
