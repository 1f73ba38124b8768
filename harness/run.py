# SPDX-License-Identifier: MIT
"""Run one plan on one bench: plug, let the four witnesses speak, judge, keep the evidence.

:func:`run_plan` is the main path of the whole project, top to bottom.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import BenchError, DeadlineExpiredError, DriverRefusedError
from harness.evidence import ObservedRecord, PluggedDevice, StepEvidence
from harness.guest import Bench, Guest, blaming_vm
from harness.guest_clock import GuestClock
from harness.hotplug_answers import ospm_status
from harness.plan import Plan, Step
from harness.probe import ProbeSample
from harness.profile import required_witnesses
from harness.qmp import Listener
from harness.report import write_evidence
from harness.template import open_guest
from harness.verdict import Outcome, Verdict
from harness.verify import Mismatch, refused_before_first_step, verify, verify_so_far

logger = logging.getLogger(__name__)

DRIVER_LOG_FILE = "driver.log"
CLOCK_SAMPLES = 4
POLL_S = 0.01

StepWatcher = Callable[[Step, Guest], None]
"""Called before each step acts."""


def run_plan(
    plan: Plan, *, bench: Bench, folder: Path, before_step: StepWatcher = lambda _step, _guest: None
) -> Verdict:
    """Run the plan in a VM of its own and return what became of it; the folder holds all evidence.

    A bench that breaks is a verdict too: ``error``. Only what nobody can expect is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(plan.source, folder / "plan.yaml")
    started_s = time.monotonic()
    conduct = _Conduct(plan, bench, folder)
    error: str | None = "interrupted"
    mismatches: tuple[Mismatch, ...] = ()
    try:
        with open_guest(bench, plan, folder=folder) as guest, blaming_vm(guest.vm):
            conduct.begin(guest)
            try:
                for step in plan.unrolled():
                    before_step(step, guest)
                    conduct.perform(step, guest)
                    mismatches = conduct.judge_so_far()
                    if mismatches:
                        break
                if not mismatches:
                    conduct.settle(guest)
            finally:
                conduct.keep_log(guest)
        mismatches = conduct.judge()
        error = None
    except DriverRefusedError as err:
        mismatches = (refused_before_first_step(str(err)),)
        error = None
    except BenchError as err:
        error = str(err)
    finally:
        verdict = Verdict(
            plan=plan.name,
            description=plan.description or "",
            outcome=_outcome(error, mismatches),
            setting=bench.setting(),
            steps=tuple(conduct.steps),
            mismatches=mismatches,
            error=error,
            started_s=started_s,
            duration_s=time.monotonic() - started_s,
            evidence=folder,
        )
        write_evidence(verdict, folder=folder)
    return verdict


def _outcome(error: str | None, mismatches: tuple[Mismatch, ...]) -> Outcome:
    if error is not None:
        return "error"
    return "failed" if mismatches else "passed"


class _Conduct:
    """One plan under way: what has been observed so far."""

    def __init__(self, plan: Plan, bench: Bench, folder: Path) -> None:
        self._plan = plan
        self._profile = bench.profile
        self._folder = folder
        self._required = required_witnesses(plan, bench.profile)
        self._samples: list[ProbeSample] = []
        self._before: tuple[ObservedRecord, ...] = ()
        self.steps: list[StepEvidence] = []

    def begin(self, guest: Guest) -> None:
        """Learn the guest's clock and what the driver logged before the first step."""
        deadline = self._command_deadline()
        self._samples = [guest.probe.sample(deadline=deadline) for _ in range(CLOCK_SAMPLES)]
        self._before = self._poll(guest)

    def perform(self, step: Step, guest: Guest) -> None:
        """Carry out one step and add what the four witnesses said of it."""
        self._add_strays(guest)
        vm_before = guest.vm.state()
        guest_before = self._sample(guest)
        with guest.vm.listen("ACPI_DEVICE_OST") as ost:
            acted_at_s = time.monotonic()
            refused: str | None = None
            devices: tuple[PluggedDevice, ...] = ()
            try:
                devices = self._act(step, guest)
            except DriverRefusedError as err:
                refused = str(err)
            deadline = Deadline(acted_at_s + step.within_s)
            if "ospm" in self._required:
                self._await_ospm(ost, devices, deadline)
            expected = 0 if refused else len(step.expect.driver)
            records = self._await_records(guest, expected, deadline)
            guest_after = self._await_guest(guest, guest_before, devices, deadline)
            if len(records) < expected:
                # Too late is as wrong as never, but not the same defect: look on for as long again.
                missing = expected - len(records)
                records += self._await_records(guest, missing, Deadline.after(step.within_s))
            elif not step.expect.driver:
                records += self._watch_records(guest, self._profile.deadlines.settle_s)
            self.steps.append(
                StepEvidence(
                    number=step.number,
                    title=step.title,
                    acted_at_s=acted_at_s,
                    within_s=step.within_s,
                    devices=devices,
                    vm_before=vm_before,
                    vm_after=guest.vm.state(),
                    ospm=tuple(ospm_status(event) for event in ost.events),
                    guest_before=guest_before.state,
                    guest_after=guest_after.state,
                    records=records,
                    refused=refused,
                )
            )

    def settle(self, guest: Guest) -> None:
        """Give records that nobody expects the time to come; they count against the last step."""
        self._add_strays(guest, self._watch_records(guest, self._profile.deadlines.settle_s))

    def judge_so_far(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned up to the last step carried out."""
        return verify_so_far(self._plan, self._profile, self.steps, earlier=self._before)

    def judge(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned, of a run that is over."""
        return verify(self._plan, self._profile, self.steps, earlier=self._before)

    def keep_log(self, guest: Guest) -> None:
        """Write what the driver logged to the evidence, with its latest lines if the guest still answers."""
        try:
            self._poll(guest)
        except BenchError as err:
            logger.warning("the last lines of the driver's log could not be read: %s", err)
        finally:
            (self._folder / DRIVER_LOG_FILE).write_bytes(guest.log.data)

    def _act(self, step: Step, guest: Guest) -> tuple[PluggedDevice, ...]:
        deadline = self._command_deadline()
        if step.driver == "start":
            guest.driver.start(deadline=deadline)
        elif step.driver == "stop":
            guest.driver.stop(deadline=deadline)
        if step.plug is None:
            return ()
        free = [slot for slot in guest.vm.vcpu_slots(deadline=deadline) if slot.free]
        number = sum(len(evidence.devices) for evidence in self.steps)
        devices = [
            guest.vm.plug_vcpu(slot, device_id=f"vcpu{number + index}", deadline=deadline)
            for index, slot in enumerate(free[: step.plug.vcpus])
        ]
        number += len(devices)
        devices += [
            guest.vm.plug_dimm(size_bytes, device_id=f"dimm{number + index}", deadline=deadline)
            for index, size_bytes in enumerate(step.plug.dimms_bytes)
        ]
        return tuple(devices)

    def _await_ospm(self, ost: Listener, devices: tuple[PluggedDevice, ...], deadline: Deadline) -> None:
        wanted = {device.device_id for device in devices}
        # None in time is for verify to judge.
        with suppress(DeadlineExpiredError):
            ost.wait(
                lambda events: wanted <= {ospm_status(event).device_id for event in events}, deadline=deadline
            )

    def _await_records(self, guest: Guest, number: int, deadline: Deadline) -> tuple[ObservedRecord, ...]:
        records = self._poll(guest)
        while len(records) < number and not deadline.expired():
            _pause()
            records += self._poll(guest)
        return records

    def _watch_records(self, guest: Guest, seconds: float) -> tuple[ObservedRecord, ...]:
        deadline = Deadline.after(seconds)
        records = self._poll(guest)
        while not deadline.expired():
            _pause()
            records += self._poll(guest)
        return records

    def _await_guest(
        self, guest: Guest, before: ProbeSample, devices: tuple[PluggedDevice, ...], deadline: Deadline
    ) -> ProbeSample:
        processors = before.active_processors + sum(device.kind == "vcpu" for device in devices)
        memory_bytes = before.memory_bytes + sum(device.size_bytes or 0 for device in devices)
        sample = self._sample(guest)
        while (
            sample.active_processors < processors or sample.memory_bytes < memory_bytes
        ) and not deadline.expired():
            _pause()
            sample = self._sample(guest)
        return sample

    def _add_strays(self, guest: Guest, records: tuple[ObservedRecord, ...] = ()) -> None:
        records += self._poll(guest)
        if self.steps and records:
            last = self.steps[-1]
            self.steps[-1] = replace(last, records=last.records + records)
        else:
            self._before += records

    def _sample(self, guest: Guest) -> ProbeSample:
        sample = guest.probe.sample(deadline=self._command_deadline())
        self._samples = [*self._samples[-CLOCK_SAMPLES:], sample]
        return sample

    def _poll(self, guest: Guest) -> tuple[ObservedRecord, ...]:
        seen = guest.log.poll(deadline=self._command_deadline())
        if not seen:
            return ()
        clock = GuestClock.fit(self._samples)
        return tuple(
            ObservedRecord(
                record=item.record,
                seen_at_s=item.seen_at_s,
                written_at_s=clock.host_s(item.record.qpc),
                clock_error_s=clock.error_s,
            )
            for item in seen
        )

    def _command_deadline(self) -> Deadline:
        return Deadline.after(self._profile.deadlines.command_s)


def _pause() -> None:
    threading.Event().wait(POLL_S)
