# SPDX-License-Identifier: MIT
"""Loads a YAML file into a pydantic model; every error says ``file:line:column``.

:func:`load_model` is the one way plans and guest profiles are read: the text becomes plain values that know
their places (:mod:`harness.document.nodes`), the model checks them, and what it finds wrong is said again in
plain words (:mod:`harness.document.explain`) at the place it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from harness.document.explain import Finding, explain
from harness.document.nodes import Document, NotYamlError, Place, read_document
from harness.errors import PlanError, ProfileError

#: Far more than anybody writes by hand, and read in a moment.
MOST_BYTES = 1 << 20

Model = TypeVar("Model", bound=BaseModel)
LoadError = TypeVar("LoadError", PlanError, ProfileError)


@dataclass(frozen=True, slots=True)
class Source(Generic[LoadError]):
    """The file a model came from, able to point at any part of it."""

    path: Path
    text: str
    document: Document
    error_class: type[LoadError]

    def error(self, message: str, *at: str | int) -> LoadError:
        """Return an error about the value at these keys, or about the nearest one that is written down."""
        return self._located(message, self.document.place_of_value(at))

    def first_error(self, findings: list[Finding]) -> LoadError:
        """Return the finding that comes first in the file, as an error that counts the others.

        A missing key comes last: when it is merely misspelt, the unknown key that is there says so.
        """
        first = min(findings, key=lambda finding: (finding.about_absence, self._place(finding)))
        others = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return self._located(first.message + others, self._place(first))

    def _place(self, finding: Finding) -> Place:
        find = self.document.place_of_key if finding.about_key else self.document.place_of_value
        return find(finding.at)

    def _located(self, message: str, place: Place) -> LoadError:
        return self.error_class(message, file=str(self.path), line=place.line, column=place.column)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model, LoadError]):
    """A model and the file it came from."""

    model: Model
    source: Source[LoadError]


def load_model(path: Path, model: type[Model], error_class: type[LoadError]) -> Loaded[Model, LoadError]:
    """Read a YAML file into a model.

    :raise PlanError or ProfileError: as ``error_class`` says, for the first of all errors in the file.
    """
    text = _read_text(path, error_class)
    try:
        document = read_document(text)
    except NotYamlError as error:
        place = error.place
        raise error_class(str(error), file=str(path), line=place.line, column=place.column) from error
    source = Source(path, text, document, error_class)
    try:
        return Loaded(model.model_validate(document.values), source)
    except ValidationError as error:
        findings = [explain(model, details, document.written) for details in error.errors(include_url=False)]
        raise source.first_error(findings) from error


def _read_text(path: Path, error_class: type[LoadError]) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise error_class(f"cannot be read: {error.strerror}", file=str(path)) from error
    if len(data) > MOST_BYTES:
        raise error_class("larger than 1 MiB; allowed: a file that a person writes", file=str(path))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = Place.after(data[: error.start].decode("utf-8"))
        message = f"not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise error_class(message, file=str(path), line=place.line, column=place.column) from error
