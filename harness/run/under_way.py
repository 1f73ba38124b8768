# SPDX-License-Identifier: MIT
"""A step while it is carried out: what is known of it so far, at any time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError
from harness.evidence.effect import Effect
from harness.evidence.incident import Incident
from harness.evidence.judge import outstanding
from harness.evidence.witness import (
    GuestState,
    ObservedRecord,
    OspmStatus,
    Seen,
    StepBegun,
    StepEvidence,
    VmState,
)
from harness.plan.plan import Step
from harness.steps.stage import Acts
from harness.vm.hotplug_answers import ospm_status
from harness.wires.qmp import Listener


class OspmAnswers:
    """What the guest's ACPI answers for as long as the plan runs, told step by step."""

    def __init__(self, heard: Listener) -> None:
        self._heard = heard
        self._told = 0

    def untold(self) -> tuple[OspmStatus, ...]:
        """Return what came since :meth:`take`."""
        return tuple(ospm_status(event) for event in self._heard.events[self._told :])

    def take(self) -> tuple[OspmStatus, ...]:
        """Return what came since the last call, or at all; it is told."""
        answers = self.untold()
        self._told += len(answers)
        return answers

    def wait(self, enough: Callable[[], bool], *, deadline: Deadline) -> None:
        """Wait until enough has come, or the deadline.

        :raise QmpLostError: the connection to QEMU ended before.
        """
        # None in time is for the judge to say.
        with suppress(DeadlineExpiredError):
            self._heard.wait(lambda _events: enough(), deadline=deadline)


@dataclass(slots=True)
class StepUnderWay:
    """What the witnesses have said of a step that has begun."""

    step: Step
    effect: Effect
    before: Seen
    acted_at_s: float
    ospm: OspmAnswers
    vm: VmState
    guest: GuestState | None
    acts: Acts = field(default_factory=Acts)
    records: list[ObservedRecord] = field(default_factory=list)
    incidents: tuple[Incident, ...] = ()

    def begun(self) -> StepBegun:
        """Return what is known so far."""
        due_from_s = self.acts.due_from_s
        return StepBegun(
            number=self.step.number,
            title=self.step.title,
            key=self.step.action.key,
            effect=self.effect,
            acted_at_s=self.acted_at_s,
            due_from_s=self.acted_at_s if due_from_s is None else due_from_s,
            within_s=self.step.within_s,
            devices=tuple(self.acts.devices),
            vm_before=self.before.vm,
            guest_before=self.before.guest,
            ospm=self.ospm.untold(),
            records=tuple(self.records),
            refused=self.acts.refused,
            answered=self.acts.answered,
            announced=tuple(self.acts.announced),
            incidents=self.incidents,
        )

    def evidence(self) -> StepEvidence:
        """Return what is known so far as if the step had come to its end."""
        return self.begun().finished(vm_after=self.vm, guest_after=self.guest)

    def await_ospm(self, *, deadline: Deadline) -> None:
        """Wait until the guest's ACPI has answered all that it must, or the deadline.

        :raise QmpLostError: the connection to QEMU ended before.
        """
        self.ospm.wait(lambda: "ospm" not in outstanding(self.evidence()), deadline=deadline)

    def deadline(self) -> Deadline:
        """Return by when everything must have happened."""
        return Deadline(self.begun().due_from_s + self.step.within_s)
