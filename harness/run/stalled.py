# SPDX-License-Identifier: MIT
"""Whether a step had the time it is judged by: a QEMU that did not run is not late, nor is its guest."""

from __future__ import annotations

import time

from harness.errors import VmStalledError
from harness.evidence.judge import outstanding
from harness.evidence.judge_ospm import told
from harness.evidence.witness import StepEvidence
from harness.vm.heartbeat import Heartbeat, total_s


def check_it_had_its_time(evidence: StepEvidence, heartbeat: Heartbeat) -> None:
    """Do nothing for a step that failed for another reason than time, or that had all of its time.

    To be called right after the last witness was asked.

    :raise VmStalledError: something is missing or late, and less the stalls ``within`` is not over yet.
    """
    if not outstanding(evidence) and not _is_late(evidence):
        return
    stalls = heartbeat.stalls(since_s=evidence.acted_at_s)
    had_s = time.monotonic() - evidence.due_from_s
    # A stall before that time began delays what follows all the same, so it is subtracted whole.
    had_s -= total_s(stalls)
    if stalls and had_s <= evidence.within_s:
        longest = max(stalls, key=lambda stall: stall.length_s)
        raise VmStalledError(
            f"{longest} in step {evidence.number} ({evidence.title}), so nobody can say"
            " whether what is missing would have come in time; run it again on a host with less to do"
        )


def _is_late(evidence: StepEvidence) -> bool:
    due_s = evidence.due_from_s + evidence.within_s
    told_of = [(answer, one) for answer in evidence.effect.answers for one in told(answer, evidence.ospm)]
    # Another answer than that which was due is wrong at any time, whenever the guest took the device.
    is_wrong = any(one.status not in {*answer.statuses, *answer.passing} for answer, one in told_of)
    since_s = [
        *(one.at_s for answer, one in told_of if one.status in answer.statuses),
        *(one.at_s - one.error_s for one in evidence.aml or () if not is_wrong),
        *(one.written_at_s - one.clock_error_s for one in evidence.records),
    ]
    return any(at_s > due_s for at_s in since_s)
