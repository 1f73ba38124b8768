# SPDX-License-Identifier: MIT
"""One place where what a witness saw differs from what the plan expects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.evidence import WITNESSES, Witness


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An expectation that did not hold, and the witness that says so."""

    step: int  #: from 1; 0 for what came before the first step
    title: str
    witness: Witness
    what: str
    expected: str
    seen: str


def by_blame(mismatches: Iterable[Mismatch]) -> tuple[Mismatch, ...]:
    """Return the mismatches by step and, within a step, by layer: what broke first comes first."""
    return tuple(sorted(mismatches, key=lambda mismatch: (mismatch.step, WITNESSES.index(mismatch.witness))))


def first_broken(mismatches: Iterable[Mismatch]) -> Mismatch | None:
    """Return the mismatch to blame: that of the first layer that broke in the first step that did."""
    return next(iter(by_blame(mismatches)), None)
