# SPDX-License-Identifier: MIT
"""Plans that ask a guest without an operating system for what it has not, or another guest for its script."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import PlanError
from harness.plan.fit import required_witnesses, unmet_needs
from harness.run.session import Session
from tests.qtest.conftest import load

PLUG = "plug: {vcpus: 1}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"steps:\n  - {PLUG}\n    expect: {{driver: [processor]}}\n",
         "4:22: driver: the guest qtest has no driver; allowed: []"),
        (f"steps:\n  - {{{PLUG}, expect: {{driver: []}}}}\n  - {PLUG}\n    expect:\n      driver: [memory]\n",
         "6:15: driver: the guest qtest has no driver; allowed: []"),
        (f"driver: {{interfaces: memory}}\nsteps: [{{{PLUG}, expect: {{driver: []}}}}]\n",
         "2:9: driver: the guest qtest has no driver; allowed: leave it out"),
        (f"require: [vm, driver]\nsteps: [{{{PLUG}, expect: {{driver: []}}}}]\n",
         "2:15: require: the guest qtest has no witness driver; allowed: vm, ospm"),
        (f"require: [guest]\nsteps: [{{{PLUG}, expect: {{driver: []}}}}]\n",
         "2:11: require: the guest qtest has no witness guest; allowed: vm, ospm"),
    ],
)  # fmt: skip
def test_a_plan_that_asks_for_what_is_not_there_is_told_where(
    session: Session, tmp_path: Path, text: str, error: str
) -> None:
    with pytest.raises(PlanError) as caught:
        load(session, tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'plan.yaml'}:{error}"


def test_a_script_is_for_a_guest_that_cannot_answer_for_itself(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(f"acpi: [silent]\nsteps: [{{{PLUG}, expect: {{driver: []}}}}]\n")
    with pytest.raises(PlanError) as caught:
        session.load(path)
    error = "1:7: acpi: the guest reference answers for itself; allowed: for a guest of system qtest"
    assert str(caught.value) == f"{path}:{error}"


@pytest.mark.parametrize(
    ("step", "ability"),
    [
        ("driver: stop, expect: {driver: [unload]}", "driver"),
        ("announce: processor, expect: {driver: [processor]}", "announce"),
    ],
)
def test_a_plan_for_a_guest_that_can_do_more_loads_and_is_to_be_skipped(
    session: Session, tmp_path: Path, step: str, ability: str
) -> None:
    plan = load(session, tmp_path, f"steps: [{{{PLUG}, expect: {{driver: [processor]}}}}, {{{step}}}]\n")
    reason = unmet_needs(plan, session.profile(plan))
    assert reason is not None
    assert reason.startswith("step 2 (")
    assert reason.endswith(f"needs a guest that can do {ability}; qtest cannot")


def test_the_witnesses_are_those_it_has(session: Session, tmp_path: Path) -> None:
    plan = load(session, tmp_path, f"steps: [{{{PLUG}, expect: {{driver: []}}}}]\n")
    assert required_witnesses(plan, session.profile(plan)) == ("vm", "ospm")
