# SPDX-License-Identifier: MIT
"""Whether what a step lacks is the bench's own fault: its parts are asked for before anybody is blamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from harness.deadline import Deadline
from harness.errors import (
    DeadlineExpiredError,
    DriverCrashedError,
    GuestCommandError,
    GuestUnreachableError,
)
from harness.evidence.mismatch import Mismatch, crashed, first_broken, misused
from harness.evidence.witness import StepEvidence
from harness.guest.guest import Guest
from harness.run.stalled import check_it_had_its_time

#: One fault, one wait: a guest that did not answer in time is not waited for as long again.
ASKED_WITHIN_S = 5.0


@contextmanager
def naming_the_cause(guest: Guest) -> Iterator[None]:
    """Ask for the bench's parts when a program in the guest dies or says nothing in the block.

    What it depends on may be what has ended, and is to be named then.

    :raise GuestError: a part of the bench in the guest is not in order, naming it.
    """
    try:
        yield
    except (GuestCommandError, DeadlineExpiredError):
        with suppress(DeadlineExpiredError, GuestUnreachableError, DriverCrashedError):
            guest.check_parts(deadline=Deadline.after(ASKED_WITHIN_S))
        raise


def check_the_bench(
    found: Sequence[Mismatch], evidence: StepEvidence, guest: Guest, *, deadline: Deadline
) -> tuple[Mismatch, ...]:
    """Ask for the bench's parts if something is wrong with a step, or crashed in it, and they may be why.

    Returns what is to be said first: what the guest said of a driver that crashed, or called it wrongly.

    :raise VmStalledError: see :func:`check_it_had_its_time`.
    :raise GuestError: a part of the bench in the guest is not in order, naming it.
    """
    if found:
        check_it_had_its_time(evidence, guest.vm.heartbeat)
    # A guest that is gone cannot be asked.
    if evidence.effect.boot == "none" or evidence.incidents:
        return ()
    said = guest.misuse()
    misuse = () if said is None else (misused(evidence.number, evidence.title, said),)
    # What is told by QEMU alone, no part in the guest has a hand in.
    first = first_broken(found)
    if (first is None or first.witness not in ("guest", "driver")) and guest.crash() is None:
        return misuse
    try:
        guest.check_parts(deadline=deadline)
    except DriverCrashedError as err:
        return (crashed(evidence.number, evidence.title, str(err)), *misuse)
    return misuse
