# SPDX-License-Identifier: MIT
"""``announce``: a device interface arrives or goes without hardware, told by the guest's own PnP manager."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from harness.deadline import Deadline
from harness.document.model import ShortForm, error_at
from harness.evidence.effect import Announcement, Effect, InterfaceClass, announced_after
from harness.evidence.witness import Announced, Seen
from harness.guest.ability import Ability
from harness.steps.action import MappingAction
from harness.steps.room import Room

if TYPE_CHECKING:
    from harness.steps.stage import Stage


class Announce(ShortForm, MappingAction):
    """The positive control: the guest's PnP manager tells of a device interface that no hardware is behind.

    A driver that hears this and not a plug was not told of the plug; one that hears neither does not listen.
    ``announce: processor`` is short for ``{class: processor, event: arrival}``. A removal takes back the last
    arrival announced of that class.
    """

    key: ClassVar[str] = "announce"
    short_key: ClassVar[str] = "class"
    example: ClassVar[str] = """\
announce: processor
expect: {driver: [processor]}
"""
    needs: ClassVar[frozenset[Ability]] = frozenset({"announce"})

    interface_class: InterfaceClass = Field(alias="class", description="The interface class.")
    event: Literal["arrival", "removal"] = Field(default="arrival", description="What is told of it.")

    def title(self) -> str:
        """See :class:`Action`."""
        return f"announce {self.interface_class} {self.event}"

    def spell_out(self, room: Room) -> tuple[Self, Room]:
        """See :class:`Action`."""
        announcement = self._next(room.announced)
        if announcement is None:
            raise error_at(f"a removal of class {self.interface_class} before an arrival was announced")
        return self, replace(room, announced=announced_after(room.announced, announcement))

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        announcement = self._next(before.announced)
        return Effect(announced=() if announcement is None else (announcement,))

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        (announcement,) = self.effect(stage.before).announced
        at_s = time.monotonic()
        link = stage.guest.announce(announcement, deadline=stage.command_deadline())
        stage.acts.announced.append(Announced(announcement, link, at_s))

    def _next(self, announced: tuple[Announcement, ...]) -> Announcement | None:
        """Return what to announce, given what is; None for a removal of nothing."""
        if self.event == "arrival":
            number = 1 + max((int(one.name.removeprefix("announced")) for one in announced), default=0)
            return Announcement(
                interface_class=self.interface_class, event="arrival", name=f"announced{number}"
            )
        there = [one for one in announced if one.interface_class == self.interface_class]
        return replace(there[-1], event="removal") if there else None
