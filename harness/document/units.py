# SPDX-License-Identifier: MIT
"""Sizes and durations as people write them: a number and a unit, never a bare number."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE_UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATION_UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60)}

#: No host waits longer for one thing, and none has more memory (52 bits is the most x86-64 can address).
LONGEST_S = 24 * 60 * 60
LARGEST_BYTES = 4096 * TIB

# Twelve digits are plenty for every unit and keep a hostile file from asking for huge arithmetic.
_QUANTITY = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,12})?) *([A-Za-z]*)")


def parse_size(text: object) -> int:
    """Return the bytes meant by a text such as ``256 MiB``.

    :raise ValueError: anything else; the text says what is allowed.
    """
    size_bytes = _parse(text, what="size", units=_SIZE_UNITS, example="256 MiB")
    if size_bytes.denominator != 1:
        raise ValueError(f"{_show(text)} is not a whole number of bytes")
    if size_bytes > LARGEST_BYTES:
        raise ValueError(f"{_show(text)} is too large; allowed: at most {format_size(LARGEST_BYTES)}")
    return int(size_bytes)


def parse_duration(text: object) -> float:
    """Return the seconds meant by a text such as ``30 s``.

    :raise ValueError: anything else; the text says what is allowed.
    """
    duration_s = _parse(text, what="duration", units=_DURATION_UNITS, example="30 s")
    if duration_s > LONGEST_S:
        raise ValueError(f"{_show(text)} is too long; allowed: at most {format_duration(LONGEST_S)}, a day")
    return float(duration_s)


def format_size(size_bytes: int) -> str:
    """Return a size exactly, in the largest unit that leaves a whole number."""
    for unit, unit_bytes in reversed(_SIZE_UNITS.items()):
        if size_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes} {unit}"
    return f"{size_bytes} bytes"


def format_duration(duration_s: float) -> str:
    """Return a duration to the millisecond, in the unit a person would choose."""
    milliseconds = round(duration_s * 1000)
    if abs(milliseconds) < 1000:
        return f"{milliseconds} ms"
    if milliseconds % 60_000 == 0:
        return f"{milliseconds // 60_000} min"
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + " s"


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the choice closest to a misspelt word, or nothing."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(word).lower(), by_lower_case, n=1)
    return f" (did you mean '{by_lower_case[close[0]]}'?)" if close else ""


def _parse(text: object, *, what: str, units: Mapping[str, int | Fraction], example: str) -> Fraction:
    allowed = f"allowed: a number and {_either(units)}, such as '{example}'"
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        is_bare = isinstance(text, (int, float)) and not isinstance(text, bool)
        problem = "has no unit" if is_bare else f"is not a {what}"
        raise ValueError(f"{_show(text)} {problem}; {allowed}")
    number, unit = Fraction(match[1]), match[2]
    if not unit:
        raise ValueError(f"{_show(text)} has no unit; {allowed}")
    if unit not in units:
        raise ValueError(f"{_show(text)} has the unknown unit '{unit}'; {allowed}{did_you_mean(unit, units)}")
    if number <= 0:
        raise ValueError(f"{_show(text)} is not more than zero; {allowed}")
    return number * units[unit]


def _either(choices: Iterable[str]) -> str:
    *most, last = choices
    return f"{', '.join(most)} or {last}"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}...'"


def _number_with(units: Iterable[str], *examples: str) -> WithJsonSchema:
    pattern = rf"^(?=.*[1-9])[0-9]{{1,12}}(\.[0-9]{{1,12}})? *({'|'.join(units)})$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


#: Model field types: bytes and seconds in Python, a number with a unit in YAML.
SizeBytes = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size),
    _number_with(_SIZE_UNITS, "256 MiB", "1 GiB"),
]
DurationSeconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    _number_with(_DURATION_UNITS, "500 ms", "30 s"),
]
