# SPDX-License-Identifier: MIT
"""Judges which records a step has led to, and their order, against the words of the plan. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.evidence.effect import RecordOrder
from harness.evidence.mismatch import About, Mismatch

#: What the driver tells of itself; whatever it is told of devices comes before or after them.
_OF_THE_DRIVER = ("load", "baseline", "unload")


def word_mismatches(
    about: About, expected: Sequence[str], seen: Sequence[str], *, order: RecordOrder, driver_runs: bool
) -> Iterator[Mismatch]:
    """Yield that the records are not those that the plan names.

    ``per_device`` leaves the order between devices free, as Windows promises none: which record is of which
    device is not for words to tell, see :mod:`harness.evidence.judge_processors`.
    """
    if list(expected) == list(seen) or (order == "per_device" and _parts(expected) == _parts(seen)):
        return
    yield about.mismatch(
        _difference(expected, seen, driver_runs=driver_runs), _listed(expected), _listed(seen)
    )


def _parts(words: Sequence[str]) -> list[tuple[str, Counter[str]]]:
    """Return the driver's own records in order, each with what it was told of devices before the next one."""
    parts: list[tuple[str, Counter[str]]] = [("", Counter())]
    for word in words:
        if word in _OF_THE_DRIVER:
            parts.append((word, Counter()))
        else:
            parts[-1][1][word] += 1
    return parts


def _difference(expected: Sequence[str], seen: Sequence[str], *, driver_runs: bool) -> str:
    too_few = (Counter(expected) - Counter(seen)).total()
    too_many = (Counter(seen) - Counter(expected)).total()
    if too_many and not driver_runs and not expected:
        return "records while the driver is stopped"
    if not seen:
        return "the driver logged nothing"
    if too_few and too_many:
        return "other records"
    if too_few or too_many:
        number = too_few or too_many
        return f"{number} record{'s' if number > 1 else ''} too {'few' if too_few else 'many'}"
    return "records in another order"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "no record"
