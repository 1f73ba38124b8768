# SPDX-License-Identifier: MIT
"""What ``docs/plans.md`` says of each step kind, made from the kinds by ``python -m harness.plan.page``.

A test compares the page with what :func:`with_steps` makes of it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

from pydantic import TypeAdapter

from harness.steps.action import Action
from harness.steps.actions import ACTIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plans.md"
BEGIN = "<!-- from here made by: python -m harness.plan.page -->"
END = "<!-- to here -->"


def with_steps(page: str) -> str:
    """Return a page with all that stands between its two marks made anew.

    :raise ValueError: it does not have the two marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs a line '{BEGIN}' and below it a line '{END}'")
    sections = "\n\n".join(_section(action) for action in ACTIONS)
    return f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}"


def example_of(action: type[Action]) -> str:
    """Return the kind's example as an item of a plan's ``steps``."""
    return indent(action.example.strip(), "  ").replace("  ", "- ", 1)


def _section(action: type[Action]) -> str:
    told = inspect.cleandoc(action.__doc__ or "").replace("``", "`")
    example = f"```yaml\n{example_of(action)}\n```"
    return "\n\n".join([f"### `{action.key}`", told, _arguments(action), example])


def _arguments(action: type[Action]) -> str:
    schema = TypeAdapter(action).json_schema()
    mapping = _mapping(schema, schema)
    if mapping is None:
        return f"Its value: {_choices(schema)}."
    rows = [f"| `{key}` | {meaning} | {default} |" for key, meaning, default in _rows(mapping, schema)]
    return "\n".join(["| key | meaning | default |", "|---|---|---|", *rows])


def _choices(schema: dict[str, Any]) -> str:
    """Return the values that a schema lists or gives as examples, or else their type."""
    listed = [f"`{value}`" for value in schema.get("enum", ()) if isinstance(value, str)]
    examples = [f"`{value}`" for value in schema.get("examples", ())]
    if listed:
        return " or ".join([", ".join(listed[:-1]), listed[-1]])
    return f"for example {' or '.join(examples)}" if examples else f"of type {schema['type']}"


def _rows(mapping: dict[str, Any], root: dict[str, Any], above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield key, meaning and default of each key, and below a key those of the mappings that it holds."""
    for key, schema in mapping["properties"].items():
        required = key in mapping.get("required", ())
        default = f"`{_in_yaml(schema['default'])}`" if "default" in schema else "none"
        inner = _mapping(schema, root)
        meaning = schema.get("description") or (inner or {}).get("description", "")
        yield f"{above}{key}", meaning.partition("\n")[0], "required" if required else default
        if inner is not None and not above:
            yield from _rows(inner, root, f"{key}.")


def _mapping(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the mapping with known keys that a schema is, or is one choice or item of."""
    if "properties" in schema:
        return schema
    if "$ref" in schema:
        return _mapping(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    inside = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    return next((found for one in inside if (found := _mapping(one, root))), None)


def _in_yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(with_steps(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
