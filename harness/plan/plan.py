# SPDX-License-Identifier: MIT
"""A test plan: what to do to a guest, step by step, and what the driver must tell of each step.

:func:`load_plan` reads a plan as its author wrote it (:class:`Plan`); :meth:`Plan.unrolled` returns the steps
to run, with every repetition, default and ``all`` spelled out (:class:`Step`). Whatever can be known to be
wrong before a vm is started is found while loading. What a step can do is no business of this module:
:data:`harness.steps.actions.ACTIONS` has the list.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, StrictInt, StrictStr, create_model, model_validator
from pydantic_core import PydanticCustomError

from harness.document.model import NotEmpty, YamlModel, error_at
from harness.document.source import Source, load_model
from harness.document.units import DurationSeconds
from harness.errors import PlanError
from harness.evidence.effect import Effect, RecordOrder, Word
from harness.evidence.witness import Seen, Witness
from harness.guest.driver_setup import DriverSetup
from harness.guest.qtest_script import Script, script_field
from harness.steps.action import Action
from harness.steps.actions import ACTIONS
from harness.steps.room import Room
from harness.vm.shape import VmShape

_KEYS = tuple(action.key for action in ACTIONS)
_ONE_OF = f"one of {', '.join(_KEYS[:-1])} and {_KEYS[-1]}"


class Expect(YamlModel):
    """What a step must lead to."""

    driver: tuple[Word, ...] = Field(description="The records the driver must write; [] for none at all.")
    order: RecordOrder = Field(
        default="per_device",
        description="Whether the records must come in the order given, strict, or only those of one device.",
    )


class StepBase(YamlModel):
    """What every step has beside its one action."""

    schema_rules: ClassVar[dict[str, Any]] = {"oneOf": [{"required": [key]} for key in _KEYS]}

    repeat: StrictInt = Field(
        default=1, ge=1, le=1000, description="Do the step so many times, one after the other."
    )
    within_s: DurationSeconds | None = Field(
        default=None,
        alias="within",
        description="How soon after the act everything must have happened; the plan's if not given.",
    )
    expect: Expect = Field(description="What it must lead to.")

    def actions(self) -> tuple[Action, ...]:
        """Return the actions that are written down: one, once the step is loaded."""
        written = (getattr(self, key) for key in _KEYS)
        return tuple(action for action in written if action is not None)

    @model_validator(mode="after")
    def _has_one_action(self) -> Self:
        actions = self.actions()
        if not actions:
            raise error_at(f"a step without an action; allowed: {_ONE_OF}")
        if len(actions) > 1:
            raise error_at(f"two actions in one step; allowed: {_ONE_OF}", actions[1].key)
        return self


# A key is there or is not, and never there without a value, so None is no part of its type.
_FIELDS: dict[str, Any] = {
    action.key: (action, Field(default=None, description=action.summary())) for action in ACTIONS
}
#: One step as written: a key for each step kind, of which one is there.
PlannedStep: type[StepBase] = create_model(
    "PlannedStep",
    __base__=StepBase,
    __doc__="One step as written: one action and what it must lead to.",
    **_FIELDS,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step to run."""

    number: int  #: from 1
    action: Action
    within_s: float
    expect: Expect

    @property
    def title(self) -> str:
        """What the step does, such as ``plug 1 vCPU, DIMM 256 MiB``."""
        return self.action.title()

    def effect(self, before: Seen) -> Effect:
        """Return all that must follow, the driver's records included."""
        return replace(self.action.effect(before), records=self.expect.driver, order=self.expect.order)


class Plan(YamlModel):
    """A test plan as written."""

    description: StrictStr | None = Field(default=None, description="One line for people.")
    guest: StrictStr = Field(
        default="reference",
        min_length=1,
        description="The guest profile: guests/<name>.yaml beside the plan, or one of the project's.",
    )
    vm: VmShape = Field(
        default=VmShape(), description="The vm at boot, and the room that it leaves for plugging."
    )
    boot: Literal["fork", "cold"] = Field(
        default="fork", description="Fork a booted guest, which takes a second, or boot one of its own."
    )
    driver: DriverSetup = Field(
        default=DriverSetup(), description="How the driver is configured before the first step."
    )
    require: Annotated[tuple[Witness, ...], NotEmpty] | None = Field(
        default=None,
        description="The witnesses that must confirm every step; the profile's if not given. "
        "All are recorded always.",
    )
    within_s: DurationSeconds = Field(
        default=30.0,
        alias="within",
        description="How soon after each act everything must have happened, unless the step says otherwise.",
    )
    acpi: Script | None = script_field(None)
    steps: Annotated[tuple[PlannedStep, ...], NotEmpty] = Field(description="What to do, in order.")

    _source: Source[PlanError] | None = PrivateAttr(default=None)
    _file: Path | None = PrivateAttr(default=None)
    _unrolled: tuple[Step, ...] = PrivateAttr(default=())

    @property
    def source(self) -> Path:
        """The file the plan was loaded from, as it was named."""
        if self._source is None:
            raise ValueError("this plan was not loaded from a file")
        return self._source.path

    @property
    def file(self) -> Path:
        """That file's absolute path, which stays right when the current folder has changed or is gone."""
        if self._file is None:
            raise ValueError("this plan was not loaded from a file")
        return self._file

    @property
    def text(self) -> str:
        """What that file held when it was loaded."""
        if self._source is None:
            raise ValueError("this plan was not loaded from a file")
        return self._source.text

    @property
    def name(self) -> str:
        """The name of that file without its ending."""
        return self.source.stem

    def unrolled(self) -> tuple[Step, ...]:
        """Return the steps to run, in order."""
        return self._unrolled

    def error(self, message: str, *at: str | int) -> PlanError:
        """Return an error about a part of this plan, given by its YAML keys and list positions."""
        if self._source is None:
            return PlanError(message, file="plan")
        return self._source.error(message, *at)

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        self._unrolled = _unroll(self)
        return self


def load_plan(path: Path) -> Plan:
    """Read a test plan.

    :raise PlanError: the file cannot be read or the plan cannot be run.
    """
    loaded = load_model(path, Plan, PlanError)
    loaded.model._source = loaded.source
    # Not resolved: two names of one file are two plans.
    loaded.model._file = Path(os.path.abspath(path))  # noqa: PTH100
    return loaded.model


def located(error: PydanticCustomError, *below: str | int) -> PydanticCustomError:
    """Return an error of an action as one of the model that holds it, below these keys."""
    context = error.context or {}
    return error_at(str(context["message"]), *below, *context["at"])


#: A plan of so many steps runs for a day; its evidence fills the memory long before.
MOST_STEPS = 10_000


def _unroll(plan: Plan) -> tuple[Step, ...]:
    room = Room.at_boot(plan.vm)
    steps: list[Step] = []
    for index, planned in enumerate(plan.steps):
        (action,) = planned.actions()
        within_s = plan.within_s if planned.within_s is None else planned.within_s
        for _ in range(planned.repeat):
            if not room.guest_runs:
                raise error_at("a step after the guest was switched off; allowed: none", "steps", index)
            try:
                spelled, room = action.spell_out(room)
            except PydanticCustomError as error:
                raise located(error, "steps", index, action.key) from None
            if len(steps) == MOST_STEPS:
                message = f"more than {MOST_STEPS} steps, each repetition counted; allowed: fewer"
                raise error_at(message, "steps", index)
            steps.append(Step(len(steps) + 1, spelled, within_s, planned.expect))
    return tuple(steps)
