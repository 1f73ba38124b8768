# SPDX-License-Identifier: MIT
"""A part of the bench in the guest dies under a plan: an error that names it, and nobody is blamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestUnreachableError
from harness.evidence.verdict import Verdict
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan, Step
from harness.run.report import LONGEST_FAILURE_LINES, failure_lines
from harness.run.run import run_plan
from harness.run.session import Session
from tests.e2e.conftest import background, shell
from tests.e2e.test_truth import LOG, TWO_DIMMS, assert_evidence

COMMAND_WITHIN_S = 5.0
LOG_FOLDER = LOG.rpartition("/")[0]


@pytest.fixture
def run(session: Session, load: Callable[[str], Plan]) -> Callable[[Callable[[SshGuest], object]], Verdict]:
    """Run a plan whose guest is sabotaged before the second step, and that does not wait long for it."""

    def run(sabotage: Callable[[SshGuest], object]) -> Verdict:
        plan = load(TWO_DIMMS)
        bench = session.bench(plan)
        deadlines = bench.profile.deadlines.model_copy(update={"command_s": COMMAND_WITHIN_S})
        bench = replace(bench, profile=bench.profile.model_copy(update={"deadlines": deadlines}))

        def before_step(step: Step, guest: SshGuest) -> None:
            if step.number == 2:
                sabotage(guest)

        folder = session.evidence_folder(plan)
        return run_plan(plan, bench=bench, folder=folder, before_step=before_step)

    return run


def assert_error(verdict: Verdict, words: str) -> None:
    assert verdict.outcome == "error", failure_lines(verdict)
    assert words in str(verdict.error)
    assert len(failure_lines(verdict)) <= LONGEST_FAILURE_LINES
    assert_evidence(verdict.evidence)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param("killall -9 wineserver64", "Wine server wineserver has ended", id="wine-server-killed"),
        pytest.param("killall -STOP wineserver64", "wineserver64 (process", id="wine-server-stopped"),
        pytest.param("kill -9 $(cat /run/hil/winepnp.pid)", "winepnp has ended", id="pnp-manager-killed"),
        pytest.param("kill -STOP $(cat /run/hil/winepnp.pid)", "was stopped by a signal", id="pnp-stopped"),
        pytest.param("killall -9 hpfeed", "hpfeed has ended", id="feeder-killed"),
        pytest.param("killall -STOP hpfeed", "hpfeed (process", id="feeder-stopped"),
        pytest.param("killall -9 pnpfeed.exe", "hpfeed has ended", id="windows-half-of-it-killed"),
        pytest.param("killall -9 hpprobe.exe", "hpprobe.exe", id="probe-killed"),
        pytest.param("killall -STOP hpprobe.exe", "hpprobe.exe (process", id="probe-stopped"),
        pytest.param(f"rm -r {LOG_FOLDER}", "has vanished from the guest", id="log-folder-gone"),
        pytest.param(f": >{LOG}", "bytes", id="log-emptied"),
        pytest.param(f"rm {LOG} && mkdir {LOG}", "hpnotify.log", id="log-is-a-folder"),
    ],
)
def test_what_dies_is_named(
    run: Callable[[Callable[[SshGuest], object]], Verdict], script: str, words: str
) -> None:
    verdict = run(lambda guest: shell(guest, script))
    assert_error(verdict, words)


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_sshd_is_named(run: Callable[[Callable[[SshGuest], object]], Verdict], signal: str) -> None:
    def end(guest: SshGuest) -> None:
        background(guest, f"killall -{signal} sshd")
        deadline = Deadline.after(60)
        try:
            while True:
                guest.ssh.run(["true"], deadline=Deadline.after(2))
                deadline.check("the end of sshd")
        except (DeadlineExpiredError, GuestUnreachableError):
            pass

    verdict = run(end)
    assert_error(verdict, "127.0.0.1:")
