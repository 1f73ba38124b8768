# SPDX-License-Identifier: MIT
"""Judges what QEMU said to a command of the plan's own: the answer, or the refusal with its text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.evidence.mismatch import Mismatch
from harness.evidence.witness import StepEvidence


def reply_mismatches(evidence: StepEvidence) -> Iterator[Mismatch]:
    """What QEMU said to the plan's own command."""
    wanted, answered = evidence.effect.reply, evidence.answered
    if wanted is None:
        return
    what = f"QEMU's reply to {wanted.command}"
    if answered is None or answered.command != wanted.command:
        raise ValueError(f"the evidence of step {evidence.number} holds no reply to {wanted.command}")
    seen = (
        f"refused: {answered.refused}" if answered.refused is not None else f"answered: {answered.returned}"
    )
    if wanted.refused is not None:
        if answered.refused is None or not re.search(wanted.refused, answered.refused):
            yield Mismatch(
                evidence.number, evidence.title, "vm", what, f"a refusal that matches {wanted.refused}", seen
            )
    elif answered.refused is not None or not _holds(answered.returned, wanted.returns):
        with_what = f"an answer with {dict(wanted.returns)}" if wanted.returns is not None else "an answer"
        yield Mismatch(evidence.number, evidence.title, "vm", what, with_what, seen)


def _holds(returned: Any, wanted: Any) -> bool:
    """Return whether an answer has at least the keys and values wanted; lists have them at their places."""
    if wanted is None:
        return True
    if isinstance(wanted, Mapping):
        return isinstance(returned, Mapping) and all(
            key in returned and (value is None or _holds(returned[key], value))
            for key, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(returned, list | tuple)
            and len(returned) == len(wanted)
            and all(_holds(one, other) for one, other in zip(returned, wanted, strict=True))
        )
    return type(returned) is type(wanted) and bool(returned == wanted)
