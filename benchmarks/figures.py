# SPDX-License-Identifier: MIT
"""What a benchmark found: figures with their samples and targets, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    :ivar samples: what ``value`` is the median of; empty for a number computed from others.
    :ivar bound: how ``value`` must relate to ``target``; None for a figure without a target.
    """

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()
    bound: Literal["at most", "at least"] | None = None
    target: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.bound == "at most" else self.value >= self.target

    def at_most(self, target: float) -> Figure:
        """Return the figure with a largest value."""
        return self._with("at most", target)

    def at_least(self, target: float) -> Figure:
        """Return the figure with a smallest value."""
        return self._with("at least", target)

    def to_json(self) -> dict[str, Any]:
        """Return the figure as JSON."""
        return {
            "name": self.name,
            "value": round(self.value, 6),
            "unit": self.unit,
            "samples": [round(sample, 6) for sample in self.samples],
            "bound": self.bound,
            "target": self.target,
            "holds": self.holds,
        }

    def _with(self, bound: Literal["at most", "at least"], target: float) -> Figure:
        return Figure(
            name=self.name, value=self.value, unit=self.unit, samples=self.samples, bound=bound, target=target
        )


def median_of(name: str, samples: Iterable[float], unit: str = "s") -> Figure:
    """Return the median of the samples as a figure.

    :raise ValueError: for no sample.
    """
    taken = tuple(samples)
    if not taken:
        raise ValueError(f"no sample of '{name}'")
    return Figure(name=name, value=median(taken), unit=unit, samples=taken)


def ratio_of(name: str, numerator: Figure, denominator: Figure) -> Figure:
    """Return how many times the one figure is the other."""
    return Figure(name=name, value=numerator.value / denominator.value, unit="x")


def table(benchmark: str, figures: Sequence[Figure]) -> list[str]:
    """Return the figures as lines for people."""
    width = max(len(figure.name) for figure in figures)
    return [benchmark, *(f"  {figure.name:{width}}  {_row(figure)}" for figure in figures)]


def _row(figure: Figure) -> str:
    row = f"{_number(figure.value):>9} {figure.unit:13}"
    if len(figure.samples) > 1:
        low, high = _number(min(figure.samples)), _number(max(figure.samples))
        row += f" median of {len(figure.samples)}, {low} to {high}"
    if figure.holds is not None:
        verdict = "holds" if figure.holds else "MISSED"
        row += f" [{verdict}: {figure.bound} {_number(figure.target or 0)}]"
    return row.rstrip()


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
