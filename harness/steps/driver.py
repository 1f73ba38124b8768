# SPDX-License-Identifier: MIT
"""``driver``: the driver under test is stopped or started."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from harness.deadline import Deadline
from harness.document.model import error_at
from harness.errors import DriverRefusedError
from harness.evidence.effect import Effect
from harness.evidence.witness import Seen
from harness.guest.ability import Ability
from harness.steps.action import ScalarAction
from harness.steps.room import Room

if TYPE_CHECKING:
    from harness.steps.stage import Stage


class SwitchDriver(ScalarAction[Literal["start", "stop"]]):
    """Stop the driver under test, or start it again."""

    key: ClassVar[str] = "driver"
    example: ClassVar[str] = """\
driver: stop
expect: {driver: [unload]}
"""
    needs: ClassVar[frozenset[Ability]] = frozenset({"driver"})

    def title(self) -> str:
        """See :class:`Action`."""
        return f"driver {self.root}"

    def spell_out(self, room: Room) -> tuple[Self, Room]:
        """See :class:`Action`."""
        if room.driver_runs == (self.root == "start"):
            state = "running" if room.driver_runs else "stopped"
            raise error_at(f"driver: {self.root} while the driver is {state} already")
        return self, replace(room, driver_runs=self.root == "start")

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        return Effect(driver_runs=self.root == "start")

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        switch = stage.guest.start_driver if self.root == "start" else stage.guest.stop_driver
        try:
            switch(deadline=stage.command_deadline())
        except DriverRefusedError as err:
            stage.acts.refused = str(err)
