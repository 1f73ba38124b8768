# SPDX-License-Identifier: MIT
"""Whole plans on a guest without an operating system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.evidence.verdict import Verdict
from harness.guest.guest import Guest
from harness.plan.plan import Plan, Step
from harness.run.run import run_plan
from harness.run.session import Session

BeforeStep = Callable[[Step, Guest], None]
Run = Callable[..., Verdict]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """The benches of this host's QEMU."""
    return Session(results=tmp_path / "results")


@pytest.fixture
def run(tmp_path: Path, qemu: str) -> Run:
    """Run a plan given as YAML text on a qtest guest, on either QEMU."""
    session = Session(results=tmp_path / "results", qemu=qemu)

    def run(text: str, *, before_step: BeforeStep = lambda _step, _guest: None) -> Verdict:
        plan = load(session, tmp_path, text)
        folder = session.evidence_folder(plan)
        return run_plan(plan, bench=session.bench(plan), folder=folder, before_step=before_step)

    return run


def load(session: Session, folder: Path, text: str) -> Plan:
    """Load a plan for the project's qtest guest from its YAML text."""
    path = folder / "plan.yaml"
    path.write_text(f"guest: qtest\n{text}")
    return session.load(path)
