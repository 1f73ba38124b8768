# SPDX-License-Identifier: MIT
"""Whether what a step lacks is the bench's own fault: its parts are asked for before anybody is blamed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.deadline import Deadline
from harness.errors import DriverCrashedError
from harness.evidence.mismatch import Mismatch, crashed, first_broken
from harness.evidence.witness import StepEvidence
from harness.guest.guest import Guest
from harness.run.stalled import check_it_had_its_time


def check_the_bench(
    found: Sequence[Mismatch], evidence: StepEvidence, guest: Guest, *, deadline: Deadline
) -> Mismatch | None:
    """Do nothing unless something is wrong with a step or crashed in it, and the bench may be the cause.

    Returns what is to be said first of a driver that crashed.

    :raise VmStalledError: see :func:`check_it_had_its_time`.
    :raise GuestError: a part of the bench in the guest is not in order, naming it.
    """
    if found:
        check_it_had_its_time(evidence, guest.vm.heartbeat)
    # A guest that is gone cannot be asked.
    if evidence.effect.boot == "none" or evidence.incidents:
        return None
    # What is told by QEMU alone, no part in the guest has a hand in.
    first = first_broken(found)
    if (first is None or first.witness not in ("guest", "driver")) and guest.crash() is None:
        return None
    try:
        guest.check_parts(deadline=deadline)
    except DriverCrashedError as err:
        return crashed(evidence.number, evidence.title, str(err))
    return None
