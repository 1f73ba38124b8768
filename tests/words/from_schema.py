# SPDX-License-Identifier: MIT
"""What a JSON Schema of the project's own lets through, for property tests; and what it does not describe."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator

#: How many items or numbers above the least are tried.
_MORE = 3
#: Regular expressions; each is found in itself.
_PATTERNS = ("Device 'x' not found", "not found", "in use")

_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=_MORE) | st.dictionaries(st.text(), inner, max_size=_MORE),
    max_leaves=5,
)


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return the values that a schema lets through; texts with examples are taken from those."""
    return _values(schema, schema.get("$defs", {})).filter(Draft202012Validator(schema).is_valid)


def undescribed(schema: Any, path: str = "") -> list[str]:
    """Return every key in a JSON Schema that is not described, by where it is."""
    if isinstance(schema, list):
        return [found for index, one in enumerate(schema) for found in undescribed(one, f"{path}/{index}")]
    if not isinstance(schema, dict):
        return []
    keys = schema["properties"] if schema.get("type") == "object" and "properties" in schema else {}
    # A key of its own model's type is described by that model.
    bare = [f"{path}/{key}" for key, value in keys.items() if not {"description", "$ref"} & set(value)]
    return bare + [found for key, one in schema.items() for found in undescribed(one, f"{path}/{key}")]


def _values(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _values(defs[schema["$ref"].removeprefix("#/$defs/")], defs)
    if "properties" in schema:
        return _mappings(schema, defs)
    if "anyOf" in schema:
        return st.one_of(*(_values(choice, defs) for choice in schema["anyOf"]))
    choices = (
        schema.get("enum") or schema.get("examples") or [schema[key] for key in ("const",) if key in schema]
    )
    if choices:
        return st.sampled_from(choices)
    match schema.get("type"):
        case [*types]:
            return st.one_of(*(_values({**schema, "type": one}, defs) for one in types))
        case "integer":
            least, step = schema.get("minimum", 0), schema.get("multipleOf", 1)
            return st.integers(0, _MORE).map(lambda more: least + more * step)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string" if schema.get("format") == "regex":
            return st.sampled_from(_PATTERNS)
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"].removeprefix("^").removesuffix("$"), fullmatch=True)
        case "string":
            return st.text(min_size=schema.get("minLength", 0))
        case "array":
            return st.lists(
                _values(schema["items"], defs), min_size=schema.get("minItems", 0), max_size=_MORE
            )
        case "object":
            keys = _values({"type": "string", **schema.get("propertyNames", {})}, defs)
            inner = schema.get("additionalProperties", True)
            values = _anything if inner is True else _values(inner, defs)
            return st.dictionaries(keys, values, min_size=schema.get("minProperties", 0), max_size=_MORE)
        case _:
            raise NotImplementedError(f"a strategy for {schema}")


def _mappings(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    by_key = {key: _values(value, defs) for key, value in schema["properties"].items()}
    required = {key: by_key.pop(key) for key in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=by_key)
