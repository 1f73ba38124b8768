# SPDX-License-Identifier: MIT
"""The QMP session at the edges: silent, rude and vanishing other ends. With real QEMU: test_vm.py."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, QmpCommandError, QmpLostError
from harness.wires.qmp import Event, QmpSession

VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
GREETING = {"QMP": {"version": VERSION, "capabilities": []}}


def say(theirs: socket.socket, *messages: object) -> None:
    theirs.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))


def hear(theirs: socket.socket) -> dict[str, Any]:
    # The client ends its messages with the closing brace, not with a line.
    received = b""
    while not received.count(b"{") == received.count(b"}") > 0:
        more = theirs.recv(1)
        assert more, "the client hung up"
        received += more
    return json.loads(received)


def event(name: str, number: int) -> object:
    return {"event": name, "data": {"number": number}, "timestamp": {"seconds": 1, "microseconds": 5}}


@contextmanager
def other_end(talk: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Our end of a socket pair whose other end is served by ``talk`` in a thread, then closed."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)

    def serve() -> None:
        with theirs:
            talk(theirs)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield ours
    finally:
        server.join(30)
        assert not server.is_alive()


def negotiate(theirs: socket.socket) -> None:
    say(theirs, GREETING)
    hear(theirs)
    say(theirs, {"return": {}})


def connect(sock: socket.socket, deadline: Deadline) -> None:
    with QmpSession.connect(sock, deadline=deadline):
        pass


@contextmanager
def session_with(talk: Callable[[socket.socket], None]) -> Iterator[QmpSession]:
    """A session whose other end negotiates and then does as told."""

    def serve(theirs: socket.socket) -> None:
        negotiate(theirs)
        talk(theirs)

    with other_end(serve) as sock, QmpSession.connect(sock, deadline=Deadline.after(30)) as session:
        yield session


def wait_for_hang_up(theirs: socket.socket) -> None:
    while theirs.recv(4096):
        pass


def test_an_other_end_that_says_nothing_expires_the_deadline() -> None:
    with other_end(wait_for_hang_up) as sock, pytest.raises(DeadlineExpiredError, match="QMP greeting"):
        connect(sock, Deadline.after(0.1))


def test_an_expired_deadline_is_not_even_tried() -> None:
    with other_end(wait_for_hang_up) as sock, pytest.raises(DeadlineExpiredError):
        connect(sock, Deadline.after(0))


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH\r\n", b'{"hello": 1}\n'])
def test_an_other_end_that_is_no_qmp_is_lost(says: bytes) -> None:
    with other_end(lambda theirs: theirs.sendall(says)) as sock, pytest.raises(QmpLostError):
        connect(sock, Deadline.after(30))


def test_a_hang_up_fails_the_command_and_all_later_ones() -> None:
    def talk(theirs: socket.socket) -> None:
        hear(theirs)

    with session_with(talk) as session:
        for _attempt in range(2):
            with pytest.raises(QmpLostError, match="executing stop"):
                session.execute("stop", deadline=Deadline.after(30))


def test_a_hang_up_ends_a_wait_but_not_before_what_was_received() -> None:
    release = threading.Event()

    def talk(theirs: socket.socket) -> None:
        release.wait(30)
        say(theirs, event("A", 1))

    with session_with(talk) as session, session.listen("A") as listener:
        release.set()
        assert listener.get(deadline=Deadline.after(30)).data == {"number": 1}
        with pytest.raises(QmpLostError, match="waiting for A"):
            listener.get(deadline=Deadline.after(30))


def test_a_listener_keeps_what_it_does_not_take() -> None:
    release = threading.Event()

    def talk(theirs: socket.socket) -> None:
        release.wait(30)
        say(theirs, *(event(name, number) for number, name in enumerate(["A", "B", "A", "C", "A"])))
        wait_for_hang_up(theirs)

    def number_is(number: int) -> Callable[[Event], bool]:
        return lambda event: event.data["number"] == number

    soon = Deadline.after(30)
    with session_with(talk) as session:
        with session.listen("A", "C") as some, session.listen() as everything:
            release.set()
            assert some.get(number_is(4), deadline=soon).name == "A"
            assert some.get(deadline=soon).data["number"] == 0
            assert some.get(deadline=soon).data["number"] == 2
            assert some.get(deadline=soon).name == "C"
            with pytest.raises(DeadlineExpiredError, match=r"A or C.*events: A, A, C, A"):
                some.get(deadline=Deadline.after(0.05))
            assert [event.data["number"] for event in some.events] == [0, 2, 3, 4]
            heard = everything.wait(lambda events: len(events) >= 5, deadline=soon)
            assert [event.name for event in heard] == ["A", "B", "A", "C", "A"]
            assert all(event.timestamp_s == pytest.approx(1.000005) for event in heard)
        with session.listen("A") as later:
            assert later.events == ()


def test_a_refusal_is_told_in_full() -> None:
    def talk(theirs: socket.socket) -> None:
        error = {"class": "DeviceNotFound", "desc": "no such thing"}
        say(theirs, {"error": error, "id": hear(theirs)["id"]})
        wait_for_hang_up(theirs)

    with session_with(talk) as session, pytest.raises(QmpCommandError) as refused:
        session.execute("device_del", {"id": "x"}, deadline=Deadline.after(30))
    error = refused.value
    assert (error.command, error.error_class, error.description) == (
        "device_del", "DeviceNotFound", "no such thing",
    )  # fmt: skip


def test_a_late_answer_is_not_taken_for_the_next_commands() -> None:
    release = threading.Event()

    def talk(theirs: socket.socket) -> None:
        first = hear(theirs)["id"]
        release.wait(30)
        second = hear(theirs)["id"]
        say(theirs, {"return": "late", "id": first}, {"return": "right", "id": second})
        wait_for_hang_up(theirs)

    with session_with(talk) as session:
        with pytest.raises(DeadlineExpiredError):
            session.execute("one", deadline=Deadline.after(0.1))
        release.set()
        assert session.execute("two", deadline=Deadline.after(30)) == "right"
