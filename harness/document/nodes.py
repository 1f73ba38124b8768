# SPDX-License-Identifier: MIT
"""Reads one YAML document into plain values and remembers the place of every key and value.

Only what a hand-written plan needs is let through: mappings with text keys, lists, texts, numbers, booleans
and null. Anchors and aliases work; tags, merge keys and documents that expand without end are refused.

Nothing is read as something else than a person sees. YAML 1.1 takes ``yes`` and ``off`` for booleans; here
they are texts. It reads ``020`` as 16 and ``1:30`` as 90; here they are refused. ``0x10`` means one thing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

#: Where in a document something is: mapping keys and list positions from the top.
KeyPath = tuple[str | int, ...]

#: A hand-written file has a few hundred values; aliases can make a small file expand without end.
_MOST_VALUES = 20_000
#: Keys are nodes too.
_MOST_NODES = 2 * _MOST_VALUES

_STANDARD_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_STANDARD_TAG + name for name in ("bool", "float", "int", "null", "str")}

# YAML 1.2.2, section 10.3.2, has no more; with the sign that people may write.
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_NUMBER = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*|0[xX][0-9a-fA-F]+|(?:0|[1-9][0-9]*)?\.[0-9]*(?:[eE][-+]?[0-9]+)?)"
)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line and a column, both counted from 1."""

    line: int
    column: int

    @classmethod
    def after(cls, text: str) -> Place:
        """Return the place just behind a text that starts the file."""
        return cls(text.count("\n") + 1, len(text) - text.rfind("\n"))


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a YAML document and the places they were read from."""

    values: object
    value_places: dict[KeyPath, Place]
    key_places: dict[KeyPath, Place]
    written: dict[KeyPath, str] = field(default_factory=dict)  #: of numbers, booleans and nothing: as written

    def place_of_value(self, at: KeyPath) -> Place:
        """Return the place of a value, or of the nearest value around it that is written down."""
        while at and at not in self.value_places:
            at = at[:-1]
        return self.value_places[at]

    def place_of_key(self, at: KeyPath) -> Place:
        """Return the place of a key, or of the nearest value around it that is written down."""
        return self.key_places.get(at) or self.place_of_value(at)


class NotYamlError(Exception):
    """A text is not a YAML document of plain values; :attr:`place` says where."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


def read_document(text: str) -> Document:
    """Return the values of the one document in a text, with their places.

    :raise NotYamlError: the text is anything else.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise NotYamlError("the file is empty", Place(1, 1))
        return _Reader(loader).document(node)
    except yaml.reader.ReaderError as error:
        character = f"U+{ord(text[error.position]):04X}"
        place = Place.after(text[: error.position])
        raise NotYamlError(f"not YAML: the character {character} is not allowed", place) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise NotYamlError(f"not YAML: {problem}", _place(mark) if mark else Place(1, 1)) from error
    except RecursionError as error:
        raise NotYamlError("lists or mappings are nested too deeply", Place(1, 1)) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which dates and merge keys are ordinary texts."""

    # PyYAML keeps its tables of tags per first character on the class.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, _BOOL if tag.endswith(":bool") else pattern)
            for tag, pattern in resolvers
            if tag in _PLAIN_TAGS
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes_left = _MOST_NODES

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read one value and what is in it, as long as there are not too many for any file of a person's."""
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise NotYamlError(f"more than {_MOST_VALUES} values", Place(self.line + 1, self.column + 1))
        return super().compose_node(parent, index)


@dataclass(slots=True)
class _Reader:
    loader: _Loader
    value_places: dict[KeyPath, Place] = field(default_factory=dict)
    key_places: dict[KeyPath, Place] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    values_left: int = _MOST_VALUES
    open_nodes: set[int] = field(default_factory=set)  # those being read, to notice one inside itself

    def document(self, node: yaml.Node) -> Document:
        return Document(self._value(node, ()), self.value_places, self.key_places, self.written)

    def _value(self, node: yaml.Node, at: KeyPath) -> object:
        self.value_places[at] = _place(node.start_mark)
        self.values_left -= 1
        if self.values_left < 0:
            self._fail(f"more than {_MOST_VALUES} values once aliases are followed", node)
        if id(node) in self.open_nodes:
            self._fail("an alias to a value that contains it", node)
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, at)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*at, index)) for index, item in enumerate(node.value)]
            value = self._scalar(node)
            if not isinstance(value, str):
                self.written[at] = node.value
            return value
        finally:
            self.open_nodes.remove(id(node))

    def _mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._fail("a key that is not a word", key_node)
            if key in values:
                first = self.key_places[(*at, key)].line
                self._fail(
                    f"duplicated key '{key}', first given in line {first}; allowed: each key once", key_node
                )
            self.key_places[(*at, key)] = _place(key_node.start_mark)
            values[key] = self._value(value_node, (*at, key))
        return values

    def _scalar(self, node: yaml.Node) -> object:
        if node.tag not in _PLAIN_TAGS:
            tag = node.tag.removeprefix(_STANDARD_TAG)
            self._fail(f"a value of the type '{tag}'; allowed: texts, numbers, true and false", node)
        try:
            value: object = self.loader.construct_object(node)
            str(value).encode("utf-8")
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._check_number(node)
        # What PyYAML lets through for '!!int x', '!!int ""' and '!!bool x', and for a lone surrogate.
        except (ValueError, IndexError, KeyError) as error:
            raise NotYamlError("not a valid value of its type", _place(node.start_mark)) from error
        return value

    def _check_number(self, node: yaml.Node) -> None:
        if _NUMBER.fullmatch(node.value) is None:
            self._fail(
                f"{node.value} is not the number that YAML reads in it; allowed: a decimal number such as 20,"
                f" or a text in quotes: '{node.value}'",
                node,
            )

    def _fail(self, message: str, node: yaml.Node) -> NoReturn:
        raise NotYamlError(message, _place(node.start_mark))


def _place(mark: yaml.Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)
