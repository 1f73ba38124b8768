# SPDX-License-Identifier: MIT
"""Forked and booted guests: from a whole template only, each for itself, on a timeline that is right."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import GuestUnreachableError, TemplateDamagedError
from harness.evidence.verdict import Verdict
from harness.fork import template
from harness.fork.manifest import RAM, find_fault
from harness.fork.open import BOOT_FILE
from harness.fork.store import list_stored
from harness.fork.template import find_template
from harness.guest.guest import Guest
from harness.guest.ssh_guest import SshGuest
from harness.host.cache import lock_of, locked
from harness.plan.plan import Plan, Step
from harness.run import run
from harness.run.report import failure_lines
from harness.run.session import Session
from harness.vm import vm
from tests.bench.test_template_store import hide_changes
from tests.opening import open_for

from .test_command_line import qemu_pids

PROGRAM = Path(__file__).with_name("ask_for_a_template.py")
BUILT_WITHIN_S = 300.0
POLL_S = 0.05

ONE_OF_EACH = """
steps:
  - plug: {vcpus: 1}
    expect: {driver: [processor]}
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
"""
PARAMETERS = r"HKLM\SYSTEM\CurrentControlSet\Services\hpnotify\Parameters"
#: The guest's clock and the host's are compared over SSH, and a second has passed sooner than one thinks.
CLOCK_WITHIN_S = 2.0

Run = Callable[..., Verdict]
Load = Callable[[str], Plan]


def boot_record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / BOOT_FILE).read_text())
    return record


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = Deadline.after(BUILT_WITHIN_S)
    while not condition():
        deadline.check(what)
        threading.Event().wait(POLL_S)


@contextmanager
def asking(plan: Plan, cache: Path, results: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that asks for the plan's template."""
    results.mkdir()
    command = [sys.executable, PROGRAM, plan.source, cache, results]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class TestBuilding:
    def test_killed_or_asked_for_twice_it_is_whole_and_built_once(
        self, session: Session, load: Load, tmp_path: Path
    ) -> None:
        plan = load(ONE_OF_EACH)
        cache = tmp_path / "cache"
        bench = replace(session.bench(plan), cache=cache)
        with asking(plan, cache, tmp_path / "killed") as victim:
            wait_for(lambda: any(cache.glob("templates/.*/ram")), "a guest booting in the template's memory")
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
        wait_for(lambda: not qemu_pids(tmp_path / "killed"), "the end of the killed build's QEMU")
        assert list_stored(cache, "template") == []

        with asking(plan, cache, tmp_path / "one") as one, asking(plan, cache, tmp_path / "two") as two:
            said = [process.communicate(timeout=BUILT_WITHIN_S) for process in (one, two)]
        [template] = {Path(stdout.strip()) for stdout, _ in said}
        assert template == find_template(bench, plan.vm, folder=tmp_path), said
        assert find_fault(template, thorough=True) is None
        logs = [tmp_path / name / "template" for name in ("one", "two")]
        [build] = [folder for folder in logs if folder.exists()]
        assert {path.name for path in template.parent.iterdir()} == {template.name, f"{template.name}.lock"}

        folder = tmp_path / "fork"
        folder.mkdir()
        with open_for(bench, plan, folder=folder) as guest:
            assert guest.driver.state(deadline=Deadline.after(30)) == "running"
            with pytest.raises(BlockingIOError):
                self.lock_alone(template)
        self.lock_alone(template)
        self.check_that_only_disk_and_memory_differ(build, folder)

    def test_of_a_guest_that_never_rests_it_is_built_all_the_same_and_told(
        self,
        session: Session,
        load: Load,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(vm, "RESTING_SHARE", -1.0)
        monkeypatch.setattr(template, "REST_WITHIN_S", 1.0)
        plan = load(ONE_OF_EACH)
        bench = replace(session.bench(plan), cache=tmp_path / "cache")
        assert find_fault(find_template(bench, plan.vm, folder=tmp_path)) is None
        assert "the guest does not come to rest" in caplog.text

    def test_of_which_a_byte_went_bad_nobody_is_blamed_and_it_is_built_again(
        self,
        session: Session,
        load: Load,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        plan = load(ONE_OF_EACH)
        bench = replace(session.bench(plan), cache=tmp_path / "cache")
        template = find_template(bench, plan.vm, folder=tmp_path)
        ram = template / RAM
        # What the guest makes its links of.
        data = ram.read_bytes().replace(b"3fd0f03d-92e0-45fb", b"3fd0f03e-92e0-45fb")
        ram.chmod(0o600)
        ram.write_bytes(data)
        hide_changes(template)
        with monkeypatch.context() as blind:
            blind.setattr("harness.fork.open.check_template", lambda _template: None)
            blamed = run.run_plan(plan, bench=bench, folder=tmp_path / "blamed")
        assert blamed.outcome == "failed", failure_lines(blamed)
        verdict = run.run_plan(plan, bench=bench, folder=tmp_path / "told")
        assert verdict.outcome == "error", failure_lines(verdict)
        assert f"template {template.name}, which the guest was forked from, is damaged" in str(verdict.error)
        again = run.run_plan(plan, bench=bench, folder=tmp_path / "again")
        assert again.outcome == "passed", failure_lines(again)
        assert f"{template} is damaged (ram is not what was saved); building it again" in caplog.text

    def test_is_checked_when_a_fork_of_it_breaks(
        self, session: Session, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def check_template(template: Path) -> None:
            raise TemplateDamagedError(f"{template.name} was checked")

        def break_down(_step: Step, _guest: Guest) -> None:
            raise GuestUnreachableError("the guest does not answer")

        monkeypatch.setattr("harness.fork.open.check_template", check_template)
        plan = load(ONE_OF_EACH)
        verdict = run.run_plan(plan, bench=session.bench(plan), folder=tmp_path, before_step=break_down)
        assert str(verdict.error).endswith(" was checked"), failure_lines(verdict)

    def lock_alone(self, template: Path) -> None:
        with locked(lock_of(template), wait=False):
            pass

    def check_that_only_disk_and_memory_differ(self, build: Path, fork: Path) -> None:
        """Compare the command lines of the QEMU that was saved and of its fork."""
        saved, forked = (
            shlex.split((folder / "qemu-command.txt").read_text().replace(str(folder), "LOGS"))
            for folder in (build, fork)
        )
        # Where the trace goes is a number that differs.
        for command in (saved, forked):
            command[command.index("-D") + 1] = "TRACE"
        assert forked[-2:] == ["-incoming", "defer"]
        differing = [pair for pair in zip(saved, forked[:-2], strict=True) if pair[0] != pair[1]]
        kinds = {words.partition(",")[0].partition("=")[0] for _, words in differing}
        assert kinds <= {"memory-backend-file", "socket", "if"}, differing
        assert len(differing) <= 3, differing


class TestFork:
    def test_of_an_old_template_tells_the_time_right(self, run: Run) -> None:
        verdict = run(ONE_OF_EACH)
        assert verdict.outcome == "passed", verdict
        boot = boot_record(verdict.evidence)
        assert boot["boot"] == "fork"
        began_at, built_at = (datetime.fromisoformat(boot[key]) for key in ("began_at", "template_built_at"))
        age_s = (began_at - built_at).total_seconds()
        assert age_s > 0
        # The guest was asleep for as long as its template is old, and its own clock does not know.
        assert boot["clock_ahead_s"] == pytest.approx(-age_s, abs=CLOCK_WITHIN_S)
        observed = [(step, item) for step in verdict.steps for item in step.records]
        assert len(observed) == 2
        for step, item in observed:
            assert 0 < item.clock_error_s < CLOCK_WITHIN_S
            assert step.acted_at_s - item.clock_error_s <= item.written_at_s
            assert item.written_at_s <= item.seen_at_s + item.clock_error_s

    def test_is_the_boot_of_its_template_throughout(self, run: Run) -> None:
        verdict = run(ONE_OF_EACH)
        boots = {state.boot_id for step in verdict.steps for state in (step.guest_before, step.guest_after)}
        assert boots == {boot_record(verdict.evidence)["boot_id"]}

    def test_keeps_registry_driver_and_log_to_itself(
        self, session: Session, load: Load, tmp_path: Path
    ) -> None:
        plan = load(ONE_OF_EACH)
        bench = session.bench(plan)
        template = find_template(bench, plan.vm, folder=session.results)

        @contextmanager
        def fork(name: str) -> Iterator[SshGuest]:
            (tmp_path / name).mkdir()
            with open_for(bench, plan, folder=tmp_path / name) as guest:
                yield guest

        with fork("first") as first, fork("second") as second:
            before = self.registry(second)
            assert self.registry(first) == before
            assert self.log(first) == self.log(second) == ["load", "baseline"]
            deadline = Deadline.after(60)
            first.driver.stop(deadline=deadline)
            first.driver.configure(interfaces="memory", synchronous=True, deadline=deadline)
            first.driver.start(deadline=deadline)
            assert self.registry(first) != before
            assert self.log(first) == ["unload", "load", "baseline"]
            assert self.registry(second) == before
            assert self.log(second) == []
        with fork("later") as later:
            assert self.registry(later) == before
            assert self.log(later) == ["load", "baseline"]
        assert find_fault(template, thorough=True) is None

    def registry(self, guest: SshGuest) -> str:
        query = ["reg.exe", "query", PARAMETERS]
        return guest.ssh.run(query, deadline=Deadline.after(30)).check().text

    def log(self, guest: SshGuest) -> list[str]:
        """Return the driver's new records."""
        return [item.record.word for item in guest.log.poll(deadline=Deadline.after(30))]


class TestColdBoot:
    def test_runs_a_plan_in_a_guest_of_another_boot(self, run: Run) -> None:
        forked = run(ONE_OF_EACH)
        verdict = run(f"boot: cold\n{ONE_OF_EACH}")
        assert verdict.outcome == "passed", verdict
        boot = boot_record(verdict.evidence)
        assert (boot["boot"], boot["template"], boot["template_built_at"]) == ("cold", None, None)
        assert boot["reason"] == "the plan asks for it"
        assert abs(boot["clock_ahead_s"]) < CLOCK_WITHIN_S
        assert boot["boot_id"] != boot_record(forked.evidence)["boot_id"]
        assert "-incoming" not in shlex.split((verdict.evidence / "qemu-command.txt").read_text())
        assert not (verdict.evidence / "template").exists()
