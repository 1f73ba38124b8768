# SPDX-License-Identifier: MIT
"""``wait``: nothing is done for a time, and the witnesses are listened to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from harness.deadline import Deadline
from harness.document.units import DurationSeconds, format_duration
from harness.evidence.effect import Effect
from harness.evidence.witness import Seen
from harness.steps.action import ScalarAction

if TYPE_CHECKING:
    from harness.steps.stage import Stage


class Wait(ScalarAction[DurationSeconds]):
    """Do nothing for so long, and listen: nothing may happen but what the step expects."""

    key: ClassVar[str] = "wait"
    example: ClassVar[str] = """\
wait: 5 s
expect: {driver: []}
"""

    def title(self) -> str:
        """See :class:`Action`."""
        return f"wait {format_duration(self.root)}"

    def lasts_s(self) -> float:
        """See :class:`Action`."""
        return self.root

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        return Effect()

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        stage.watch(self.root)
