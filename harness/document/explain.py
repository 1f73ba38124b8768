# SPDX-License-Identifier: MIT
"""Says pydantic's findings in the words of a person who edits a plan: what, what is allowed, did you mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.document.nodes import KeyPath
from harness.document.units import did_you_mean


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a document, and where."""

    message: str
    at: KeyPath
    about_key: bool = False  #: the key is what is wrong, not its value
    about_absence: bool = False  #: a key is missing


def explain(
    model: type[BaseModel], details: ErrorDetails, written: Mapping[KeyPath, str] = MappingProxyType({})
) -> Finding:
    """Return one of pydantic's errors about a document that was to become a model, as a finding.

    :param written: how the values stand in the document that are no texts.
    """
    at, kind, value = details["loc"], details["type"], details["input"]
    context: dict[str, Any] = details.get("ctx", {})
    key = str(at[-1]) if at else ""
    about = f"{key}: " if key and isinstance(at[-1], str) else ""
    shown = written[at] if value is not None and at in written else _show(value)

    match kind:
        case "located":
            return Finding(details["msg"], (*at, *context["at"]))
        case "extra_forbidden":
            keys = _keys(model, at[:-1])
            allowed = f"allowed: {', '.join(keys)}{did_you_mean(key, keys)}"
            return Finding(f"unknown key '{key}'; {allowed}", at, about_key=True)
        case "missing":
            return Finding(f"the key '{key}' is missing", at[:-1], about_absence=True)
        case "model_type" | "dict_type":
            keys = _keys(model, at)
            with_keys = f" with the keys {', '.join(keys)}" if keys else ""
            return Finding(f"{about}{shown} is not a mapping{with_keys}", at)
        case "tuple_type" | "list_type":
            return Finding(f"{about}{shown} is not a list; allowed: a list such as [a, b]", at)
        case "literal_error":
            choices = _literals(context["expected"])
            allowed = f"allowed: {', '.join(choices)}{did_you_mean(value, choices)}"
            return Finding(f"{about}{shown} is not known; {allowed}", at)
        case "int_type" | "int_from_float":
            return Finding(f"{about}{shown} is not a whole number", at)
        case "greater_than_equal":
            return Finding(f"{about}{shown} is too small; allowed: at least {context['ge']}", at)
        case "less_than_equal":
            return Finding(f"{about}{shown} is too large; allowed: at most {context['le']}", at)
        case "bool_type":
            return Finding(f"{about}{shown} is neither true nor false", at)
        case "string_type" if value is None:
            return Finding(f"{about}left blank; allowed: a text", at)
        case "string_type":
            return Finding(f"{about}{shown} is not a text", at)
        case "string_too_short":
            return Finding(f"{about}an empty text", at)
        case "value_error":
            # Validators know values only.
            message = str(context["error"])
            if at in written and value is not None and message.startswith(f"{value!r} "):
                message = written[at] + message.removeprefix(repr(value))
            return Finding(f"{about}{message}", at)
        case _:
            return Finding(f"{about}{details['msg']}", at)


def _keys(model: type[BaseModel], at: KeyPath) -> list[str]:
    """Return the keys a mapping at this path may have."""
    found: type[BaseModel] | None = model
    for part in at:
        if isinstance(part, str) and found is not None:
            fields = found.model_fields.items()
            annotations = [field.annotation for name, field in fields if part in (name, field.alias)]
            found = next(_models_in(annotations), None)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _models_in(annotations: Iterable[Any]) -> Iterator[type[BaseModel]]:
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        yield from _models_in(get_args(annotation))


def _literals(expected: str) -> list[str]:
    # pydantic writes the choices as "'a', 'b' or 'c'".
    return [choice.strip().strip("'") for choice in expected.replace(" or ", ", ").split(",")]


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}..."
