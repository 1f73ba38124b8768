# SPDX-License-Identifier: MIT
"""How long a plan can take on a worker that lives: its deadlines say, and beyond them nobody waits."""

from __future__ import annotations

from dataclasses import dataclass

from harness.deadline import Deadline
from harness.guest.profile import Deadlines
from harness.plan.plan import Plan

#: For what a worker does before a plan's guest boots: packages, an image, a template, other plans' turns.
BUILD_WITHIN_S = 3600.0


def longest_s(plan: Plan, deadlines: Deadlines) -> float:
    """Return how long a plan may take from begin to end if each of its waits lasts to its deadline."""
    once_s = BUILD_WITHIN_S + 2 * deadlines.boot_s
    return once_s + sum(
        step.within_s + step.action.lasts_s() + deadlines.command_s + deadlines.boot_s
        for step in plan.unrolled()
    )


@dataclass(slots=True)
class Overdue:
    """Whether a plan's end is overdue where it was begun last, by the caller's own clock."""

    longest_s: float
    _begun: int = 0
    _until: Deadline | None = None

    def look(self, begun: int) -> bool:
        """Return whether it is overdue.

        :param begun: how often the plan has been begun so far; each begin counts from when it is first seen.
        """
        if begun != self._begun:
            self._begun = begun
            self._until = Deadline.after(self.longest_s) if begun else None
        return self._until is not None and self._until.expired()
