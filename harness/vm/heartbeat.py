# SPDX-License-Identifier: MIT
"""Notices when QEMU, or the harness itself, did not run: what is late then is not the guest's fault.

Linux tells it in ``/proc`` (proc(5)): that a process is stopped, and how long its threads wanted a processor
and got none (``schedstat``, Documentation/scheduler/sched-stats.rst). A thread's wait is added when it
ends, so a look back tells more than a look now. A harness that stood still notices by its own clock.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.deadline import Deadline
from harness.document.units import format_duration
from harness.errors import VmStalledError

LOOK_S = 0.2
#: Short, as a thread's wait shows between two looks only if the thread got nothing between them.
REST_LOOK_S = 0.05
#: What lasts less long is nothing to speak of.
SHORTEST_STALL_S = 1.0
#: How long a QEMU that does not run is waited for when all that is wanted of it is overdue.
PATIENCE_S = 10.0

#: It did not run in a time of which it waited for a processor for more, and had one for less, than this.
_WAITED_SHARE, _RAN_SHARE = 0.8, 0.2
_KEPT_LOOKS = 3000  # ten minutes; no thread waits longer and is told from one that hangs

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOPPED = {"T": "it was stopped", "t": "it was stopped by a debugger", "D": "it hung in the host's kernel"}
_BUSY = "the host was busy"


@dataclass(frozen=True, slots=True)
class Look:
    """What Linux says of a process at one time."""

    at_s: float
    state: str  #: of its first thread: one letter, proc(5)
    ran_s: float  #: all its threads together, ended ones too
    waited_s: dict[str, float] = field(default_factory=dict)  #: for a processor, by thread
    ran_by_thread_s: dict[str, float] = field(default_factory=dict)
    runnable: frozenset[str] = frozenset()  #: threads that run or want to

    @classmethod
    def at(cls, pid: int) -> Look | None:
        """Look now; None when the process is gone."""
        folder = Path(f"/proc/{pid}")
        try:
            state, ran_s = _stat(folder)
            threads = list((folder / "task").iterdir())
        except (OSError, ValueError):
            return None
        waited_s, ran_by_thread_s, runnable = {}, {}, set()
        for thread in threads:
            # A thread may end meanwhile, and a kernel may be built without the figures.
            with suppress(OSError, ValueError):
                ran_ns, waited_ns, _ = (thread / "schedstat").read_text().split()
                waited_s[thread.name], ran_by_thread_s[thread.name] = int(waited_ns) / 1e9, int(ran_ns) / 1e9
                if _stat(thread)[0] == "R":
                    runnable.add(thread.name)
        return cls(time.monotonic(), state, ran_s, waited_s, ran_by_thread_s, frozenset(runnable))

    def wanted_since(self, before: Look) -> float:
        """Return the seconds of processor time that were used or waited for since an earlier look.

        All threads together; infinite for a process that is stopped now. A thread that waits all the time
        between counts now, and once more when its wait has ended.
        """
        if self.state in _STOPPED:
            return float("inf")
        waits = sum(
            (self.ran_by_thread_s[name], self.waited_s[name])
            == (before.ran_by_thread_s.get(name), before.waited_s.get(name))
            for name in self.runnable
        )
        waited_s = sum(at_s - before.waited_s.get(name, 0.0) for name, at_s in self.waited_s.items())
        return self.ran_s - before.ran_s + waited_s + waits * (self.at_s - before.at_s)


@dataclass(frozen=True, slots=True)
class Stall:
    """A time during which QEMU did not run although it wanted to, on the host's monotonic clock."""

    from_s: float
    to_s: float
    why: str
    who: str = "QEMU"

    @property
    def length_s(self) -> float:
        """How long it was."""
        return self.to_s - self.from_s

    def __str__(self) -> str:
        length = format_duration(round(self.length_s, 1))
        return f"{self.who} got no processor time for {length} ({self.why})"


class Heartbeat:
    """All stalls of one QEMU; usable from any thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._lock = threading.Lock()
        self._looks: deque[Look] = deque(maxlen=_KEPT_LOOKS)
        self._stalls: list[Stall] = []
        self._ends = threading.Event()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Look again and again until the block ends."""
        self._look()
        thread = threading.Thread(target=self._run, name="harness-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ends.set()
            thread.join()

    def stalls(self, *, since_s: float) -> tuple[Stall, ...]:
        """Return what is known now of the stalls that were not over at that time, the part since then."""
        self._look()
        with self._lock:
            found = [replace(one, from_s=max(one.from_s, since_s)) for one in self._stalls]
        return tuple(one for one in found if one.length_s >= SHORTEST_STALL_S)

    def check(self, *, patience_s: float = PATIENCE_S) -> None:
        """Do nothing if QEMU can run; wait for one that is stopped, for so long at most.

        :raise VmStalledError: it still is after that.
        """
        deadline = Deadline.after(patience_s)
        while self.is_stopped():
            if deadline.expired():
                with self._lock:
                    now = self._stalls[-1]
                raise VmStalledError(f"{now} and still does not run; find out who stopped it, and run again")
            self._ends.wait(LOOK_S)

    def is_stopped(self) -> bool:
        """Return whether QEMU is kept from running at this moment."""
        return self._look()

    def await_rest(self, *, resting_s: float, share: float) -> bool:
        """Watch for so long; return whether QEMU wanted less than this share of one processor meanwhile."""
        began_s, wanted_s = time.monotonic(), 0.0
        before = Look.at(self._pid)
        while (passed_s := time.monotonic() - began_s) < resting_s:
            threading.Event().wait(min(REST_LOOK_S, resting_s - passed_s))
            now = Look.at(self._pid)
            if before is None or now is None:
                return False
            wanted_s += now.wanted_since(before)
            before = now
        return wanted_s < share * passed_s

    def _run(self) -> None:
        while not self._ends.wait(LOOK_S):
            self._look()

    def _look(self) -> bool:
        """Look, remember what stall there was since the last time, and return whether one goes on."""
        with self._lock:
            now = Look.at(self._pid)
            if now is None:
                return False
            before = self._looks[-1] if self._looks else now
            self._looks.append(now)
            # Short waits that each end before a look are seen over a longer time only.
            long_ago = next(
                (look for look in reversed(self._looks) if look.at_s <= now.at_s - SHORTEST_STALL_S), before
            )
            for earlier in (before, long_ago):
                self._add_if_starved(earlier, now)
            if now.at_s - before.at_s >= SHORTEST_STALL_S:
                why = "it was stopped or the host was busy"
                self._add(Stall(before.at_s, now.at_s, why, who="the harness"))
            if now.state in _STOPPED:
                from_s = before.at_s if before.state in _STOPPED else now.at_s
                self._add(Stall(from_s, now.at_s, _STOPPED[now.state]))
            return now.state in _STOPPED

    def _add_if_starved(self, earlier: Look, now: Look) -> None:
        """Remember the time since a look, and of a wait that ended since, if QEMU got next to nothing."""
        waited_s = max(
            (at_s - earlier.waited_s.get(name, at_s) for name, at_s in now.waited_s.items()), default=0.0
        )
        since_s = min(now.at_s - waited_s, earlier.at_s)
        waited_for_most = waited_s >= _WAITED_SHARE * (now.at_s - since_s) and now.at_s > since_s
        if waited_for_most and now.ran_s - self._ran_s_at(since_s) <= _RAN_SHARE * (now.at_s - since_s):
            self._add(Stall(since_s, now.at_s, _BUSY))

    def _ran_s_at(self, at_s: float) -> float:
        """Return the processor time QEMU had used by then, by the last look before."""
        earlier = (look.ran_s for look in reversed(self._looks) if look.at_s <= at_s)
        return next(earlier, self._looks[0].ran_s)

    def _add(self, stall: Stall) -> None:
        """Remember a stall, as the last of all."""
        for known in self._stalls:
            # What follows within two looks goes on: the scheduler lets everybody run a little now and then.
            goes_on = stall.from_s <= known.to_s + 2 * LOOK_S
            if goes_on and (known.who, known.why) == (stall.who, stall.why):
                stall = replace(stall, from_s=min(known.from_s, stall.from_s))
                self._stalls.remove(known)
                break
        over_s = stall.to_s - 2 * LOOK_S
        self._stalls = [one for one in self._stalls if one.length_s >= SHORTEST_STALL_S or one.to_s >= over_s]
        self._stalls.append(stall)


def total_s(stalls: Iterable[Stall]) -> float:
    """Return the seconds in which there was one of these stalls or several."""
    total, counted_to_s = 0.0, float("-inf")
    for stall in sorted(stalls, key=lambda stall: stall.from_s):
        total += max(0.0, stall.to_s - max(stall.from_s, counted_to_s))
        counted_to_s = max(counted_to_s, stall.to_s)
    return total


def _stat(folder: Path) -> tuple[str, float]:
    """Return the state of a process or thread, and the processor time it has used."""
    # The name before the last parenthesis may hold blanks and parentheses.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
