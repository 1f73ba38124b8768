# SPDX-License-Identifier: MIT
"""Judges a run: what each step must lead to and the witnesses' evidence in, mismatches out.

Pure: no clock, no file, no connection, and no knowledge of plans, profiles or step kinds: a step's evidence
carries its :class:`~harness.evidence.effect.Effect`. No mismatch means passed, and any means that the product
is wrong; a bench that broke never gets here. Four layers can be to blame, and they are asked in this order:

=========  =============================================  ==================================
``vm``     did QEMU plug it?                              :mod:`harness.evidence.judge_vm`
``ospm``   did the guest's ACPI take it?                  :mod:`harness.evidence.judge_ospm`
``guest``  does the operating system use it?              :func:`_guest`
``driver`` was the driver told, once, in order, in time?  :class:`harness.evidence.judge_driver.DriverJudge`
=========  =============================================  ==================================

What ended the guest under the step, such as a restart, comes before all of them: the rest follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from harness.document.units import format_duration
from harness.evidence.driver_rules import DriverRules, told_once
from harness.evidence.effect import DeviceKind, Effect
from harness.evidence.judge_driver import DriverJudge
from harness.evidence.judge_figures import MOST_BOOT_SLACK_BYTES
from harness.evidence.judge_interfaces import Links
from harness.evidence.judge_ospm import is_answered, ospm_mismatches
from harness.evidence.judge_reply import reply_mismatches
from harness.evidence.judge_told import is_told, told_mismatches, untold_links
from harness.evidence.judge_vm import vm_mismatches, wanted_run_state, with_more
from harness.evidence.mismatch import Mismatch, by_blame, first_broken
from harness.evidence.witness import ObservedRecord, StepEvidence, VmState, Witness

__all__ = ["Mismatch", "RunJudge", "first_broken", "mismatches", "outstanding"]

_ANY_DRIVER = DriverRules()


def mismatches(evidence: StepEvidence) -> Iterator[Mismatch]:
    """Yield where the step's effect is not what vm, ospm and guest saw; the driver has a judge of its own.

    :raise ValueError: the evidence is not of a step with this effect, so that nothing passes by mistake.
    """
    _check_evidence_is_of_its_effect(evidence)
    if evidence.incidents:
        yield _incident(evidence)
        return
    yield from vm_mismatches(evidence)
    yield from reply_mismatches(evidence)
    yield from ospm_mismatches(evidence)
    yield from _guest(evidence)
    yield from told_mismatches(evidence)


def outstanding(evidence: StepEvidence) -> frozenset[Witness]:
    """Return the witnesses that have not yet shown all of the step's effect: those worth asking again.

    Only what is missing counts; what is there beyond the effect no waiting takes away.
    """
    effect, missing = evidence.effect, set[Witness]()
    if not _has(evidence.vm_after, effect) or evidence.vm_after.run_state != wanted_run_state(evidence):
        missing.add("vm")
    if not is_told(evidence):
        missing.add("guest")
    if not is_answered(evidence):
        missing.add("ospm")
    before, after = evidence.guest_before, evidence.guest_after
    if before is not None and after is not None:
        slack_bytes = _boot_slack_bytes(effect)
        if _behind(after.active_processors - before.active_processors, effect.processors) or _behind(
            after.memory_bytes - before.memory_bytes, effect.memory_bytes, slack=slack_bytes
        ):
            missing.add("guest")
    told_of = told_once(observed.record for observed in evidence.records)
    if evidence.refused is None and len(told_of) < len(effect.records):
        missing.add("driver")
    return frozenset(missing)


class RunJudge:
    """Judges a run while it goes on, each step once, however many there have been.

    :param steps: how many the plan has.
    :param required: the witnesses whose mismatches count.
    :param links: what the symbolic links of each interface class must look like; none if there is no driver.
    :param driver: how the driver was set up; as usual unless given.
    :param earlier: the driver's records from before the first step, so that a gap, a repeated arrival or a
        wrong baseline there is noticed too.
    """

    def __init__(
        self,
        *,
        steps: int,
        required: Sequence[Witness],
        links: Links,
        driver: DriverRules = _ANY_DRIVER,
        earlier: Sequence[ObservedRecord] = (),
    ) -> None:
        self._steps = steps
        self._required = required
        self._earlier = earlier
        self._driver = DriverJudge(links, driver)
        self._driver_before = self._driver  #: as it was before the last step judged
        self._number = 0
        self._boot_id: str | None = None  #: of the guest at the end of the step before the last one judged
        self._last: StepEvidence | None = None
        self._found: list[Mismatch] = []  #: before the last step judged
        self._found_last: list[Mismatch] = []

    def step(self, evidence: StepEvidence) -> tuple[Mismatch, ...]:
        """Judge the next step, or the last one again of which more is known now.

        Returns what is not as planned so far, the first broken layer first.

        :raise ValueError: the evidence is not of that step.
        """
        if evidence.number == self._number + 1 <= self._steps:
            self._number += 1
            self._found += self._found_last
            if self._number == 1:
                self._found += self._driver.before_first_step(
                    self._earlier, evidence.guest_before, evidence.vm_before
                )
            self._driver_before = self._driver.copy()
            ended = None if self._last is None else self._last.guest_after
            self._boot_id = None if ended is None else ended.boot_id
        elif evidence.number == self._number:
            self._driver = self._driver_before.copy()
        else:
            steps = f"{self._number} of {self._steps} steps"
            raise ValueError(f"evidence of step {evidence.number} after that of {steps}")
        self._found_last = [*self._booted_in_between(evidence), *mismatches(evidence)]
        self._last = evidence
        if not evidence.incidents:
            found = list(self._driver.step(evidence))
            # What was wrong with a record otherwise is not told twice.
            self._found_last += found or untold_links(evidence)
        return self.mismatches()

    def _booted_in_between(self, evidence: StepEvidence) -> Iterator[Mismatch]:
        guest = evidence.guest_before
        if guest is not None and self._boot_id is not None and guest.boot_id != self._boot_id:
            yield _mismatch(
                evidence, "guest", "the guest booted again", f"boot {self._boot_id}", f"boot {guest.boot_id}"
            )

    def mismatches(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned so far, the first broken layer first."""
        found = [*self._found, *self._found_last]
        return by_blame(one for one in found if one.witness in self._required or one.is_incident)

    def verdict(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned, of a run that is over.

        :raise ValueError: steps are missing and nothing is wrong with the others.
        """
        found = self.mismatches()
        if not found and self._number != self._steps:
            raise ValueError(f"evidence of {self._number} steps for a plan of {self._steps}")
        return found


def _check_evidence_is_of_its_effect(evidence: StepEvidence) -> None:
    wanted = [(device.device_id, device.kind, device.size_bytes) for device in evidence.effect.added]
    plugged = [(device.device_id, device.kind, device.size_bytes) for device in evidence.devices]
    if plugged != wanted[: len(plugged)] or (len(plugged) < len(wanted) and not evidence.incidents):
        raise ValueError(f"the evidence of step {evidence.number} is not of '{evidence.title}'")


def _mismatch(
    evidence: StepEvidence, witness: Witness, what: str, expected: object, seen: object
) -> Mismatch:
    return Mismatch(evidence.number, evidence.title, witness, what, str(expected), str(seen))


def _incident(evidence: StepEvidence) -> Mismatch:
    first = evidence.incidents[0]
    after = format_duration(max(0.0, first.at_s - evidence.acted_at_s))
    return Mismatch(
        evidence.number,
        evidence.title,
        "guest",
        f"{first.what} {after} after '{evidence.title}'",
        "the guest runs on",
        first.details,
        is_incident=True,
    )


def _guest(evidence: StepEvidence) -> Iterator[Mismatch]:
    """What the operating system says: more by exactly what was plugged, and of the boot it must be."""
    before, after, effect = evidence.guest_before, evidence.guest_after, evidence.effect
    if before is not None and (after is None) != (effect.boot == "none"):
        answers = ("an answer", "no answer") if after is None else ("no answer", "an answer")
        yield _mismatch(evidence, "guest", "what the guest uses", *answers)
    if before is None or after is None or effect.boot == "none":
        return
    if effect.boot == "same" and after.boot_id != before.boot_id:
        yield _mismatch(
            evidence, "guest", "the guest booted again", f"boot {before.boot_id}", f"boot {after.boot_id}"
        )
    if effect.boot == "new" and after.boot_id == before.boot_id:
        yield _mismatch(
            evidence, "guest", "the guest did not boot again", "another boot id", f"boot {after.boot_id}"
        )
    if before.active_processors + effect.processors != after.active_processors:
        wanted = with_more(before.active_processors, effect.processors)
        yield _mismatch(evidence, "guest", "active processors", wanted, after.active_processors)
    off_bytes = after.memory_bytes - before.memory_bytes - effect.memory_bytes
    if abs(off_bytes) > _boot_slack_bytes(effect):
        seen = f"{after.memory_bytes} ({abs(off_bytes)} too {'many' if off_bytes > 0 else 'few'})"
        wanted = with_more(before.memory_bytes, effect.memory_bytes)
        yield _mismatch(evidence, "guest", "physical memory in bytes", wanted, seen)


def _behind(seen: int, wanted: int, *, slack: int = 0) -> bool:
    """Return whether a change has not come as far as it must, up or down."""
    return seen + slack < wanted if wanted >= 0 else seen - slack > wanted


def _boot_slack_bytes(effect: Effect) -> int:
    return MOST_BOOT_SLACK_BYTES if effect.boot == "new" else 0


def _has(state: VmState, effect: Effect) -> bool:
    there = {name for kind in get_args(DeviceKind) for name in state.present(kind)}
    return {device.device_id for device in effect.added} <= there and not there.intersection(effect.removed)
