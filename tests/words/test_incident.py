# SPDX-License-Identifier: MIT
"""What QEMU's events and run states tell of, as a table; and whatever they hold, something is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evidence.incident import (
    INCIDENT_EVENTS,
    Incident,
    count_restarts,
    incident_of,
    incident_of_run_state,
    incident_of_stop,
    is_restart_by_guest,
)

AT_S = 7.5
BUG_CHECK = {"type": "hyper-v", "arg1": 0xEF, "arg2": 0xFFFF_8001_0000_0080, "arg3": 0, "arg4": 0, "arg5": 1}
DISK_FULL = {
    "device": "disk0",
    "node-name": "#block123",
    "operation": "write",
    "action": "stop",
    "nospace": True,
    "reason": "No space left on device",
}
DISK_BROKEN = {**DISK_FULL, "nospace": False, "reason": "Input/output error"}

EVENTS = [
    ("RESET", {"guest": True, "reason": "guest-reset"}, "guest", "the guest restarted"),
    ("RESET", {"guest": True, "reason": "guest-panic"}, "guest", "the guest panicked"),
    (
        *("RESET", {"guest": False, "reason": "host-qmp-system-reset"}, "bench"),
        "somebody reset the guest over QMP",
    ),
    ("RESET", {"guest": True, "reason": "snapshot-load"}, "bench", "somebody loaded a snapshot"),
    ("RESET", {"guest": True, "reason": "of a later QEMU"}, "guest", "the guest restarted"),
    ("RESET", {"guest": False, "reason": "none"}, "bench", "QEMU reset the guest"),
    ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}, "guest", "the guest powered off"),
    ("SHUTDOWN", {"guest": True, "reason": "guest-panic"}, "guest", "the guest panicked"),
    ("SHUTDOWN", {"guest": True, "reason": "guest-reset"}, "guest", "the guest restarted"),
    ("SHUTDOWN", {"guest": False, "reason": "host-signal"}, "bench", "QEMU was told to end (host-signal)"),
    ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}, "bench", "somebody ended QEMU over QMP"),
    ("SHUTDOWN", {"guest": False, "reason": "host-error"}, "bench", "QEMU failed on its host"),
    ("SHUTDOWN", {}, "bench", "QEMU ended"),
    ("POWERDOWN", {}, "bench", "somebody pressed the guest's power button"),
    ("RESUME", {}, "bench", "somebody let the guest run on"),
    ("SUSPEND", {}, "guest", "the guest suspended itself"),
    ("SUSPEND_DISK", {}, "guest", "the guest hibernated"),
    ("WAKEUP", {}, "guest", "the guest woke up"),
    ("GUEST_PANICKED", {"action": "pause"}, "guest", "the guest panicked"),
    ("GUEST_CRASHLOADED", {"action": "run"}, "guest", "the guest panicked and starts its crash kernel"),
    ("GUEST_PVSHUTDOWN", {}, "guest", "the guest asked to be powered off"),
    ("WATCHDOG", {"action": "reset"}, "guest", "the guest's watchdog fired"),
    (
        *("BLOCK_IO_ERROR", DISK_FULL, "bench"),
        "QEMU paused the guest: No space left on device (drive disk0)",
    ),
    (
        *("BLOCK_IO_ERROR", {**DISK_BROKEN, "action": "report"}, "bench"),
        "the guest was given an error of its disk: Input/output error (drive disk0)",
    ),
    (
        *("BLOCK_IO_ERROR", {**DISK_BROKEN, "device": "", "action": "ignore"}, "bench"),
        "QEMU ignored an error of the guest's disk: Input/output error (drive #block123)",
    ),
    (
        *("BLOCK_IMAGE_CORRUPTED", {"device": "disk0", "msg": "overlaps", "fatal": True}, "bench"),
        "the guest's disk image is damaged: overlaps",
    ),
    ("MEMORY_FAILURE", {"recipient": "guest"}, "bench", "memory of the host is broken"),
    ("MEM_UNPLUG_ERROR", {"device": "dimm1", "msg": "no"}, "guest", "the guest did not let go of dimm1"),
    ("DEVICE_UNPLUG_GUEST_ERROR", {"path": "/machine/x"}, "guest", "the guest did not let go of /machine/x"),
]


@pytest.mark.parametrize(("name", "data", "blame", "what"), EVENTS)
def test_an_event_says_what_happened_and_whose_doing_it_was(
    name: str, data: object, blame: str, what: str
) -> None:
    incident = incident_of(name, data, AT_S)
    assert incident is not None
    assert (incident.name, incident.what, incident.blame, incident.at_s) == (name, what, blame, AT_S)


def test_the_table_above_leaves_no_event_out() -> None:
    assert {name for name, *_ in EVENTS} | {"STOP"} == INCIDENT_EVENTS


@pytest.mark.parametrize(
    "name", ["STOP", "ACPI_DEVICE_OST", "RTC_CHANGE", "BLOCK_JOB_COMPLETED", "MIGRATION"]
)
def test_other_events_are_no_incidents_by_themselves(name: str) -> None:
    assert incident_of(name, {}, AT_S) is None


def test_qemus_data_are_quoted() -> None:
    reset = incident_of("RESET", {"guest": True, "reason": "guest-reset"}, AT_S)
    assert str(reset) == "the guest restarted (RESET: guest yes, reason guest-reset)"
    panic = incident_of("GUEST_PANICKED", {"action": "pause", "info": BUG_CHECK}, AT_S)
    assert str(panic) == (
        "the guest panicked (GUEST_PANICKED: action pause, "
        "info bug check 0xef (0xffff800100000080, 0x0, 0x0, 0x1))"
    )
    failure = incident_of("MEMORY_FAILURE", {"action": "inject", "flags": {"recursive": False}}, AT_S)
    assert failure is not None
    assert failure.details == "MEMORY_FAILURE: action inject, flags {recursive no}"
    disk = incident_of("BLOCK_IO_ERROR", DISK_FULL, AT_S)
    assert disk is not None
    assert disk.details == (
        "BLOCK_IO_ERROR: device disk0, node-name #block123, operation write, action stop, nospace yes, "
        "reason No space left on device"
    )


RUN_STATES = [
    ("paused", "bench", "somebody paused the guest"),
    ("debug", "bench", "somebody's debugger stopped the guest"),
    ("io-error", "bench", "QEMU paused the guest: its disk failed"),
    ("internal-error", "bench", "QEMU or KVM failed and paused the guest"),
    ("postmigrate", "bench", "somebody migrated the guest away"),
    ("shutdown", "guest", "the guest powered off"),
    ("suspended", "guest", "the guest suspended itself"),
    ("watchdog", "guest", "the guest's watchdog fired"),
    ("guest-panicked", "guest", "the guest panicked"),
    ("of a later QEMU", "bench", "QEMU paused the guest"),
]


@pytest.mark.parametrize(("status", "blame", "what"), RUN_STATES)
def test_a_run_state_says_why_the_guest_does_not_run(status: str, blame: str, what: str) -> None:
    details = f"run state {status}"
    assert incident_of_run_state(status, AT_S) == Incident("STOP", what, blame, AT_S, details)
    assert incident_of_stop(status, AT_S) == incident_of_run_state(status, AT_S)


@pytest.mark.parametrize("status", ["running", "prelaunch", "inmigrate"])
def test_a_guest_that_runs_or_was_not_started_is_well(status: str) -> None:
    assert incident_of_run_state(status, AT_S) is None


def test_a_stop_is_told_even_if_its_cause_is_not_known_any_more() -> None:
    assert incident_of_stop("running", AT_S).what == "somebody paused the guest for a moment"
    assert incident_of_stop(None, AT_S).what == "QEMU paused the guest and does not say why"


def test_a_restart_by_the_guest_is_told_from_one_by_somebody() -> None:
    assert is_restart_by_guest({"guest": True, "reason": "guest-reset"})
    assert not is_restart_by_guest({"guest": False, "reason": "host-qmp-system-reset"})
    assert not is_restart_by_guest(None)


@pytest.mark.parametrize(
    ("resets_at_s", "restarts"),
    [
        ([], 0),
        ([5.0], 1),
        ([5.0, 5.02, 5.02, 5.1], 1),
        ([5.0, 5.02, 20.0, 20.01, 20.02], 2),
        ([0.5 * number for number in range(9)], 3),  # without an end, closer than one restart
    ],
)
def test_resets_in_a_row_are_one_restart(resets_at_s: list[float], restarts: int) -> None:
    assert count_restarts(resets_at_s) == restarts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([
    "guest", "reason", "action", "info", "type", "arg1", "arg5", "device", "path", "nospace", "msg"
])  # fmt: skip
VALUES = JSON | st.sampled_from(["hyper-v", "stop", "guest-reset"])
INFO = st.dictionaries(KEYS, VALUES)


@given(
    name=st.sampled_from(sorted(INCIDENT_EVENTS - {"STOP"})), data=JSON | st.dictionaries(KEYS, VALUES | INFO)
)
def test_whatever_an_event_holds_it_is_told_in_one_line(name: str, data: object) -> None:
    incident = incident_of(name, data, AT_S)
    assert incident is not None
    assert incident.blame in ("guest", "bench")
    assert incident.what
    assert len(str(incident).splitlines()) == 1


@given(status=JSON)
def test_whatever_the_run_state_is_it_is_told(status: object) -> None:
    assert incident_of_stop(status, AT_S).name == "STOP"
