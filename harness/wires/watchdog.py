# SPDX-License-Identifier: MIT
"""Do something once a call has outlived its deadline, with one thread for any number of calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.deadline import Deadline


class Watchdog:
    """Watches calls of any thread; made with what is to be done when one of them takes too long.

    A thread per call, as :class:`threading.Timer` is, would cost more than a short call itself.

    :param bark: called at most once, in the watchdog's thread. Nothing is watched after that.
    """

    def __init__(self, bark: Callable[[], None], *, name: str) -> None:
        self._bark = bark
        self._name = name
        self._changed = threading.Condition()
        self._ends_s: dict[object, float] = {}
        self._wakes_at_s = float("inf")
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watching(self, deadline: Deadline, *, grace_s: float = 0.0) -> Iterator[None]:
        """Bark if the block has not ended this long after the deadline."""
        call = object()
        end_s = time.monotonic() + deadline.remaining_s() + grace_s
        with self._changed:
            self._ends_s[call] = end_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            elif end_s < self._wakes_at_s:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._ends_s[call]

    def close(self) -> None:
        """End the thread; calls still under way are not watched any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                if any(end_s <= now_s for end_s in self._ends_s.values()):
                    break
                # A call that ended meanwhile is noticed only then: cheaper than waking up for each.
                self._wakes_at_s = min(self._ends_s.values(), default=float("inf"))
                wakes = self._wakes_at_s != float("inf")
                self._changed.wait(self._wakes_at_s - now_s if wakes else None)
            else:
                return
        self._bark()
