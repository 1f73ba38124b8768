# SPDX-License-Identifier: MIT
"""What the models of plans and guest profiles have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    StrictStr,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

#: A text that is not empty.
Text = Annotated[StrictStr, Field(min_length=1)]


def _complete_schema(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Write defaults as YAML has them, and add what the model says of its keys."""
    for name, field in model.model_fields.items():
        written = schema["properties"][field.alias or name]
        for serializer in field.metadata:
            if isinstance(serializer, PlainSerializer) and not field.is_required():
                # Every serializer of a size or a duration takes the value alone.
                written["default"] = serializer.func(field.default)  # type: ignore[call-arg]
        if field.default is None:
            # That a key is left out is not written as a value.
            written.pop("default", None)
    if issubclass(model, YamlModel):
        schema.update(model.schema_rules)


class YamlModel(BaseModel):
    """A mapping in a YAML file: unknown keys are errors, and once read it does not change.

    :cvar schema_rules: what JSON Schema can say of how its keys go together; its validators say it in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_complete_schema)

    schema_rules: ClassVar[dict[str, Any]] = {}


class ShortForm(YamlModel):
    """A mapping that a text may stand for: the value of one key, the rest being left out.

    :cvar short_key: that key, as it is written.
    """

    short_key: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _spell_out_short_form(cls, value: object) -> object:
        return {cls.short_key: value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return a schema that shows both ways to write it."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        mapping = dict(schema)
        written = mapping["properties"][cls.short_key]
        schema.clear()
        text = {key: value for key, value in written.items() if key not in ("title", "description")}
        schema["anyOf"] = [text, mapping]
        return schema


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("an empty list; allowed: at least one")
    return values


class NotEmpty:
    """Annotates a tuple that must not be empty.

    Pydantic's own ``min_length`` counts only the valid values and so finds a list too short that merely holds
    a wrong value.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the list once its values are."""
        return core_schema.no_info_after_validator_function(_not_empty, handler(source))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Say it in JSON Schema."""
        return {**handler(schema), "minItems": 1}


def error_at(message: str, *at: str | int) -> PydanticCustomError:
    """Return the error that a model's validator raises about a value below the model."""
    # The message goes in as a value: in a template its braces would be taken for placeholders.
    return PydanticCustomError("located", "{message}", {"message": message, "at": at})
