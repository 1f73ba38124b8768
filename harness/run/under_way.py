# SPDX-License-Identifier: MIT
"""A step while it is carried out: what is known of it so far, at any time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, VmError
from harness.evidence.effect import Effect
from harness.evidence.incident import Incident
from harness.evidence.judge import outstanding
from harness.evidence.witness import (
    AmlAct,
    GuestState,
    ObservedRecord,
    OspmStatus,
    Seen,
    StepBegun,
    StepEvidence,
    Told,
    VmState,
)
from harness.plan.plan import Step
from harness.steps.stage import Acts
from harness.vm.hotplug_answers import ospm_status
from harness.vm.trace import TraceLog
from harness.vm.vm import Vm
from harness.wires.qmp import Listener

#: How often the trace is looked at while something is missing; no event tells that it has grown.
TRACE_POLL_S = 0.02


class OspmSeen:
    """What the guest's ACPI does and answers for as long as the plan runs, told step by step."""

    def __init__(self, heard: Listener, trace: TraceLog | None) -> None:
        self._heard = heard
        self._trace = trace
        self._answers_told = 0
        # What a guest's AML did while it booted is of no step.
        self._acts_told = 0 if trace is None else len(trace.acts())

    @classmethod
    @contextmanager
    def listen(cls, vm: Vm, *, needs_trace: bool) -> Iterator[OspmSeen]:
        """Listen to a VM until the block ends.

        :param needs_trace: nothing else than QEMU's trace events is sure to tell of this guest.
        :raise VmError: and QEMU does not write them.
        """
        if needs_trace and vm.trace is None:
            raise VmError(
                f"this QEMU ({vm.qemu_version}) writes no trace events, by which alone the ACPI of this guest"
                " is seen; use one that was built with the trace backend log, as Debian's and Ubuntu's are"
            )
        with vm.listen("ACPI_DEVICE_OST") as heard:
            yield cls(heard, vm.trace)

    def answers(self) -> tuple[OspmStatus, ...]:
        """Return what was answered since :meth:`added_to`."""
        return tuple(ospm_status(event) for event in self._heard.events[self._answers_told :])

    def acts(self) -> tuple[AmlAct, ...] | None:
        """Return what the AML did since :meth:`added_to`; None if QEMU does not tell."""
        return None if self._trace is None else self._trace.acts()[self._acts_told :]

    def added_to(self, evidence: StepEvidence) -> StepEvidence:
        """Return the evidence with what came since the last call, or at all; it is told."""
        answers, acts = self.answers(), self.acts()
        self._answers_told += len(answers)
        self._acts_told += len(acts or ())
        aml = None if acts is None else (*(evidence.aml or ()), *acts)
        return replace(evidence, ospm=evidence.ospm + answers, aml=aml)

    def wait(self, enough: Callable[[], bool], *, deadline: Deadline) -> None:
        """Wait until enough has come, or the deadline.

        :raise QmpLostError: the connection to QEMU ended before.
        """
        while not enough() and not deadline.expired():
            # None in time is for the judge to say.
            with suppress(DeadlineExpiredError):
                self._heard.wait(lambda _events: enough(), deadline=deadline.sooner(TRACE_POLL_S))


@dataclass(slots=True)
class StepUnderWay:
    """What the witnesses have said of a step that has begun."""

    step: Step
    effect: Effect
    before: Seen
    ospm: OspmSeen
    vm: VmState
    guest: GuestState | None
    acted_at_s: float = field(default_factory=time.monotonic)
    acts: Acts = field(default_factory=Acts)
    records: list[ObservedRecord] = field(default_factory=list)
    told: tuple[Told, ...] | None = None
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
            ospm=self.ospm.answers(),
            records=tuple(self.records),
            aml=self.ospm.acts(),
            told=self.told,
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

    def hear_told(self, told: tuple[Told, ...]) -> None:
        """Add of what programs were told; one that began to listen in the step does not know of all."""
        if self.told is not None:
            self.told += told

    def deadline(self) -> Deadline:
        """Return by when everything must have happened."""
        return Deadline(self.begun().due_from_s + self.step.within_s)
