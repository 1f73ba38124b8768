# SPDX-License-Identifier: MIT
"""The real probe under Wine over SSH, and what becomes of a probe that does not do its job."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestCommandError, GuestError, UsageError
from harness.evidence.witness import GuestState
from harness.guest.probe import Probe
from harness.wires.ssh import SshConnection
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


def told(*numbers: int) -> list[dict[str, object]]:
    return [
        {"number": number, "class": "memory", "event": "arrival", "qpc": 5, "link": "x"} for number in numbers
    ]


class TestLook:
    def test_the_real_probe_tells_what_came_since_it_was_last_asked(self, wine_guest: WineGuest) -> None:
        with Probe.start(wine_guest, ["hpprobe.exe"], deadline=soon()) as probe:
            assert probe.look(deadline=soon())[1] == ()
            arrived = probe.announce("memory", "arrival", name="x", deadline=soon())
            went = probe.announce("memory", "removal", name="x", deadline=soon())
            probe.sample(deadline=soon())
            sample, told = probe.look(deadline=soon())
            assert probe.look(deadline=soon())[1] == ()
        assert told is not None
        assert [(one.interface_class, one.event, one.link) for one in told] == [
            ("memory", "arrival", arrived),
            ("memory", "removal", went),
        ]
        assert told[0].qpc <= told[1].qpc <= sample.qpc

    def test_one_that_cannot_know_says_so(self, ssh: SshConnection) -> None:
        with scripted(ssh, f"read a; echo '{json.dumps({**ANSWER, 'told': None})}'") as probe:
            assert probe.look(deadline=soon())[1] is None

    def test_an_old_one_takes_the_request_for_an_id_and_cannot_know(self, ssh: SshConnection) -> None:
        answer = json.dumps({**ANSWER, "id": "1 told"})
        with scripted(ssh, f"read a; echo '{answer}'") as probe:
            assert probe.look(deadline=soon())[1] is None

    @pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1)])
    def test_what_was_lost_is_noticed(self, ssh: SshConnection, numbers: tuple[int, ...]) -> None:
        answer = json.dumps({**ANSWER, "told": told(*numbers)})
        with (
            scripted(ssh, f"read a; echo '{answer}'; read a") as probe,
            pytest.raises(GuestError, match=r"lost -?\d+ interfaces of which programs were told"),
        ):
            probe.look(deadline=soon())


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


class TestAnnounce:
    """What the PnP manager is to tell of, through the real probe and the real ``winepnp.sys``."""

    LINK = r"\??\SWD#HilHotplug#{}#{{97fadb10-4e33-40ae-359c-8bef029dbdd0}}"

    @pytest.fixture
    def probe(self, wine_guest: WineGuest) -> Iterator[Probe]:
        with Probe.start(wine_guest, ["hpprobe.exe"], deadline=soon()) as probe:
            yield probe

    def test_returns_the_link_of_what_arrived_and_of_what_went(
        self, probe: Probe, wine_guest: WineGuest
    ) -> None:
        feed = wine_guest.wine.feed()
        before = feed.state()["interfaces"]
        link = probe.announce("processor", "arrival", name="one", deadline=soon())
        assert link == self.LINK.format("one")
        assert feed.state()["interfaces"] == before + 1
        assert probe.announce("processor", "removal", name="one", deadline=soon()) == link
        assert feed.state()["interfaces"] == before

    def test_comes_between_samples_and_is_none(self, probe: Probe) -> None:
        assert probe.sample(deadline=soon()).id == "1"
        probe.announce("memory", "arrival", name="two", deadline=soon())
        probe.announce("memory", "removal", name="two", deadline=soon())
        assert probe.sample(deadline=soon()).id == "4"
        assert [sample.id for sample in probe.samples] == ["1", "4"]

    def test_says_why_the_guest_refused(self, probe: Probe) -> None:
        reason = r"^the guest did not announce memory removal three: there is no such interface: error 2 "
        with pytest.raises(GuestError, match=reason):
            probe.announce("memory", "removal", name="three", deadline=soon())

    @pytest.mark.parametrize("name", ["", "Upper", "a b", "a\nb", "a#b", "x" * 65, "\u00e9"])
    def test_does_not_ask_for_a_name_that_no_probe_takes(self, probe: Probe, name: str) -> None:
        with pytest.raises(UsageError, match="name"):
            probe.announce("memory", "arrival", name=name, deadline=soon())
        assert probe.sample(deadline=soon()).id == "1"

    @pytest.mark.parametrize("identity", ["1", "1 announce memory arrival x"])
    def test_of_an_old_probe_is_an_error(self, ssh: SshConnection, identity: str) -> None:
        answer = json.dumps({**ANSWER, "id": identity})
        with (
            scripted(ssh, f"read a; echo '{answer}'") as probe,
            pytest.raises(GuestError, match=r"did not announce memory arrival x: .* old"),
        ):
            probe.announce("memory", "arrival", name="x", deadline=soon())

    def test_that_is_late_does_not_pass_for_the_next_answer(self, ssh: SshConnection) -> None:
        late = json.dumps({**ANSWER, "id": "1", "announced": "late"})
        old = json.dumps({**ANSWER, "id": "1 announce memory arrival x"})
        second = json.dumps({**ANSWER, "id": "2", "announced": "link"})
        script = f"read a; read b; echo '{late}'; echo '{old}'; echo '{second}'"
        with scripted(ssh, script) as probe:
            with pytest.raises(DeadlineExpiredError):
                probe.announce("memory", "arrival", name="x", deadline=Deadline.after(0.3))
            assert probe.announce("memory", "removal", name="x", deadline=soon()) == "link"
