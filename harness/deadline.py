# SPDX-License-Identifier: MIT
"""The one way this project bounds a wait: an absolute end on the host's monotonic clock."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from harness.errors import DeadlineExpiredError


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on :func:`time.monotonic` after which waiting is pointless.

    Passed down unchanged, so that nested waits share one end instead of adding up.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self.at_s - time.monotonic())

    def expired(self) -> bool:
        """Return whether the end has passed."""
        return time.monotonic() >= self.at_s

    def sooner(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and the one that many seconds from now."""
        return min(self, Deadline.after(seconds), key=lambda deadline: deadline.at_s)

    def check(self, waited_for: str) -> None:
        """Do nothing before the end.

        :raise DeadlineExpiredError: after it, naming what was waited for.
        """
        if self.expired():
            raise DeadlineExpiredError(f"{waited_for} did not happen in time")


def pause(seconds: float) -> None:
    """Let so much time pass before something is looked at again."""
    threading.Event().wait(seconds)
