# SPDX-License-Identifier: MIT
"""``-k EXPRESSION``: which of the plans to run, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import UsageError

_Chooses = Callable[[str], bool]
_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")


def chosen_plans(expression: str | None, paths: Sequence[Path]) -> list[Path]:
    """Return the plans whose name, without folder and ending, the expression chooses; without one, all.

    :raise UsageError: it is no expression, or chooses none.
    """
    if expression is None:
        return list(paths)
    chooses = _Parser(expression).parse()
    found = [path for path in paths if chooses(path.stem.casefold())]
    if not found:
        raise UsageError(f"-k {expression!r}: chooses none of {len(paths)} plans")
    return found


class _Parser:
    """``or`` binds least, then ``and``, then ``not``, as in Python and in pytest's ``-k``."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = _TOKEN.findall(expression)

    def parse(self) -> _Chooses:
        chooses = self._either()
        if self._tokens:
            raise self._error(f"{self._tokens[0]!r} is too much")
        return chooses

    def _either(self) -> _Chooses:
        left = self._both()
        while self._next_is("or"):
            left = _any_of(left, self._both())
        return left

    def _both(self) -> _Chooses:
        left = self._one()
        while self._next_is("and"):
            left = _all_of(left, self._one())
        return left

    def _one(self) -> _Chooses:
        if self._next_is("not"):
            refused = self._one()
            return lambda name: not refused(name)
        if self._next_is("("):
            inside = self._either()
            if not self._next_is(")"):
                raise self._error("a ) is missing")
            return inside
        if not self._tokens or self._tokens[0] in (")", "and", "or"):
            raise self._error("a part of a name is missing")
        part = self._tokens.pop(0).casefold()
        return lambda name: part in name

    def _next_is(self, token: str) -> bool:
        if self._tokens[:1] != [token]:
            return False
        self._tokens.pop(0)
        return True

    def _error(self, what: str) -> UsageError:
        return UsageError(f"-k {self._expression!r}: {what}; allowed: parts of names, and, or, not, ( and )")


def _any_of(left: _Chooses, right: _Chooses) -> _Chooses:
    return lambda name: left(name) or right(name)


def _all_of(left: _Chooses, right: _Chooses) -> _Chooses:
    return lambda name: left(name) and right(name)
