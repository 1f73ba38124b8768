# SPDX-License-Identifier: MIT
"""Carry out the steps of one plan: act, let the four witnesses speak, have it judged.

What a step does and what must follow is the business of its kind (:mod:`harness.steps`); waiting for it and
judging it is the same for all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from logging import getLogger
from pathlib import Path

from harness.deadline import Deadline, pause
from harness.errors import BenchError, DriverLogError, GuestGoneError
from harness.evidence.driver_rules import existing_interfaces
from harness.evidence.incident import with_last_words
from harness.evidence.judge import Mismatch, RunJudge, outstanding
from harness.evidence.mismatch import unended_log
from harness.evidence.witness import GuestState, ObservedRecord, Seen, StepBegun, StepEvidence
from harness.guest.bench import Bench, SshBench
from harness.guest.guest import Guest, blaming_vm
from harness.plan.fit import driver_rules, required_witnesses
from harness.plan.plan import Plan, Step
from harness.run.bench_parts import check_the_bench
from harness.run.log_end import await_end_of_line, await_existing, unended
from harness.run.plan_log import DriverLogFile
from harness.run.under_way import OspmSeen, StepUnderWay
from harness.steps.stage import Stage

logger = getLogger(__name__)

DRIVER_LOG_FILE = "driver.log"
#: How often the log is looked at while a record is due.
POLL_S = 0.01
#: How often while none is due. Each look is work for the guest, and a record carries its own time.
WATCH_POLL_S = 0.2


class Conduct:
    """One plan under way: what has been observed so far.

    :ivar earlier: what the driver had written before the first step.
    :ivar steps: the evidence of every step that was carried out to its end.
    """

    def __init__(self, plan: Plan, bench: Bench, folder: Path) -> None:
        self._log = DriverLogFile(folder / DRIVER_LOG_FILE)
        file = bench.driver if isinstance(bench, SshBench) else None
        self._driver = driver_rules(plan, bench.profile, file=file)
        self._required = required_witnesses(plan, bench.profile)
        self._profile = bench.profile
        self.earlier: tuple[ObservedRecord, ...] = ()
        links = bench.profile.link_patterns
        self._new_judge = functools.partial(
            RunJudge, steps=len(plan.unrolled()), required=self._required, links=links, driver=self._driver
        )
        self._judge = self._new_judge()
        self._under_way: StepUnderWay | None = None
        self._unread: DriverLogError | None = None  #: why the end of the log could not be judged
        self._said: tuple[Mismatch, ...] = ()  #: what the guest itself said of the driver
        self._seen: Seen
        self._ospm: OspmSeen
        self._tells = False  #: whether it can be known of what programs are told
        self.steps: list[StepEvidence] = []

    @property
    def unfinished(self) -> StepBegun | None:
        """What is known of the step that the bench broke in; None if it broke in none."""
        return None if self._under_way is None else self._under_way.begun()

    @contextmanager
    def begun(self, guest: Guest) -> Iterator[None]:
        """Learn the guest's clock, and how everything is before the first step; listen in the block."""
        needs_trace = "ospm" in self._required and not self._profile.must_answer
        with OspmSeen.listen(guest.vm, needs_trace=needs_trace) as self._ospm:
            self._begin(guest)
            yield

    def _begin(self, guest: Guest) -> None:
        state = guest.learn_clock(deadline=self._command_deadline())
        self._tells = guest.take_told() is not None
        self._seen = Seen(vm=guest.vm.state(), guest=state, qemu_version=guest.vm.qemu_version)
        wanted = existing_interfaces(self._driver, self._seen.vm, state)
        late = Deadline.after(self._profile.deadlines.late_s)
        await_existing(wanted, lambda: self._read_earlier(guest), deadline=late)

    def perform(self, step: Step, guest: Guest) -> tuple[Mismatch, ...]:
        """Carry out one step, add what the witnesses said of it, and return what is not as planned so far.
        A step starts from what the witnesses said at the end of the one before, so nothing that changes in
        between goes unnoticed.
        """
        effect = self._profile.ask(step.effect(self._seen))
        with self._taking_its_end_for_evidence(guest):
            guest.vm.check()
            self._read_log(guest)
            self._hear_answers()
            if effect.boot != "same":
                # What is written of this boot cannot be read after it.
                settled = Deadline.after(self._profile.deadlines.settle_s)
                await_end_of_line(guest, lambda: self._read_log(guest), deadline=settled)
        since = self._judge.mismatches()
        # A driver may crash when it has told all that its step was to tell.
        if self.steps and (since or guest.crash()) and (gone := self._blamed(since, self.steps[-1], guest)):
            return gone
        if not self.steps:
            self._judge = self._new_judge(earlier=self.earlier)
        before = self._seen
        now = StepUnderWay(step, effect, before, self._ospm, before.vm, before.guest)
        now.told = () if self._tells and effect.boot == "same" else None
        self._under_way = now
        with self._taking_its_end_for_evidence(guest):
            self._act(now, guest)
            self._await(now, guest)
            guest.vm.check()
        evidence = self._ospm.added_to(replace(now.evidence(), ospm=(), aml=None))
        found = self._blamed(self._judge.step(evidence), evidence, guest)
        self.steps.append(evidence)
        self._under_way = None
        self._seen = before.after(evidence)
        return found

    def settle(self, guest: Guest) -> tuple[Mismatch, ...]:
        """Give what nobody expects the time to come; it counts against the last step."""
        with self._taking_its_end_for_evidence(guest):
            last = self.steps[-1]
            if last.effect.boot == "none":
                return self._judge.mismatches()
            quiet_since_s = max([last.due_from_s, *(observed.seen_at_s for observed in last.records)])
            self._watch_records(guest, Deadline(quiet_since_s + self._profile.deadlines.settle_s))
            vm, state = guest.vm.state(), self._sample(guest)
            self._revise_last_step(replace(self.steps[-1], vm_after=vm, guest_after=state))
            self._hear_answers()
            guest.vm.check()
        return self._blamed(self._judge.mismatches(), self.steps[-1], guest)

    def verdict(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned, of a run that is over.

        :raise DriverLogError: nothing is, but the log has an end that could not be judged.
        """
        found = (*self._said, *(self._judge.mismatches() if self._said else self._judge.verdict()))
        if self._unread is None:
            return found
        if not found:
            raise self._unread
        last = self.steps[-1]
        note = unended_log(last.number, last.title, str(self._unread))
        return (*found, note) if "driver" in self._required else found

    def keep_log(self, guest: Guest, *, answers: bool = True) -> None:
        """Write what the driver logged to the evidence, with its latest lines if the guest still answers."""
        answers &= not (self.steps and self.steps[-1].effect.boot == "none")
        try:
            if answers and not guest.vm.watch.incidents:
                self._read_log(guest)
                self._unread = unended(guest.log_pending)
        except BenchError as err:
            logger.warning("the last lines of the driver's log could not be read: %s", err)
            self._unread = DriverLogError(f"the end of the driver's log could not be read: {err}")
        finally:
            self._log.keep(guest.log_data)

    def _blamed(
        self, found: tuple[Mismatch, ...], evidence: StepEvidence, guest: Guest
    ) -> tuple[Mismatch, ...]:
        self._said = check_the_bench(found, evidence, guest, deadline=self._command_deadline())
        return (*self._said, *found)

    @contextmanager
    def _taking_its_end_for_evidence(self, guest: Guest) -> Iterator[None]:
        """Take a guest that restarts, panics or switches itself off in the block for the end of the step."""
        try:
            with blaming_vm(guest.vm):
                yield
        except GuestGoneError:
            incidents = with_last_words(guest.vm.watch.incidents, guest.last_words())
            if self._under_way is not None:
                with suppress(BenchError):
                    self._under_way.vm = guest.vm.state()
                self._under_way.incidents = incidents
            elif self.steps:
                self._revise_last_step(replace(self.steps[-1], incidents=incidents))
            else:
                raise

    def _act(self, now: StepUnderWay, guest: Guest) -> None:
        stage = Stage(
            guest=guest,
            before=now.before,
            acts=now.acts,
            command_s=self._profile.deadlines.command_s,
            boot_s=self._profile.deadlines.boot_s,
            watch=lambda watch_s: self._watch_records(guest, Deadline.after(watch_s)),
        )
        now.step.action.perform(stage, deadline=now.deadline())
        if now.effect.clock == "anew" and now.effect.boot != "none":
            now.guest = guest.learn_clock(anew=True, deadline=self._command_deadline())

    def _await(self, now: StepUnderWay, guest: Guest) -> None:
        """Ask the witnesses until all of the effect is there or the time is over, and then each once more."""
        deadline, asked = now.deadline(), set[str]()
        while not deadline.expired():
            missing = outstanding(now.evidence())
            # In this order what was plugged is asked for while the guest is still busy telling the driver.
            if "ospm" in missing and "ospm" in self._required:
                now.await_ospm(deadline=deadline.sooner(WATCH_POLL_S))
            elif "vm" in missing:
                pause(POLL_S if "vm" in asked else 0.0)
                now.vm = guest.vm.state()
                asked.add("vm")
            elif "driver" in missing:
                self._await_record(now, guest)
            elif "guest" in missing:
                pause(POLL_S if "guest" in asked else 0.0)
                now.guest = self._sample(guest)
                asked.add("guest")
            else:
                break
            guest.vm.check()
        guest.vm.heartbeat.check()
        if now.effect.boot == "none":
            now.vm, now.guest = guest.vm.state(), None
            return
        if "vm" not in asked:
            now.vm = guest.vm.state()
        self._read_log(guest)
        if "guest" not in asked or deadline.expired():
            now.guest = self._sample(guest)
        self._look_on(now, guest)

    def _look_on(self, now: StepUnderWay, guest: Guest) -> None:
        telling = {"driver", "ospm"} if "ospm" in self._required else {"driver"}
        if telling & outstanding(now.evidence()):
            # Too late is as wrong as never, but not the same defect.
            late = Deadline.after(self._profile.deadlines.late_s)
            while (missing := telling & outstanding(now.evidence())) and not late.expired():
                if "driver" in missing:
                    self._await_record(now, guest)
                else:
                    now.await_ospm(deadline=late.sooner(WATCH_POLL_S))
                guest.vm.check()
            # What was plugged may have gone while nothing came, and programs may have been told.
            now.vm = guest.vm.state()
            self._sample(guest)
        elif not now.effect.records:
            self._watch_records(guest, Deadline.after(self._profile.deadlines.settle_s))

    def _await_record(self, now: StepUnderWay, guest: Guest) -> None:
        before = len(now.records)
        self._read_log(guest)
        if len(now.records) == before:
            pause(POLL_S)

    def _watch_records(self, guest: Guest, deadline: Deadline) -> None:
        self._read_log(guest)
        while not deadline.expired():
            pause(min(WATCH_POLL_S, deadline.remaining_s()))
            guest.vm.check()
            self._read_log(guest)

    def _sample(self, guest: Guest) -> GuestState | None:
        state = guest.sample(deadline=self._command_deadline())
        told = guest.take_told() or ()
        if self._under_way is not None:
            self._under_way.hear_told(told)
        elif told and (last := self.steps[-1]).told is not None:
            self._revise_last_step(replace(last, told=(*last.told, *told)))
        return state

    def _read_log(self, guest: Guest) -> None:
        # A record belongs to the step under way, and between two to the one before.
        records = guest.new_records(deadline=self._command_deadline())
        self._log.keep(guest.log_data)
        if self._under_way is not None:
            self._under_way.records += records
        elif not self.steps:
            self.earlier += records
        elif records:
            last = self.steps[-1]
            self._revise_last_step(replace(last, records=last.records + records))

    def _hear_answers(self) -> None:
        # As with records; what came before the first step is left to it.
        if self.steps and (last := self._ospm.added_to(self.steps[-1])) != self.steps[-1]:
            self._revise_last_step(last)

    def _read_earlier(self, guest: Guest) -> tuple[ObservedRecord, ...]:
        self._read_log(guest)
        return self.earlier

    def _revise_last_step(self, evidence: StepEvidence) -> None:
        self.steps[-1] = evidence
        self._judge.step(evidence)

    def _command_deadline(self) -> Deadline:
        return Deadline.after(self._profile.deadlines.command_s)
