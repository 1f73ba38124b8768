# SPDX-License-Identifier: MIT
"""What every step kind is: a word in the plan, its arguments, what must follow, and the act itself.

A new kind is one file with one class here beside, and its name in :data:`harness.steps.actions.ACTIONS`. The
plan's model, its JSON Schema, what pages say of it and its examples all come from that class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar

from pydantic import ConfigDict, RootModel

from harness.deadline import Deadline
from harness.document.model import YamlModel
from harness.evidence.effect import Effect
from harness.evidence.witness import Seen
from harness.guest.ability import Ability
from harness.guest.profile import Limits
from harness.host.amounts import NOTHING, Amounts
from harness.steps.room import Room

if TYPE_CHECKING:
    from harness.steps.stage import Stage

Root = TypeVar("Root")


class Action(ABC):
    """One step kind.

    :cvar key: its word in a plan.
    :cvar example: a step as it is written, for pages and for a test.
    :cvar needs: what a guest must be able to do; a plan for one that is not is skipped, with the reason.
    """

    key: ClassVar[str]
    example: ClassVar[str]
    needs: ClassVar[frozenset[Ability]] = frozenset()

    @classmethod
    def summary(cls) -> str:
        """Return what the kind is for: the first sentence of the class's docstring."""
        return " ".join((cls.__doc__ or "").split()).partition(". ")[0].rstrip(".") + "."

    @abstractmethod
    def title(self) -> str:
        """Return what the step does, for people, in one line that begins with its word: ``plug 1 vCPU``."""

    def spell_out(self, room: Room) -> tuple[Self, Room]:
        """Return the action with every default and ``all`` spelled out, and what room it leaves.

        :raise PydanticCustomError: it cannot be done by then; made by :func:`harness.document.model.error_at`
            with a place below this action.
        """
        return self, room

    def check_fits(self, limits: Limits) -> None:  # noqa: B027 - most kinds ask a guest for nothing
        """Do nothing if the guest takes what is asked for.

        :raise PydanticCustomError: as :meth:`spell_out`.
        """

    def need(self) -> Amounts:
        """Return what it takes of the host, beyond what the plan has taken already."""
        return NOTHING

    def lasts_s(self) -> float:
        """Return how long it takes by itself, before anything that is waited for."""
        return 0.0

    @abstractmethod
    def effect(self, before: Seen) -> Effect:
        """Return what must follow, the driver's records apart: those the plan says. Pure."""

    @abstractmethod
    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """Do it; the only input and output of a step kind. What was done goes to ``stage.acts``.

        :param deadline: by when what the plan waits for must have happened.
        :raise BenchError: the bench broke. What the product refuses is evidence, and goes to ``stage.acts``.
        """


class MappingAction(YamlModel, Action):
    """A step kind with keys of its own: ``plug: {vcpus: 1}``."""


class ScalarAction(RootModel[Root], Action, Generic[Root]):
    """A step kind with one value: ``driver: stop``."""

    model_config = ConfigDict(frozen=True)
