# SPDX-License-Identifier: MIT
"""Carry out the steps of one plan: act, let the four witnesses speak, have it judged."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from logging import getLogger
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import BenchError, DeadlineExpiredError, DriverRefusedError
from harness.evidence import GuestState, ObservedRecord, PluggedDevice, StepBegun, StepEvidence, VmState
from harness.guest import Bench, Guest
from harness.guest_clock import GuestClock
from harness.hotplug_answers import ospm_status
from harness.plan import Plan, Step
from harness.profile import required_witnesses
from harness.qmp import Listener
from harness.verify import Mismatch, RunJudge

logger = getLogger(__name__)

DRIVER_LOG_FILE = "driver.log"
CLOCK_SAMPLES = 4
#: How often the log is looked at while a record is due.
POLL_S = 0.01
#: How often while none is due. Each look is work for the guest, and a record carries its own time.
WATCH_POLL_S = 0.2


@dataclass(slots=True)
class _StepUnderWay:
    step: Step
    acted_at_s: float
    vm_before: VmState
    guest_before: GuestState
    ost: Listener
    devices: list[PluggedDevice] = field(default_factory=list)
    records: list[ObservedRecord] = field(default_factory=list)
    refused: str | None = None

    def begun(self) -> StepBegun:
        """Return what is known so far."""
        return StepBegun(
            number=self.step.number,
            title=self.step.title,
            acted_at_s=self.acted_at_s,
            within_s=self.step.within_s,
            devices=tuple(self.devices),
            vm_before=self.vm_before,
            guest_before=self.guest_before,
            ospm=tuple(ospm_status(event) for event in self.ost.events),
            records=tuple(self.records),
            refused=self.refused,
        )


class Conduct:
    """One plan under way: what has been observed so far.

    :ivar steps: the evidence of every step that was carried out to its end.
    """

    def __init__(self, plan: Plan, bench: Bench, folder: Path) -> None:
        self._plan = plan
        self._profile = bench.profile
        self._folder = folder
        self._required = required_witnesses(plan, bench.profile)
        self._before: tuple[ObservedRecord, ...] = ()
        self._judge = RunJudge(plan, bench.profile)
        self._under_way: _StepUnderWay | None = None
        self.steps: list[StepEvidence] = []

    @property
    def unfinished(self) -> StepBegun | None:
        """What is known of the step that the bench broke in; None if it broke in none."""
        return None if self._under_way is None else self._under_way.begun()

    def begin(self, guest: Guest) -> None:
        """Learn the guest's clock, and how everything is before the first step."""
        while len(guest.probe.samples) < CLOCK_SAMPLES:
            self._sample(guest)
        self._guest = guest.probe.samples[-1].state
        self._vm = guest.vm.state()
        self._read_log(guest)

    def perform(self, step: Step, guest: Guest) -> tuple[Mismatch, ...]:
        """Carry out one step, add what the witnesses said of it, and return what is not as planned so far.

        A step starts from what the witnesses said at the end of the one before, so nothing that changes in
        between goes unnoticed.
        """
        self._read_log(guest)
        if not self.steps:
            self._judge = RunJudge(self._plan, self._profile, earlier=self._before)
        with guest.vm.listen("ACPI_DEVICE_OST") as ost:
            now = self._under_way = _StepUnderWay(step, time.monotonic(), self._vm, self._guest, ost)
            try:
                self._act(now, guest)
            except DriverRefusedError as err:
                now.refused = str(err)
            deadline = Deadline(now.acted_at_s + step.within_s)
            if "ospm" in self._required:
                self._await_ospm(now, deadline)
            # Asked while the guest is still busy telling the driver, this takes no time of its own.
            self._vm = guest.vm.state()
            expected = 0 if now.refused else len(step.expect.driver)
            self._await_records(now, expected, guest, deadline)
            self._guest = self._await_guest(now, guest, deadline)
            if len(now.records) < expected:
                # Too late is as wrong as never, but not the same defect: look on for as long again.
                self._await_records(now, expected, guest, Deadline.after(step.within_s))
                # What was plugged may have gone while nothing came.
                self._vm = guest.vm.state()
            elif not step.expect.driver:
                self._watch_records(guest, Deadline.after(self._profile.deadlines.settle_s))
            self.steps.append(now.begun().finished(vm_after=self._vm, guest_after=self._guest))
            self._under_way = None
        return self._judge.step(self.steps[-1])

    def settle(self, guest: Guest) -> None:
        """Give what nobody expects the time to come; it counts against the last step."""
        last = self.steps[-1]
        quiet_since_s = max([last.acted_at_s, *(observed.seen_at_s for observed in last.records)])
        self._watch_records(guest, Deadline(quiet_since_s + self._profile.deadlines.settle_s))
        self._vm, self._guest = guest.vm.state(), self._sample(guest)
        self._revise_last_step(replace(self.steps[-1], vm_after=self._vm, guest_after=self._guest))

    def verdict(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned, of a run that is over."""
        return self._judge.verdict()

    def keep_log(self, guest: Guest) -> None:
        """Write what the driver logged to the evidence, with its latest lines if the guest still answers."""
        try:
            self._read_log(guest)
        except BenchError as err:
            logger.warning("the last lines of the driver's log could not be read: %s", err)
        finally:
            (self._folder / DRIVER_LOG_FILE).write_bytes(guest.log.data)

    def _act(self, now: _StepUnderWay, guest: Guest) -> None:
        step, deadline = now.step, self._command_deadline()
        if step.driver == "start":
            guest.driver.start(deadline=deadline)
        elif step.driver == "stop":
            guest.driver.stop(deadline=deadline)
        if step.plug is None:
            return
        number = sum(len(evidence.devices) for evidence in self.steps)
        slots = guest.vm.vcpu_slots(deadline=deadline) if step.plug.vcpus else ()
        free = [slot for slot in slots if slot.free]
        for slot in free[: step.plug.vcpus]:
            now.devices.append(guest.vm.plug_vcpu(slot, device_id=f"vcpu{number}", deadline=deadline))
            number += 1
        for size_bytes in step.plug.dimms_bytes:
            now.devices.append(guest.vm.plug_dimm(size_bytes, device_id=f"dimm{number}", deadline=deadline))
            number += 1

    def _await_ospm(self, now: _StepUnderWay, deadline: Deadline) -> None:
        wanted = {device.device_id for device in now.devices}
        # None in time is for verify to judge.
        with suppress(DeadlineExpiredError):
            now.ost.wait(
                lambda events: wanted <= {ospm_status(event).device_id for event in events}, deadline=deadline
            )

    def _await_records(self, now: _StepUnderWay, number: int, guest: Guest, deadline: Deadline) -> None:
        self._read_log(guest)
        while len(now.records) < number and not deadline.expired():
            _pause()
            self._read_log(guest)

    def _watch_records(self, guest: Guest, deadline: Deadline) -> None:
        self._read_log(guest)
        while not deadline.expired():
            _pause(min(WATCH_POLL_S, deadline.remaining_s()))
            self._read_log(guest)

    def _await_guest(self, now: _StepUnderWay, guest: Guest, deadline: Deadline) -> GuestState:
        before, devices = now.guest_before, now.devices
        processors = before.active_processors + sum(device.kind == "vcpu" for device in devices)
        memory_bytes = before.memory_bytes + sum(device.size_bytes or 0 for device in devices)
        state = self._sample(guest)
        while (
            state.active_processors < processors or state.memory_bytes < memory_bytes
        ) and not deadline.expired():
            _pause()
            state = self._sample(guest)
        return state

    def _sample(self, guest: Guest) -> GuestState:
        return guest.probe.sample(deadline=self._command_deadline()).state

    def _read_log(self, guest: Guest) -> None:
        # A record belongs to the step under way, and between two to the one before.
        records = self._poll(guest)
        if self._under_way is not None:
            self._under_way.records += records
        elif not self.steps:
            self._before += records
        elif records:
            last = self.steps[-1]
            self._revise_last_step(replace(last, records=last.records + records))

    def _revise_last_step(self, evidence: StepEvidence) -> None:
        self.steps[-1] = evidence
        self._judge.step(evidence)

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
