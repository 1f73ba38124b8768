# SPDX-License-Identifier: MIT
"""Listen to what QEMU tells of its guest, for the VM's whole life, and say at once what nobody asked for.

Start at :class:`VmWatch`. Whoever does something to the guest says so beforehand
(:meth:`VmWatch.asked_for`); any other restart, panic, pause or end is an incident.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.errors import BenchError, GuestError, GuestGoneError, VmDisturbedError
from harness.evidence.incident import (
    INCIDENT_EVENTS,
    Incident,
    count_restarts,
    incident_of,
    incident_of_stop,
    is_restart_by_guest,
)
from harness.wires.qmp import Event, Listener, QmpSession

#: How long QEMU may take to say why it paused the guest.
STATUS_WITHIN_S = 5.0

#: A guest that restarts so often while it boots will not come up. Firmware and an installer restart once.
RESTARTS_WHILE_BOOTING = 3


class VmWatch:
    """All incidents of one VM; made by :meth:`open` only, usable from any thread."""

    def __init__(self, qmp: QmpSession, heard: Listener) -> None:
        self._qmp = qmp
        self._heard = heard
        # All of these are under the session's lock, under which events arrive as well.
        self._windows: list[_Window] = []
        self._incidents: list[Incident] = []
        self._calls: list[_Call] = []
        self._handled = 0
        self._closing = False

    @classmethod
    @contextmanager
    def open(cls, qmp: QmpSession) -> Iterator[VmWatch]:
        """Watch until the block ends; to be opened before the first command, so that nothing is missed."""
        with qmp.listen(*INCIDENT_EVENTS) as heard:
            watch = cls(qmp, heard)
            thread = threading.Thread(target=watch._run, name="harness-watch", daemon=True)
            thread.start()
            try:
                yield watch
            finally:
                with qmp.changed:
                    watch._closing = True
                    qmp.changed.notify_all()
                thread.join()

    @property
    def events(self) -> tuple[Event, ...]:
        """All that was heard so far, asked for or not."""
        return self._heard.events

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """What befell the VM so far, in order: the cause first, then what followed from it.

        Whatever QEMU had told before this was read is in it.
        """
        changed = self._qmp.changed
        with changed:
            received = len(self._heard.events)
            changed.wait_for(lambda: self._handled >= received, timeout=2 * STATUS_WITHIN_S)
            return tuple(self._incidents)

    @property
    def first(self) -> Incident | None:
        """The incident that the others followed from."""
        incidents = self.incidents
        return incidents[0] if incidents else None

    def check(self) -> None:
        """Do nothing while nothing has befallen the VM.

        :raise GuestGoneError: by the guest's own doing, such as a panic: for a verdict.
        :raise VmDisturbedError: by somebody's, the host's or QEMU's.
        """
        first = self.first
        if first is not None:
            raise GuestGoneError(first) if first.blame == "guest" else VmDisturbedError(first)

    @contextmanager
    def asked_for(
        self, *names: str, match: Callable[[Event], bool] = lambda _event: True
    ) -> Iterator[Listener]:
        """Take events of these names that arrive in the block for the harness's own doing: no incidents.

        Wait in the block for what may come after the command's reply, with the given listener. Name what
        follows too: QEMU sends ``STOP`` after a ``SHUTDOWN`` and after a ``GUEST_PANICKED``.

        :param match: only those of the events that it likes.
        """
        with self._qmp.listen(*names) as listener:
            with self._qmp.changed:
                window = _Window(frozenset(names), match, len(self._heard.events))
                self._windows.append(window)
            try:
                yield listener
            finally:
                with self._qmp.changed:
                    window.end = len(self._heard.events)

    @contextmanager
    def when_incident(self, callback: Callable[[Incident], None]) -> Iterator[None]:
        """Call back once, on the first incident, at once if there is one already.

        The callback has a thread of its own and may ask QEMU; it has returned when the block is left.
        """
        call = _Call(callback)
        with self._qmp.changed:
            self._calls.append(call)
            if self._incidents:
                call.make(self._incidents[0])
        try:
            yield
        finally:
            with self._qmp.changed:
                self._calls.remove(call)
            call.wait()

    @contextmanager
    def booting(self) -> Iterator[Callable[[], None]]:
        """Let the guest restart a few times in the block, which is no incident then.

        Around a reset that one asks for it must stay open until the guest is up, for firmware answers a reset
        by one of its own (:func:`harness.evidence.incident.count_restarts`).

        Gives what to call before each new attempt to reach the guest. It raises :class:`GuestError` for one
        that restarts again and again, else as :meth:`check`.
        """

        def by_guest(event: Event) -> bool:
            return is_restart_by_guest(event.data)

        with self.asked_for("RESET", match=by_guest) as resets:

            def check() -> None:
                self.check()
                restarts = count_restarts(event.at_s for event in resets.events if by_guest(event))
                if restarts >= RESTARTS_WHILE_BOOTING:
                    raise GuestError(f"the guest restarted {restarts} times while booting; see serial.log")

            yield check

    def _run(self) -> None:
        while (event := self._next()) is not None:
            incident = self._incident_of(event)
            with self._qmp.changed:
                self._handled += 1
                if incident is not None:
                    self._incidents.append(incident)
                    for call in self._calls:
                        call.make(incident)
                self._qmp.changed.notify_all()

    def _next(self) -> Event | None:
        """Wait for the next event; None when no more will come."""

        def has_more() -> bool:
            return len(self._heard.events) > self._handled

        changed = self._qmp.changed
        with changed:
            changed.wait_for(lambda: has_more() or self._closing or self._qmp.is_lost())
            return self._heard.events[self._handled] if has_more() else None

    def _incident_of(self, event: Event) -> Incident | None:
        with self._qmp.changed:
            number = self._handled
            if any(window.covers(number, event) for window in self._windows):
                return None
        if event.name != "STOP":
            return incident_of(event.name, event.data, event.at_s)
        return incident_of_stop(self._run_state(), event.at_s)

    def _run_state(self) -> object:
        try:
            status = self._qmp.execute("query-status", deadline=Deadline.after(STATUS_WITHIN_S))
        except BenchError:
            return None  # QEMU ended or hangs, which whoever uses it next is told
        return status.get("status")


@dataclass(slots=True, eq=False)
class _Window:
    """A block in which some events are asked for: from the first number up to, not including, the end."""

    names: frozenset[str]
    match: Callable[[Event], bool]
    first: int
    end: int | None = None

    def covers(self, number: int, event: Event) -> bool:
        within = self.first <= number and (self.end is None or number < self.end)
        return within and event.name in self.names and self.match(event)


class _Call:
    """A callback to be made once."""

    def __init__(self, callback: Callable[[Incident], None]) -> None:
        self._callback = callback
        self._thread: threading.Thread | None = None

    def make(self, incident: Incident) -> None:
        if self._thread is None:
            args = (incident,)
            self._thread = threading.Thread(
                target=self._callback, args=args, name="harness-incident", daemon=True
            )
            self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
