# SPDX-License-Identifier: MIT
"""``qmp``: any command to QEMU, with the answer or the refusal it must give."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, WithJsonSchema, model_validator

from harness.deadline import Deadline
from harness.document.model import error_at
from harness.errors import QmpCommandError
from harness.evidence.effect import Effect, Reply
from harness.evidence.witness import AnsweredCommand, Seen
from harness.steps.action import MappingAction

if TYPE_CHECKING:
    from harness.steps.stage import Stage

_COMMAND = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,2}")
#: Commands that are the harness's own: with them a plan would take the VM away from under itself.
_FORBIDDEN = {
    "quit": "power: off",
    "system_reset": "power: reset",
    "system_powerdown": "power: off",
    "stop": "pause",
    "cont": "pause",
    "qmp_capabilities": "nothing",
}


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


def _command(name: str) -> str:
    if not _COMMAND.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a command; allowed: such as query-status")
    return name


def _by_version(value: object) -> object:
    # Said here of a text alone, or the place of an error would be a version that nobody has written.
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text; allowed: a text, or one for each version of QEMU")
    return {"0": _pattern(value)}


def _versions(value: dict[str, str]) -> dict[str, str]:
    if not value:
        raise ValueError("no version; allowed: a text, or one for each version of QEMU, such as '7.2'")
    for version in value:
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is not a version of QEMU; allowed: such as '7.2' or '10'")
    return value


Command = Annotated[
    StrictStr,
    AfterValidator(_command),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_COMMAND.pattern}$", "not": {"enum": sorted(_FORBIDDEN)}}
    ),
]
Pattern = Annotated[StrictStr, Field(min_length=1), AfterValidator(_pattern)]
_PATTERN_SCHEMA = {"type": "string", "minLength": 1, "format": "regex"}
Refusals = Annotated[
    dict[str, Pattern],
    BeforeValidator(_by_version),
    AfterValidator(_versions),
    WithJsonSchema(
        {
            "anyOf": [
                _PATTERN_SCHEMA,
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": f"^{_VERSION.pattern}$"},
                    "additionalProperties": _PATTERN_SCHEMA,
                },
            ]
        }
    ),
]


class Qmp(MappingAction):
    """Send QEMU any command, and say what it must answer.

    It must answer with at least the keys and values in ``returns``, or refuse the command with a text in
    which ``refused`` is found. Where texts differ, ``refused`` maps versions of QEMU to regular expressions,
    each for that version and later ones. After a refusal nothing may have changed on any witness.
    """

    key: ClassVar[str] = "qmp"
    example: ClassVar[str] = """\
qmp:
  execute: device_add
  arguments: {driver: pc-dimm, id: dimm7, memdev: nobody}
  refused: "Device 'nobody' not found"
expect: {driver: []}
"""
    schema_rules: ClassVar[dict[str, Any]] = {
        "not": {
            "required": ["returns", "refused"],
            "properties": {name: {"not": {"type": "null"}} for name in ("returns", "refused")},
        }
    }

    execute: Command = Field(description="The command.")
    arguments: dict[str, Any] = Field(default={}, description="Its arguments.")
    returns: dict[str, Any] | None = Field(
        default=None, description="Keys and values that the answer must have; null stands for any value."
    )
    refused: Refusals | None = Field(
        default=None, description="A regular expression found in the refusal, or one for each QEMU version."
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.execute in _FORBIDDEN:
            instead = _FORBIDDEN[self.execute]
            message = f"execute: {self.execute} is the harness's own; allowed instead: {instead}"
            raise error_at(message, "execute")
        if self.returns is not None and self.refused is not None:
            raise error_at("returns and refused in one step; allowed: one of both", "refused")
        return self

    def title(self) -> str:
        """See :class:`Action`."""
        return f"qmp {self.execute}{' (to be refused)' if self.refused is not None else ''}"

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        refused = None if self.refused is None else refusal_for(self.refused, before.qemu_version)
        return Effect(reply=Reply(command=self.execute, returns=self.returns, refused=refused))

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        returned, refused = None, None
        try:
            returned = stage.vm.execute(self.execute, self.arguments, deadline=stage.command_deadline())
        except QmpCommandError as err:
            refused = err.description
        stage.acts.answered = AnsweredCommand(self.execute, returned, refused, time.monotonic())


def refusal_for(refusals: dict[str, str], qemu_version: str) -> str:
    """Return the regular expression for a version of QEMU: that of the latest version that is not newer.

    With none so old, that of the oldest.
    """
    wanted = _numbers(qemu_version)
    known = sorted(refusals, key=_numbers)
    fitting = [version for version in known if _numbers(version) <= wanted]
    return refusals[(fitting or known[:1])[-1]]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
