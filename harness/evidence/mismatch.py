# SPDX-License-Identifier: MIT
"""One place where what a witness saw differs from what the plan expects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.evidence.incident import Incident
from harness.evidence.witness import WITNESSES, Witness

BEFORE_FIRST_STEP = "before the first step"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An expectation that did not hold, and the witness that says so."""

    step: int  #: from 1; 0 for what came before the first step
    title: str
    witness: Witness
    what: str
    expected: str
    seen: str
    is_incident: bool = False  #: it ended the guest under the step, so it counts whatever the plan requires


@dataclass(frozen=True, slots=True)
class About:
    """The step that mismatches of one witness are about."""

    step: int
    title: str
    witness: Witness

    def mismatch(self, what: str, expected: object, seen: object) -> Mismatch:
        """Return a mismatch of that step and witness."""
        return Mismatch(self.step, self.title, self.witness, what, str(expected), str(seen))


def by_blame(mismatches: Iterable[Mismatch]) -> tuple[Mismatch, ...]:
    """Return the mismatches by step and, within a step, by layer: what broke first comes first."""
    return tuple(sorted(mismatches, key=lambda mismatch: (mismatch.step, WITNESSES.index(mismatch.witness))))


def first_broken(mismatches: Iterable[Mismatch]) -> Mismatch | None:
    """Return the mismatch to blame: that of the first layer that broke in the first step that did."""
    return next(iter(by_blame(mismatches)), None)


def refused_before_first_step(reason: str) -> Mismatch:
    """Return the mismatch of a driver that could not even be started for the plan."""
    what = "the driver did not start"
    return Mismatch(0, BEFORE_FIRST_STEP, "driver", what, "driver start succeeds", reason)


def crashed(step: int, title: str, words: str) -> Mismatch:
    """Return the mismatch of a driver that crashed in a step, with what the guest said of it."""
    return Mismatch(step, title, "driver", "the driver crashed", "it runs on", words)


def misused(step: int, title: str, words: str) -> Mismatch:
    """Return the mismatch of a driver that called its system wrongly, with what the guest said of it."""
    return Mismatch(
        step,
        title,
        "driver",
        "the driver misused the PnP manager",
        "what is registered is given back once",
        words,
    )


def unended_log(step: int, title: str, reason: str) -> Mismatch:
    """Return what to say, beside what failed, of a log whose end could not be judged."""
    return Mismatch(step, title, "driver", "the end of the driver's log", "a whole line", reason)


def gone_before_first_step(incident: Incident) -> Mismatch:
    """Return the mismatch of a guest that did not live until the first step, with the driver in it."""
    return Mismatch(
        0, BEFORE_FIRST_STEP, "guest", incident.what, "the guest runs on", incident.details, is_incident=True
    )
