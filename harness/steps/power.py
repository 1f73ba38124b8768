# SPDX-License-Identifier: MIT
"""``power``: the guest restarts itself, is reset by QEMU, or switches itself off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, WithJsonSchema

from harness.deadline import Deadline
from harness.evidence.effect import Effect
from harness.evidence.witness import Seen
from harness.guest.ability import Ability
from harness.steps.action import ScalarAction
from harness.steps.room import Room

if TYPE_CHECKING:
    from harness.steps.stage import Stage


def _word(value: object) -> object:
    # YAML 1.1 reads a bare "off" as a boolean.
    return "off" if value is False else value


_Change = Annotated[
    Literal["restart", "reset", "off"],
    BeforeValidator(_word),
    WithJsonSchema({"enum": ["restart", "reset", "off", False]}),
]


class Power(ScalarAction[_Change]):
    """The guest restarts itself in order, QEMU resets it as by its button, or it switches itself off.

    After a restart or reset the driver is started again if it ran, and writes a new baseline; what was
    plugged is there from boot on, so nothing is told of it. Nothing can follow ``off``.
    """

    key: ClassVar[str] = "power"
    example: ClassVar[str] = """\
power: restart
expect: {driver: [load, baseline]}
"""
    needs: ClassVar[frozenset[Ability]] = frozenset({"power"})

    def title(self) -> str:
        """See :class:`Action`."""
        return f"power {self.root}"

    def spell_out(self, room: Room) -> tuple[Self, Room]:
        """See :class:`Action`."""
        # What a process of the guest has announced goes with it.
        return self, replace(room, guest_runs=self.root != "off", announced=())

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        if self.root == "off":
            return Effect(run_state="shutdown", boot="none")
        return Effect(boot="new", clock="anew")

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        if self.root == "reset":
            stage.reboot(lambda: stage.vm.execute("system_reset"))
        elif self.root == "restart":
            stage.reboot(lambda: stage.guest.restart(deadline=stage.command_deadline()))
        else:
            # QEMU stops the vCPUs of a guest that has switched itself off, and can so still be asked.
            with stage.vm.watch.asked_for("SHUTDOWN", "STOP", "POWERDOWN") as told:
                stage.guest.power_off(deadline=stage.command_deadline())
                told.get(lambda event: event.name == "STOP", deadline=stage.boot_deadline())
