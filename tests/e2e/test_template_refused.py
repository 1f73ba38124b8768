# SPDX-License-Identifier: MIT
"""A template that cannot be built is tried once; every plan that needs it gets the same error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import GuestError
from harness.guest import linux_wine, ssh_guest
from harness.plan.plan import Plan
from harness.run.report import failure_lines
from harness.run.run import run_plan
from harness.run.session import Session
from harness.wires.ssh import SshConnection

ONE_DIMM = "steps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}]\n"
REASON = "the guest's ACPI feeder hpfeed did not start: no such file; see serial.log"


def test_is_refused_once_with_the_reason_and_not_booted_for_every_plan(
    session: Session, load: Callable[[str], Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = []

    def check_parts(_ssh: SshConnection, **_deadline: object) -> None:
        boots.append("a guest")
        raise GuestError(REASON)

    monkeypatch.setattr(linux_wine, "check_parts", check_parts)
    plan = load(ONE_DIMM)
    bench = replace(session.bench(plan), cache=tmp_path / "cache", failures={})
    verdicts = [run_plan(plan, bench=bench, folder=tmp_path / str(number)) for number in range(3)]
    assert [verdict.outcome for verdict in verdicts] == ["error"] * 3, failure_lines(verdicts[0])
    assert {verdict.error for verdict in verdicts} == {REASON}
    assert len(boots) == 1
    assert (tmp_path / "0/template/serial.log").stat().st_size > 0


def test_is_tried_again_after_a_while(
    session: Session, load: Callable[[str], Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = []

    def refuse(*_arguments: object, **_options: object) -> None:
        boots.append("a guest")
        raise GuestError(REASON)

    monkeypatch.setattr(ssh_guest, "prepare", refuse)
    monkeypatch.setattr("harness.fork.template.TRY_AGAIN_AFTER_S", 0.0)
    plan = load(ONE_DIMM)
    bench = replace(session.bench(plan), cache=tmp_path / "cache", failures={})
    for number in range(2):
        run_plan(plan, bench=bench, folder=tmp_path / str(number))
    assert len(boots) == 2
