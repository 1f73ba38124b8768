# SPDX-License-Identifier: MIT
"""What a guest without an operating system does about each device that is plugged: a list in YAML.

``acpi: [accept, {refuse: 0x81}, silent]`` accepts the first device, refuses the second with that status of
``_OST``, and says nothing of the third nor of any that follows: the last entry goes on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from harness.document.model import NotEmpty, error_at
from harness.document.units import did_you_mean, parse_duration
from harness.evidence.effect import IN_PROGRESS, SUCCESS

Death = Literal["panic", "restart", "power_off"]

#: The ``_OST`` status is a 32-bit register.
LARGEST_STATUS = 0xFFFF_FFFF
#: A vm has no more places than this for vCPUs and DIMMs together.
LARGEST_BURST = 1024


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of ``_OST``, so long after the guest has noticed the device."""

    status: int
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the guest does about one device, or about a burst of them.

    :ivar written: how it is written in YAML.
    :ivar deaf: the guest does not look at its registers, for this device nor ever after.
    :ivar death: what the guest does to itself instead of answering.
    :ivar burst: how many devices it is about. Several are accepted once all are there, the last one first.
    """

    written: Any = field(hash=False)
    evaluations: tuple[Evaluation, ...] = ()
    death: Death | None = None
    deaf: bool = False
    burst: int = 1


def behaviours(script: tuple[Behaviour, ...]) -> Iterator[Behaviour]:
    """Yield the behaviours of a script in order, the last one for ever."""
    return chain(script[:-1], repeat(script[-1]))


def _refuse(value: object) -> Behaviour:
    allowed = f"allowed: a whole number from 1 to {LARGEST_STATUS:#x} but {IN_PROGRESS:#x}, such as 0x81"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a status of _OST; {allowed}")
    if value in (SUCCESS, IN_PROGRESS):
        meaning = "success" if value == SUCCESS else "in progress"
        raise ValueError(f"{value:#x} means {meaning}; {allowed}")
    if not 0 < value <= LARGEST_STATUS:
        raise ValueError(f"{value:#x} is no status of _OST; {allowed}")
    return Behaviour({"refuse": value}, (Evaluation(value),))


def _late(value: object) -> Behaviour:
    return Behaviour({"late": value}, (Evaluation(SUCCESS, parse_duration(value)),))


def _in_progress(value: object) -> Behaviour:
    done = Evaluation(SUCCESS, parse_duration(value))
    return Behaviour({"in_progress": value}, (Evaluation(IN_PROGRESS), done))


def _reversed(value: object) -> Behaviour:
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= LARGEST_BURST:
        allowed = f"allowed: a whole number from 2 to {LARGEST_BURST}"
        raise ValueError(f"{value!r} is not a number of devices to answer in reverse; {allowed}")
    return Behaviour({"reversed": value}, (Evaluation(SUCCESS),), burst=value)


ACCEPT = Behaviour("accept", (Evaluation(SUCCESS),))

_WORDS: Mapping[str, Behaviour] = {
    behaviour.written: behaviour
    for behaviour in (
        ACCEPT,
        Behaviour("silent"),
        Behaviour("deaf", deaf=True),
        Behaviour("twice", (Evaluation(SUCCESS), Evaluation(SUCCESS))),
        Behaviour("in_progress", (Evaluation(IN_PROGRESS),)),
        Behaviour("panic", death="panic"),
        Behaviour("restart", death="restart"),
        Behaviour("power_off", death="power_off"),
    )
}
_KEYS: Mapping[str, Callable[[object], Behaviour]] = {
    "refuse": _refuse,
    "late": _late,
    "in_progress": _in_progress,
    "reversed": _reversed,
}
_ALLOWED = (
    f"allowed: {', '.join(_WORDS)}, {{refuse: 0x81}}, {{late: 300 ms}}, {{in_progress: 300 ms}}"
    " and {reversed: 3}"
)


def _behaviour(value: object) -> Behaviour:
    """Return what an entry of the list means.

    :raise ValueError: it means nothing; the text says what is allowed.
    """
    if isinstance(value, Behaviour):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, argument),) = value.items()
        if key in _KEYS:
            try:
                return _KEYS[key](argument)
            except ValueError as error:
                raise error_at(f"{key}: {error}", key) from error
        raise ValueError(f"unknown key '{key}'; {_ALLOWED}{did_you_mean(key, _KEYS)}")
    if isinstance(value, str):
        if value in _WORDS:
            return _WORDS[value]
        raise ValueError(f"{value!r} is not known; {_ALLOWED}{did_you_mean(value, _WORDS)}")
    what = "a mapping of one key" if isinstance(value, Mapping) else "a word or a mapping of one key"
    raise ValueError(f"{_short(value)} is not {what}; {_ALLOWED}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


_DURATION = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *(ms|s|min)$"}
_SCHEMA = {
    "anyOf": [
        {"enum": list(_WORDS)},
        {
            "type": "object",
            "properties": {
                "refuse": {
                    "description": "Answer with this status of _OST.",
                    "type": "integer",
                    "minimum": 1,
                    "maximum": LARGEST_STATUS,
                },
                "late": {"description": "Answer success after so long.", **_DURATION},
                "in_progress": {
                    "description": "Answer that insertion is in progress, and success after so long.",
                    **_DURATION,
                },
                "reversed": {
                    "description": "Answer success once so many devices are there, for the last one first.",
                    "type": "integer",
                    "minimum": 2,
                    "maximum": LARGEST_BURST,
                },
            },
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
}

#: The field type of a script in plans and profiles.
Script = Annotated[
    tuple[
        Annotated[
            Behaviour,
            PlainValidator(_behaviour),
            PlainSerializer(lambda behaviour: behaviour.written),
            WithJsonSchema(_SCHEMA),
        ],
        ...,
    ],
    NotEmpty,
]
#: What every such field says of itself.
SCRIPT_DESCRIPTION = "What a guest without an operating system does about each device plugged, in order."


def script_field(default: tuple[Behaviour, ...] | None) -> Any:
    """Return the field of a script, with its default as written in YAML."""
    written = None if default is None else [behaviour.written for behaviour in default]
    return Field(default=default, description=SCRIPT_DESCRIPTION, json_schema_extra={"default": written})
