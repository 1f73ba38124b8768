# SPDX-License-Identifier: MIT
"""Speak QMP to one QEMU: blocking calls with deadlines over qemu.qmp's asyncio client.

All sessions share one daemon thread that runs the event loop. Start at :meth:`QmpSession.connect`.
This is the only module that imports ``qemu.qmp``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from harness.deadline import Deadline
from harness.errors import BenchError, DeadlineExpiredError, QmpCommandError, QmpLostError
from harness.wires.qmp_log import QmpLog

T = TypeVar("T")

#: How long an ending session waits for the loop thread to let go of the socket.
CLOSE_WITHIN_S = 5.0
#: How long a QEMU that has let a deadline pass is waited for the next times: one fault, one wait.
SILENT_WITHIN_S = 1.0
# What goes wrong on the wire is raised here; qemu.qmp need not also print it when logging is not set up.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Event:
    """One QMP event."""

    name: str
    data: Mapping[str, Any] = field(hash=False)
    at_s: float  #: host time.monotonic() on receipt
    timestamp_s: float  #: QEMU's own, seconds since the epoch


class Listener:
    """The events of some names received since it was opened; see :meth:`QmpSession.listen`."""

    def __init__(self, session: QmpSession, names: Sequence[str]) -> None:
        self._session = session
        self._names = frozenset(names)
        self._events: list[Event] = []
        self._taken: set[int] = set()

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything received so far, in order, whether taken by :meth:`get` or not."""
        with self._session.changed:
            return tuple(self._events)

    def get(self, match: Callable[[Event], bool] = lambda _event: True, *, deadline: Deadline) -> Event:
        """Take the first event that matches, waiting for it; the others are kept for later calls.

        :raise DeadlineExpiredError: if none came in time.
        :raise QmpLostError: if the connection ended before one came.
        """

        def first_match() -> int | None:
            for index, event in enumerate(self._events):
                if index not in self._taken and match(event):
                    return index
            return None

        with self._session.changed:
            self._await(lambda: first_match() is not None, deadline)
            index = first_match()
            assert index is not None
            self._taken.add(index)
            return self._events[index]

    def wait(self, enough: Callable[[Sequence[Event]], bool], *, deadline: Deadline) -> tuple[Event, ...]:
        """Wait until all events received so far are enough, and return them; none is taken.

        :raise DeadlineExpiredError: if they were not enough in time.
        :raise QmpLostError: if the connection ended before they were.
        """
        with self._session.changed:
            self._await(lambda: enough(self._events), deadline)
            return tuple(self._events)

    def offer(self, event: Event) -> None:
        """Keep the event if its name is listened for; the session calls this, under its lock."""
        if not self._names or event.name in self._names:
            self._events.append(event)

    def _await(self, done: Callable[[], bool], deadline: Deadline) -> None:
        # Received events win over a lost connection: they did happen.
        lost = self._session.is_lost
        self._session.changed.wait_for(lambda: done() or lost(), timeout=deadline.remaining_s())
        if done():
            return
        waited_for = " or ".join(sorted(self._names)) or "an event"
        if lost():
            raise self._session.lost_error(f"waiting for {waited_for}")
        seen = ", ".join(event.name for event in self._events) or "none"
        raise DeadlineExpiredError(f"{waited_for}, as expected by the harness, did not come (events: {seen})")


class QmpSession:
    """A connection to one QEMU's QMP monitor. Made by :meth:`connect` only; usable from any thread."""

    def __init__(self, sock: socket.socket, log: Path | None) -> None:
        self.changed = threading.Condition()  #: notified on every event and when the connection ends
        self.explain_lost: Callable[[QmpLostError], BenchError] = lambda error: error
        self._sock = sock
        self._client = _Client(self._on_sent, self._on_received)
        self.log = QmpLog(log)
        self._listeners: list[Listener] = []
        self._lost: str | None = None
        self._silent = False  #: it has let a deadline pass, and has not said a word since

    @classmethod
    @contextmanager
    def connect(
        cls, sock: socket.socket, *, log: Path | None = None, deadline: Deadline
    ) -> Iterator[QmpSession]:
        """Negotiate over a connected socket, which the session owns from here on; close it at the end.

        Every message of either direction is appended to ``log`` as one line of JSON:
        ``{"at_s": <host time.monotonic()>, "sent" | "received" | "event": <message>}``.

        :raise QmpLostError: if the other end hangs up or does not speak QMP.
        :raise DeadlineExpiredError: if it does not answer in time.
        """
        if deadline.expired():
            sock.close()
            deadline.check("a QMP session")
        session = cls(sock, log)
        supervised: concurrent.futures.Future[None] | None = None
        try:
            try:
                _run(session._client.connect(sock), deadline, "the QMP greeting")
            except QMPError as err:
                raise QmpLostError(f"no QMP session: {err}") from err
            supervised = asyncio.run_coroutine_threadsafe(session._supervise(), _loop())
            yield session
        finally:
            # Hanging up is all it takes: the supervisor sees the end of file and disconnects the client,
            # and the loop closes the socket. Closing it here would race with the loop for its number.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            if supervised is not None:
                concurrent.futures.wait([supervised], timeout=CLOSE_WITHIN_S)
            session.log.close()

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline
    ) -> Any:
        """Execute one command and return what QEMU returned, as parsed JSON.

        :raise QmpCommandError: if QEMU refuses it.
        :raise QmpLostError: if the connection ended, before or meanwhile.
        :raise DeadlineExpiredError: if there is no answer in time; QEMU may still carry it out.
        """
        return self._execute(self._client.execute(command, arguments), command, deadline)

    def send_fd(self, name: str, fd: int, *, deadline: Deadline) -> None:
        """Give QEMU a copy of an open file descriptor, to be called ``fd:name`` (QMP ``getfd``).

        :raise QmpError: as :meth:`execute`.
        """

        async def send() -> object:
            self._client.send_fd_scm(fd)
            return await self._client.execute("getfd", {"fdname": name})

        self._execute(send(), "getfd", deadline)

    @contextmanager
    def listen(self, *event_names: str) -> Iterator[Listener]:
        """Listen for events of these names, or for all; open it before the act that causes them."""
        listener = Listener(self, event_names)
        with self.changed:
            self._listeners.append(listener)
        try:
            yield listener
        finally:
            with self.changed:
                self._listeners.remove(listener)

    def is_lost(self) -> bool:
        """Return whether the connection has ended."""
        return self._lost is not None

    def lost_error(self, doing: str) -> BenchError:
        """Return what to raise when the connection ended during something."""
        return self.explain_lost(QmpLostError(f"the QMP connection ended {doing}: {self._lost or 'hung up'}"))

    def _execute(self, coroutine: Coroutine[Any, Any, T], command: str, deadline: Deadline) -> T:
        deadline = deadline.sooner(SILENT_WITHIN_S) if self._silent else deadline
        try:
            return _run(coroutine, deadline, f"QEMU's answer to {command}")
        except DeadlineExpiredError:
            self._silent = True
            raise
        except ExecuteError as err:
            raise QmpCommandError(command, err.error_class, err.error.error.desc) from err
        except (ExecInterruptedError, QMPError, OSError) as err:
            # StateError, one of QMPError, is how the client says that it is not connected any more.
            raise self.lost_error(f"executing {command}") from err

    async def _supervise(self) -> None:
        """Say so when the connection ends, for whatever reason, and release what the client holds."""
        while self._client.runstate == Runstate.RUNNING:
            await self._client.runstate_changed()
        cause = "end of file"
        try:
            await self._client.disconnect()
        except EOFError:
            pass
        except (OSError, QMPError, AssertionError) as err:
            cause = str(err) or type(err).__name__
        with self.changed:
            self._lost = cause
            self.changed.notify_all()

    def _on_sent(self, message: Message) -> None:
        self.log.append({"at_s": time.monotonic(), "sent": dict(message)})

    def _on_received(self, message: Message) -> None:
        at_s, self._silent = time.monotonic(), False
        if "event" not in message:
            self.log.append({"at_s": at_s, "received": dict(message)})
            return
        self.log.append({"at_s": at_s, "event": dict(message)})
        event = _event(message, at_s)
        with self.changed:
            for listener in self._listeners:
                listener.offer(event)
            self.changed.notify_all()


class _Client(QMPClient):
    # qemu.qmp offers these two callbacks to subclasses; its own listeners know no time of receipt.

    def __init__(self, on_sent: Callable[[Message], None], on_received: Callable[[Message], None]) -> None:
        super().__init__()
        self._on_sent = on_sent
        self._on_received = on_received

    def _cb_outbound(self, msg: Message) -> Message:
        self._on_sent(msg)
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        self._on_received(msg)
        return msg

    async def _event_dispatch(self, msg: Message) -> None:
        pass  # _on_received has delivered it; the library's own history would only grow


def _event(message: Message, at_s: float) -> Event:
    stamp: Any = message.get("timestamp") or {}
    data: Any = message.get("data") or {}
    timestamp_s = stamp.get("seconds", 0) + stamp.get("microseconds", 0) / 1e6
    return Event(str(message["event"]), data, at_s, timestamp_s)


_loop_lock = threading.Lock()


@functools.cache
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="harness-qmp", daemon=True).start()
    return loop


def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of the one thread that all sessions share; it ends with the process."""
    with _loop_lock:
        return _started_loop()


def _run(coroutine: Coroutine[Any, Any, T], deadline: Deadline, waited_for: str) -> T:
    if deadline.expired():
        coroutine.close()
        deadline.check(waited_for)
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result(timeout=deadline.remaining_s())
    except concurrent.futures.TimeoutError:
        raise DeadlineExpiredError(f"{waited_for} did not come in time") from None
    finally:
        # Also on Ctrl-C; a finished future ignores it.
        future.cancel()
