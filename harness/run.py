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
from harness.evidence import GuestState, ObservedRecord, PluggedDevice, StepEvidence
from harness.guest import Bench, Guest, blaming_vm
from harness.guest_clock import GuestClock
from harness.hotplug_answers import ospm_status
from harness.plan import Plan, Step
from harness.profile import required_witnesses
from harness.qmp import Listener
from harness.report import write_evidence
from harness.template import open_guest
from harness.verdict import Outcome, Verdict
from harness.verify import Mismatch, RunJudge, refused_before_first_step

logger = logging.getLogger(__name__)

DRIVER_LOG_FILE = "driver.log"
CLOCK_SAMPLES = 4
#: How often the log is looked at while a record is due.
POLL_S = 0.01
#: How often while none is due. Each look is work for the guest, and a record carries its own time.
WATCH_POLL_S = 0.2

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
                    mismatches = conduct.perform(step, guest)
                    if mismatches:
                        break
                if not mismatches:
                    conduct.settle(guest)
            finally:
                conduct.keep_log(guest)
        mismatches = conduct.verdict()
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
        self._before: tuple[ObservedRecord, ...] = ()
        self._judge = RunJudge(plan, bench.profile)
        self.steps: list[StepEvidence] = []

    def begin(self, guest: Guest) -> None:
        """Learn the guest's clock, and how everything is before the first step."""
        while len(guest.probe.samples) < CLOCK_SAMPLES:
            self._sample(guest)
        self._guest = guest.probe.samples[-1].state
        self._vm = guest.vm.state()
        self._before = self._poll(guest)

    def perform(self, step: Step, guest: Guest) -> tuple[Mismatch, ...]:
        """Carry out one step, add what the witnesses said of it, and return what is not as planned so far.

        A step starts from what the witnesses said at the end of the one before, so nothing that changes in
        between goes unnoticed.
        """
        self._add_strays(guest)
        if not self.steps:
            self._judge = RunJudge(self._plan, self._profile, earlier=self._before)
        vm_before, guest_before = self._vm, self._guest
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
            # Asked while the guest is still busy telling the driver, this takes no time of its own.
            self._vm = guest.vm.state()
            expected = 0 if refused else len(step.expect.driver)
            records = self._await_records(guest, expected, deadline)
            self._guest = self._await_guest(guest, guest_before, devices, deadline)
            if len(records) < expected:
                # Too late is as wrong as never, but not the same defect: look on for as long again.
                missing = expected - len(records)
                records += self._await_records(guest, missing, Deadline.after(step.within_s))
                # What was plugged may have gone while nothing came.
                self._vm = guest.vm.state()
            elif not step.expect.driver:
                records += self._watch_records(guest, Deadline.after(self._profile.deadlines.settle_s))
            self.steps.append(
                StepEvidence(
                    number=step.number,
                    title=step.title,
                    acted_at_s=acted_at_s,
                    within_s=step.within_s,
                    devices=devices,
                    vm_before=vm_before,
                    vm_after=self._vm,
                    ospm=tuple(ospm_status(event) for event in ost.events),
                    guest_before=guest_before,
                    guest_after=self._guest,
                    records=records,
                    refused=refused,
                )
            )
        return self._judge.step(self.steps[-1])

    def settle(self, guest: Guest) -> None:
        """Give what nobody expects the time to come; it counts against the last step."""
        last = self.steps[-1]
        quiet_since_s = max([last.acted_at_s, *(observed.seen_at_s for observed in last.records)])
        records = self._watch_records(guest, Deadline(quiet_since_s + self._profile.deadlines.settle_s))
        self._vm, self._guest = guest.vm.state(), self._sample(guest)
        self._revise_last_step(
            replace(last, records=last.records + records, vm_after=self._vm, guest_after=self._guest)
        )

    def verdict(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned, of a run that is over."""
        return self._judge.verdict()

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
        number = sum(len(evidence.devices) for evidence in self.steps)
        slots = guest.vm.vcpu_slots(deadline=deadline) if step.plug.vcpus else ()
        free = [slot for slot in slots if slot.free]
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

    def _watch_records(self, guest: Guest, deadline: Deadline) -> tuple[ObservedRecord, ...]:
        records = self._poll(guest)
        while not deadline.expired():
            _pause(min(WATCH_POLL_S, deadline.remaining_s()))
            records += self._poll(guest)
        return records

    def _await_guest(
        self, guest: Guest, before: GuestState, devices: tuple[PluggedDevice, ...], deadline: Deadline
    ) -> GuestState:
        processors = before.active_processors + sum(device.kind == "vcpu" for device in devices)
        memory_bytes = before.memory_bytes + sum(device.size_bytes or 0 for device in devices)
        state = self._sample(guest)
        while (
            state.active_processors < processors or state.memory_bytes < memory_bytes
        ) and not deadline.expired():
            _pause()
            state = self._sample(guest)
        return state

    def _add_strays(self, guest: Guest) -> None:
        records = self._poll(guest)
        if not self.steps:
            self._before += records
        elif records:
            last = self.steps[-1]
            self._revise_last_step(replace(last, records=last.records + records))

    def _revise_last_step(self, evidence: StepEvidence) -> None:
        self.steps[-1] = evidence
        self._judge.step(evidence)

    def _sample(self, guest: Guest) -> GuestState:
        return guest.probe.sample(deadline=self._command_deadline()).state

    def _poll(self, guest: Guest) -> tuple[ObservedRecord, ...]:
        seen = guest.log.poll(deadline=self._command_deadline())
        if not seen:
            return ()
        clock = GuestClock.fit(guest.probe.samples)
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


def _pause(pause_s: float = POLL_S) -> None:
    threading.Event().wait(pause_s)
