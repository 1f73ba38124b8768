# SPDX-License-Identifier: MIT
"""``pause``: QEMU stops the vCPUs for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from harness.deadline import Deadline, pause
from harness.document.units import DurationSeconds, format_duration
from harness.evidence.effect import Effect
from harness.evidence.witness import Seen
from harness.steps.action import ScalarAction

if TYPE_CHECKING:
    from harness.steps.stage import Stage

#: How often is looked whether the VM is still there.
_LOOK_S = 0.2


class Pause(ScalarAction[DurationSeconds]):
    """QEMU stops the vCPUs for so long and lets them run again.

    To plug meanwhile, see ``plug: {vcpus: 1, paused: true}``.
    """

    key: ClassVar[str] = "pause"
    example: ClassVar[str] = """\
pause: 2 s
expect: {driver: []}
"""

    def title(self) -> str:
        """See :class:`Action`."""
        return f"pause {format_duration(self.root)}"

    def lasts_s(self) -> float:
        """See :class:`Action`."""
        return self.root

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        return Effect(clock="anew")

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        until = Deadline.after(self.root)
        with stage.paused():
            while not until.expired():
                pause(min(_LOOK_S, until.remaining_s()))
                stage.vm.check()
