# SPDX-License-Identifier: MIT
"""A guest that need not answer over ``_OST``: what its ACPI did is seen all the same, or nobody can tell."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from harness.evidence.effect import Answer, Effect
from harness.evidence.verdict import Verdict
from harness.guest.profile import load_profile
from harness.run.report import failure_lines
from harness.run.run import run_plan
from harness.run.session import Session

STEPS = "steps: [{plug: {vcpus: 1, dimms: [128 MiB]}, expect: {driver: []}}]\n"


def run(folder: Path, acpi: str, *, qemu: str, ost: str = "recorded") -> Verdict:
    (folder / "guests").mkdir()
    (folder / "guests/mine.yaml").write_text(f"system: qtest\nost: {ost}\n")
    (folder / "plan.yaml").write_text(f"guest: mine\nacpi: {acpi}\nwithin: 400 ms\n{STEPS}")
    session = Session(results=folder / "results", qemu=qemu)
    plan = session.load(folder / "plan.yaml")
    return run_plan(plan, bench=session.bench(plan), folder=session.evidence_folder(plan))


@pytest.fixture
def without_trace(tmp_path: Path, qemu: str) -> str:
    """Return a QEMU that writes its trace nowhere, as one that was built with another trace backend."""
    program = tmp_path / "qemu-without-trace"
    program.write_text(f'#!/bin/sh\nexec "{qemu}" "$@" -D /dev/null\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize("acpi", ["[accept]", "[silent]"])
def test_passes_whether_it_answers_or_not(tmp_path: Path, qemu: str, acpi: str) -> None:
    verdict = run(tmp_path, acpi, qemu=qemu)
    assert verdict.outcome == "passed", failure_lines(verdict)
    [step] = verdict.steps
    assert step.aml is not None
    assert [(one.slot_type, one.slot, one.what) for one in step.aml] == [
        ("CPU", "1", "insertion taken"),
        ("DIMM", "0", "insertion taken"),
        ("DIMM", "0", "resources read"),
    ]
    timeline = [json.loads(line) for line in (verdict.evidence / "timeline.jsonl").read_text().splitlines()]
    told = [entry["what"] for entry in timeline if entry["witness"] == "ospm" and "AML" in entry["what"]]
    assert told[0] == "CPU 1: insertion taken by the guest's ACPI (AML)"
    assert len(told) == 3


@pytest.mark.parametrize(
    ("acpi", "what"),
    [
        ("[deaf]", "the insertion of vcpu0 in the guest's ACPI (AML) not taken"),
        ("[{refuse: 0x81}]", "the guest's ACPI answer (_OST) for vcpu0"),
        ("[in_progress]", "the guest's ACPI answer (_OST) for vcpu0"),
    ],
)
def test_fails_where_it_does_not_take_the_device_or_answers_otherwise(
    tmp_path: Path, qemu: str, acpi: str, what: str
) -> None:
    verdict = run(tmp_path, acpi, qemu=qemu)
    assert verdict.outcome == "failed", failure_lines(verdict)
    first = verdict.mismatches[0]
    assert (first.witness, first.what) == ("ospm", what)


def test_on_a_qemu_that_writes_no_trace_nobody_can_tell(tmp_path: Path, without_trace: str) -> None:
    verdict = run(tmp_path, "[accept]", qemu=without_trace)
    assert verdict.outcome == "error"
    assert "writes no trace events, by which alone the ACPI of this guest is seen" in str(verdict.error)


@pytest.mark.parametrize(("acpi", "outcome"), [("[accept]", "passed"), ("[silent]", "failed")])
def test_a_guest_that_must_answer_needs_no_trace(
    tmp_path: Path, without_trace: str, acpi: str, outcome: str
) -> None:
    verdict = run(tmp_path, acpi, qemu=without_trace, ost="required")
    assert verdict.outcome == outcome, failure_lines(verdict)
    assert [step.aml for step in verdict.steps] == [None]


@pytest.mark.parametrize(
    ("system", "line", "answers", "tells"),
    [
        ("windows", "", False, False),
        ("windows", "ost: required\n", True, False),
        ("windows", "told: required\n", False, True),
        ("windows", "ost: recorded\n", False, False),
        ("linux-wine", "", True, True),
        ("linux-wine", "ost: recorded\n", False, True),
        ("linux-wine", "told: recorded\n", True, False),
    ],
)
def test_windows_may_answer_and_tell_and_others_must(
    tmp_path: Path, system: str, line: str, answers: bool, tells: bool
) -> None:
    reference = Path(__file__).parents[2] / "testplans/guests/reference.yaml"
    text = reference.read_text().replace("system: linux-wine", f"system: {system}")
    (tmp_path / "guest.yaml").write_text(text + line)
    profile = load_profile(tmp_path / "guest.yaml")
    effect = profile.ask(Effect(answers=(Answer(device_id="dimm0"),)))
    assert (effect.answers[0].required, effect.told_required) == (answers, tells)
    assert profile.must_answer is answers
