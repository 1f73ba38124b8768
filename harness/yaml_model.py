# SPDX-License-Identifier: MIT
"""What the models of plans and guest profiles have in common."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer
from pydantic_core import PydanticCustomError


def _write_defaults_as_yaml(schema: dict[str, Any], model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        for serializer in field.metadata:
            if isinstance(serializer, PlainSerializer) and not field.is_required():
                # Every serializer of a size or a duration takes the value alone.
                schema["properties"][field.alias or name]["default"] = serializer.func(field.default)  # type: ignore[call-arg]


class YamlModel(BaseModel):
    """A mapping in a YAML file: unknown keys are errors, and once read it does not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_write_defaults_as_yaml)


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("an empty list; allowed: at least one")
    return values


#: Annotates a tuple that must not be empty. Pydantic's own ``min_length`` counts only the valid values and so
#: finds a list too short that merely holds a wrong value.
NotEmpty = AfterValidator(_not_empty)


def error_at(message: str, *at: str | int) -> PydanticCustomError:
    """Return the error that a model's validator raises about a value below the model."""
    # The message goes in as a value: in a template its braces would be taken for placeholders.
    return PydanticCustomError("located", "{message}", {"message": message, "at": at})
