# SPDX-License-Identifier: MIT
"""Whatever a guest's ACPI may answer, and whatever may become of a guest, gets the verdict it must get.

Each is a whole plan, with real QEMU and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from dataclasses import dataclass

import pytest

from harness.deadline import Deadline
from harness.evidence.verdict import Verdict
from harness.evidence.witness import Witness
from harness.guest.acpi_registers import Place
from harness.guest.guest import Guest
from harness.guest.qtest import QtestGuest
from harness.plan.plan import Step
from harness.run.report import LONGEST_FAILURE_LINES, failure_lines
from tests.qtest.conftest import BeforeStep, Run

VCPU = "  - {plug: {vcpus: 1}, expect: {driver: []}}\n"
DIMM = "  - {plug: {dimms: [128 MiB]}, expect: {driver: []}}\n"
BURST = "  - {plug: {vcpus: 2, dimms: [128 MiB]}, expect: {driver: []}}\n"
BACKEND = (
    "  - qmp: {execute: object-add, arguments: {qom-type: memory-backend-ram, id: mem0, size: 134217728}}\n"
    "    expect: {driver: []}\n"
)


def plan(acpi: str, *steps: str, within: str = "20 s", more: str = "") -> str:
    """Return a plan with a script and steps, without the guest's name."""
    return f"within: {within}\nacpi: {acpi}\n{more}steps:\n{''.join(steps)}"


def qmp(text: str) -> str:
    return f"  - {{qmp: {{{text}}}, expect: {{driver: []}}}}\n"


@dataclass(frozen=True)
class Failure:
    """The first mismatch that a plan must have."""

    witness: Witness
    what: str
    expected: str
    seen: str  #: a regular expression for the whole of it
    step: int = 1


def failed_at_ospm(seen: str, *, device: str = "dimm0", step: int = 1) -> Failure:
    what = f"the guest's ACPI answer (_OST) for {device}"
    return Failure("ospm", what, "status 0x0 (success)", seen, step)


def late(within: str, *, seen: str = r"status 0x0 \(success\)") -> Failure:
    what = "a late ACPI answer (_OST) for dimm0"
    return Failure("ospm", what, f"status 0x0 (success) within {within}", rf"{seen} after [\d.]+ (ms|s)")


def gone(what: str, seen: str, *, step: int = 1) -> Failure:
    return Failure("guest", what, "the guest runs on", seen, step)


PASSES = [
    pytest.param(plan("[accept]", VCPU, DIMM, BURST), id="accept"),
    pytest.param(
        plan(
            "[accept]", VCPU, "  - {pause: 50 ms, expect: {driver: []}}\n", DIMM, more="vm: {start: paused}\n"
        ),
        id="before-the-vm-is-started",
    ),
    # ACPI leaves it to the system how often it evaluates _OST.
    pytest.param(plan("[twice]", VCPU, DIMM, BURST), id="twice"),
    pytest.param(plan("[{late: 150 ms}]", BURST), id="later-but-in-time"),
    pytest.param(plan("[{late: 300 ms}, {late: 150 ms}, accept]", BURST), id="each-at-another-time"),
    pytest.param(plan("[{reversed: 3}]", BURST), id="in-another-order"),
    pytest.param(plan("[{in_progress: 100 ms}]", BURST), id="in-progress-then-success"),
    pytest.param(plan("[{refuse: 0x81}]", DIMM, more="require: [vm]\n"), id="refused-but-nobody-asked"),
    pytest.param(plan("[accept]", "  - {pause: 50 ms, expect: {driver: []}}\n", DIMM), id="pause"),
    pytest.param(plan("[accept]", "  - {wait: 50 ms, expect: {driver: []}}\n", DIMM), id="wait"),
    pytest.param(
        plan("[accept]", "  - {plug: {vcpus: 1, dimms: [2 MiB], paused: true}, expect: {driver: []}}\n"),
        id="plugged-while-paused",
    ),
    pytest.param(
        plan("[accept]", VCPU, "  - {power: restart, expect: {driver: []}}\n", BURST), id="restart-asked-for"
    ),
    pytest.param(
        plan("[accept]", DIMM, "  - {power: reset, expect: {driver: []}}\n", BURST), id="reset-asked-for"
    ),
    pytest.param(
        plan("[accept]", DIMM, "  - {power: off, expect: {driver: []}}\n"), id="power-off-asked-for"
    ),
    pytest.param(
        plan("[accept]", qmp("execute: query-status, returns: {status: running, running: true}")),
        id="the-answer-that-qemu-must-give",
    ),
    pytest.param(
        plan(
            "[accept]",
            DIMM,
            qmp(
                "execute: device_add, arguments: {driver: pc-dimm, id: d, memdev: nobody},"
                " refused: \"Device 'nobody' not found\""
            ),
        ),
        id="the-refusal-that-qemu-must-give",
    ),
]

FAILS = [
    pytest.param(
        plan("[{refuse: 0x81}]", DIMM),
        failed_at_ospm(r"status 0x81 \(the operating system could not load a driver\)"),
        id="refuse-dimm",
    ),
    pytest.param(
        plan("[{refuse: 1}]", VCPU),
        failed_at_ospm(r"status 0x1 \(failure without a reason given\)", device="vcpu0"),
        id="refuse-vcpu",
    ),
    pytest.param(
        plan("[{refuse: 0xffffffff}]", DIMM),
        failed_at_ospm(r"status 0xffffffff \(unknown to ACPI 6.5\)"),
        id="refuse-for-no-known-reason",
    ),
    pytest.param(
        plan("[accept, {refuse: 0x82}, accept]", DIMM, BURST, DIMM),
        failed_at_ospm(
            r"status 0x82 \(the device is not supported by the operating system\)", device="vcpu1", step=2
        ),
        id="refuse-one-of-a-burst",
    ),
    pytest.param(
        plan("[deaf]", DIMM, within="200 ms"),
        Failure(
            "ospm",
            "the insertion of dimm0 in the guest's ACPI (AML) not taken",
            "taken by the guest",
            "not taken",
        ),
        id="deaf",
    ),
    pytest.param(
        plan("[accept, deaf]", VCPU, VCPU, within="200 ms"),
        Failure(
            "ospm",
            "the insertion of vcpu1 in the guest's ACPI (AML) not taken",
            "taken by the guest",
            "not taken",
            step=2,
        ),
        id="deaf-in-the-second-step",
    ),
    pytest.param(
        plan("[silent]", DIMM, within="200 ms"),
        failed_at_ospm("no answer"),
        id="silent",
    ),
    pytest.param(
        plan("[{reversed: 4}]", BURST, within="200 ms"),
        failed_at_ospm("no answer", device="vcpu0"),
        id="waiting-for-one-more",
    ),
    pytest.param(
        plan("[in_progress]", DIMM, within="200 ms"),
        failed_at_ospm(r"status 0x80 \(insertion still in progress\)"),
        id="in-progress-for-ever",
    ),
    pytest.param(plan("[{late: 300 ms}]", DIMM, within="50 ms"), late("50 ms"), id="too-late"),
    pytest.param(
        plan("[{in_progress: 300 ms}]", DIMM, within="50 ms"),
        late("50 ms", seen=r"status 0x80 \(insertion still in progress\), status 0x0 \(success\)"),
        id="in-progress-for-too-long",
    ),
    pytest.param(
        plan("[panic]", DIMM),
        gone("the guest panicked", "GUEST_PANICKED: action pause"),
        id="panic",
    ),
    pytest.param(
        plan("[accept, panic]", VCPU, VCPU),
        gone("the guest panicked", "GUEST_PANICKED: action pause", step=2),
        id="panic-in-the-second-step",
    ),
    pytest.param(
        plan("[restart]", DIMM),
        gone("the guest restarted", "RESET: guest yes, reason guest-reset"),
        id="restart-by-itself",
    ),
    pytest.param(
        plan("[power_off]", DIMM),
        gone("the guest powered off", "SHUTDOWN: guest yes, reason guest-shutdown"),
        id="power-off-by-itself",
    ),
    pytest.param(
        plan("[accept]", qmp("execute: query-status, returns: {status: paused}")),
        Failure("vm", "QEMU's reply to query-status", "an answer with {'status': 'paused'}", "answered: .*"),
        id="another-answer",
    ),
    pytest.param(
        plan("[accept]", qmp("execute: query-nothing")),
        Failure("vm", "QEMU's reply to query-nothing", "an answer", "refused: .*query-nothing.*"),
        id="a-refusal-that-nobody-expects",
    ),
    pytest.param(
        plan("[accept]", qmp("execute: device_del, arguments: {id: nobody}, refused: is not unpluggable")),
        Failure(
            "vm",
            "QEMU's reply to device_del",
            "a refusal that matches is not unpluggable",
            "refused: Device 'nobody' not found",
        ),
        id="another-refusal",
    ),
    pytest.param(
        plan("[accept]", qmp("execute: query-status, refused: not now")),
        Failure("vm", "QEMU's reply to query-status", "a refusal that matches not now", "answered: .*"),
        id="no-refusal",
    ),
    pytest.param(
        plan(
            "[accept]",
            BACKEND,
            qmp("execute: device_add, arguments: {driver: pc-dimm, id: secret, memdev: mem0}"),
        ),
        Failure("vm", "DIMMs in the vm", "none", "secret 128 MiB", step=2),
        id="a-dimm-behind-the-plans-back",
    ),
]


@pytest.mark.parametrize("text", PASSES)
def test_passes(run: Run, text: str) -> None:
    verdict = run(text)
    assert verdict.outcome == "passed", failure_lines(verdict)
    assert verdict.mismatches == ()
    assert verdict.error is None


@pytest.mark.parametrize(("text", "failure"), FAILS)
def test_fails_and_blames(run: Run, text: str, failure: Failure) -> None:
    assert_failed(run(text), failure)


def assert_failed(verdict: Verdict, failure: Failure) -> None:
    assert verdict.outcome == "failed", failure_lines(verdict)
    first = verdict.mismatches[0]
    assert (first.step, first.witness) == (failure.step, failure.witness)
    # An incident also says how long after the act it came.
    assert re.fullmatch(rf"{re.escape(failure.what)}( [\d.]+ (ms|s) after '.*')?", first.what), first.what
    assert first.expected == failure.expected
    assert re.fullmatch(failure.seen, first.seen), first.seen
    lines = failure_lines(verdict)
    assert len(lines) <= LONGEST_FAILURE_LINES
    assert any(line.startswith(f"blame     {failure.witness} ") for line in lines)
    assert json.loads((verdict.evidence / "verdict.json").read_text())["outcome"] == "failed"


def kill(guest: Guest) -> None:
    os.kill(guest.vm.pid, signal.SIGKILL)


def quit_qemu(guest: Guest) -> None:
    guest.vm.execute("quit")


def pause(guest: Guest) -> None:
    guest.vm.execute("stop")


def reset(guest: Guest) -> None:
    guest.vm.execute("system_reset")


def press_the_power_button(guest: Guest) -> None:
    guest.vm.execute("system_powerdown")


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (kill, r"QEMU was killed by SIGKILL"),
        (
            quit_qemu,
            r"after a shutdown \(host-qmp-quit\)|somebody ended QEMU over QMP",
        ),
        (pause, r"somebody paused the guest \(run state paused\)"),
        (reset, r"somebody reset the guest over QMP"),
        (press_the_power_button, r"somebody pressed the guest's power button"),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_is_an_error_that_names_what_was_done_to_the_vm(run: Run, deed, error: str, number: int) -> None:
    def before_step(step: Step, guest: Guest) -> None:
        if step.number == number:
            deed(guest)

    verdict = run(plan("[accept]", VCPU, DIMM), before_step=before_step)
    assert verdict.outcome == "error", failure_lines(verdict)
    assert verdict.error is not None
    assert re.search(error, verdict.error), verdict.error
    assert [step.number for step in verdict.steps] == list(range(1, number))


def test_is_an_error_when_qemu_dies_while_an_answer_is_awaited(run: Run) -> None:
    def before_step(_step: Step, guest: Guest) -> None:
        listening = threading.Event()

        def kill_once_acpi_has_answered() -> None:
            with guest.vm.listen("ACPI_DEVICE_OST") as ost:
                listening.set()
                ost.get(deadline=Deadline.after(20))
            kill(guest)

        threading.Thread(target=kill_once_acpi_has_answered, daemon=True).start()
        assert listening.wait(20)

    verdict = run(plan("[in_progress]", DIMM), before_step=before_step)
    assert verdict.outcome == "error", failure_lines(verdict)
    assert "SIGKILL" in str(verdict.error)
    unfinished = verdict.unfinished
    assert unfinished is not None
    assert (unfinished.number, [one.status for one in unfinished.ospm]) == (1, [0x80])


def test_a_pause_ends_with_the_vm(run: Run) -> None:
    def before_step(step: Step, guest: Guest) -> None:
        if step.number == 2:
            threading.Timer(0.3, kill, [guest]).start()

    pause = "  - {pause: 10 min, expect: {driver: []}}\n"
    verdict = run(plan("[accept]", DIMM, pause), before_step=before_step)
    assert verdict.outcome == "error", failure_lines(verdict)
    assert "SIGKILL" in str(verdict.error)


def test_a_guest_that_dies_between_two_steps_fails_the_one_before(run: Run) -> None:
    def before_step(step: Step, guest: Guest) -> None:
        if step.number == 2:
            assert isinstance(guest, QtestGuest)
            heard = threading.Event()
            with guest.vm.watch.when_incident(lambda _incident: heard.set()):
                guest.panic(deadline=Deadline.after(20))
                assert heard.wait(20)

    verdict = run(plan("[accept]", VCPU, DIMM), before_step=before_step)
    assert_failed(verdict, gone("the guest panicked", "GUEST_PANICKED: action pause"))


def answering(status: int, *, before: int) -> BeforeStep:
    """Return what has the guest's ACPI answer for the first DIMM between two steps."""

    def before_step(step: Step, guest: Guest) -> None:
        if step.number == before:
            assert isinstance(guest, QtestGuest)
            with guest.vm.listen("ACPI_DEVICE_OST") as heard:
                deadline = Deadline.after(20)
                guest.answer(Place("dimm", 0), status=status, deadline=deadline)
                heard.get(deadline=deadline)

    return before_step


def test_an_answer_between_two_steps_is_judged_with_the_one_before(run: Run) -> None:
    verdict = run(plan("[accept]", DIMM, VCPU), before_step=answering(0x81, before=2))
    assert_failed(verdict, failed_at_ospm(r".*status 0x0 \(success\), status 0x81 \(.*"))
    assert [step.number for step in verdict.steps] == [1], "nothing is done after that"


def test_a_success_may_be_repeated_between_two_steps(run: Run) -> None:
    verdict = run(plan("[accept]", DIMM, VCPU), before_step=answering(0, before=2))
    assert verdict.outcome == "passed", failure_lines(verdict)
    assert told(verdict) == [("dimm0", 0), ("dimm0", 0), ("vcpu1", 0)]


def test_an_answer_before_the_first_step_is_one_that_nobody_asked_for(run: Run) -> None:
    verdict = run(plan("[accept]", VCPU, VCPU), before_step=answering(0, before=1))
    assert_failed(
        verdict,
        Failure("ospm", "an ACPI answer (_OST) that nobody asked for", "none", r"DIMM 0: source 0x1, .*"),
    )


def told(verdict: Verdict) -> list[tuple[str, int]]:
    """Return who was answered and how, in the order in which QEMU told of it."""
    return [(one.device_id, one.status) for step in verdict.steps for one in step.ospm]


def test_the_answers_come_as_the_script_says(run: Run) -> None:
    verdict = run(plan("[accept, {reversed: 3}, {in_progress: 10 ms}]", VCPU, BURST, DIMM))
    assert verdict.outcome == "passed", failure_lines(verdict)
    assert told(verdict) == [
        *[("vcpu0", 0)],
        *[("dimm3", 0), ("vcpu2", 0), ("vcpu1", 0)],
        *[("dimm4", 0x80), ("dimm4", 0)],
    ]


def test_the_last_entry_goes_on_for_ever(run: Run) -> None:
    verdict = run(plan("[twice, accept]", VCPU, VCPU, DIMM, DIMM))
    assert told(verdict) == [("vcpu0", 0), ("vcpu0", 0), ("vcpu1", 0), ("dimm2", 0), ("dimm3", 0)]


def test_a_guest_does_not_notice_what_is_plugged_while_it_is_paused(run: Run) -> None:
    step = "  - {plug: {vcpus: 1, dimms: [128 MiB], paused: true}, expect: {driver: []}}\n"
    verdict = run(plan("[accept]", step))
    assert verdict.outcome == "passed", failure_lines(verdict)
    log = (verdict.evidence / "qmp.jsonl").read_text().splitlines()
    events = [line["event"]["event"] for line in map(json.loads, log) if "event" in line]
    assert events[:4] == ["STOP", "RESUME", "ACPI_DEVICE_OST", "ACPI_DEVICE_OST"]
