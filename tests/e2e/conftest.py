# SPDX-License-Identifier: MIT
"""Real plans on the real reference guest, some of them sabotaged through the guest's own shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.evidence.verdict import Verdict
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan, Step
from harness.run.run import run_plan
from harness.run.session import Session

Sabotage = Callable[[SshGuest], None]


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The benches that all tests share: image, template and accelerator are chosen and built once."""
    return Session(results=tmp_path_factory.mktemp("results"))


@pytest.fixture
def load(session: Session, tmp_path: Path) -> Callable[[str], Plan]:
    """Load a plan from its YAML text."""

    def load(text: str) -> Plan:
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        return session.load(path)

    return load


@pytest.fixture
def run(session: Session, load: Callable[[str], Plan]) -> Callable[..., Verdict]:
    """Run a plan given as YAML text; sabotage, by step number, is done right before that step acts."""

    def run(text: str, *, sabotage: dict[int, Sabotage] | None = None) -> Verdict:
        plan = load(text)

        def before_step(step: Step, guest: SshGuest) -> None:
            if sabotage and step.number in sabotage:
                sabotage[step.number](guest)

        folder = session.evidence_folder(plan)
        return run_plan(plan, bench=session.bench(plan), folder=folder, before_step=before_step)

    return run


def shell(guest: SshGuest, script: str) -> str:
    """Run a shell script in the reference guest and return what it printed."""
    return guest.ssh.run(["sh", "-c", script], deadline=Deadline.after(30)).check().text


def background(guest: SshGuest, script: str) -> None:
    """Start a shell script in the reference guest that goes on by itself."""
    shell(guest, f"setsid sh -c {_quoted(script)} </dev/null >/dev/null 2>&1 &")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
