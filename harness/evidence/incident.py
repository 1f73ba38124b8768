# SPDX-License-Identifier: MIT
"""What befell the guest or its VM unasked, by QEMU's own word, and whose doing it was: pure.

QEMU tells of it by QMP events and by its run state (QEMU qapi/run-state.json and qapi/block-core.json; the
names are those of QEMU 7.2 and 10.0, of which either lacks one). Start at :func:`incident_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Blame = Literal["guest", "bench"]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that nobody had planned, as QEMU told of it."""

    name: str  #: QEMU's event, such as ``RESET``
    what: str  #: for people, such as ``the guest restarted``
    blame: Blame  #: ``guest``: the product is wrong; ``bench``: somebody, the host or QEMU broke the run
    at_s: float  #: host time.monotonic() when the harness heard of it
    details: str  #: QEMU's own data

    def __str__(self) -> str:
        return f"{self.what} ({self.details})" if self.details else self.what


def incident_of(name: str, data: object, at_s: float) -> Incident | None:
    """Return what an event of QEMU's tells of, whatever its data look like; None if it is no incident.

    ``STOP`` alone says too little: why QEMU paused the guest is told by its run state, see
    :func:`incident_of_run_state`.
    """
    tell = _TELLERS.get(name)
    if tell is None:
        return None
    fields = data if isinstance(data, Mapping) else {}
    what, blame = tell(fields)
    return Incident(name, _one_line(what), blame, at_s, _one_line(f"{name}{_quoted(fields)}"))


def incident_of_run_state(status: object, at_s: float) -> Incident | None:
    """Return why a guest that does not run does not, by the ``status`` of query-status.

    None for one that runs, or that was not started yet.
    """
    if status in _UNHARMED:
        return None
    told = RUN_STATES.get(status) if isinstance(status, str) else None
    what, blame = told or ("QEMU paused the guest", "bench")
    return Incident("STOP", what, blame, at_s, _one_line(f"run state {status}"))


def incident_of_stop(status: object, at_s: float) -> Incident:
    """Return what a ``STOP`` was, by the ``status`` of query-status asked for right after it.

    :param status: None when QEMU gave no answer.
    """
    if status is None:
        return Incident("STOP", "QEMU paused the guest and does not say why", "bench", at_s, "STOP")
    details = f"run state {status} again"
    passed = Incident("STOP", "somebody paused the guest for a moment", "bench", at_s, details)
    return incident_of_run_state(status, at_s) or passed


def is_restart_by_guest(data: object) -> bool:
    """Return whether a ``RESET`` with these data was the guest's own doing."""
    incident = incident_of("RESET", data, 0.0)
    return incident is not None and incident.blame == "guest"


def with_last_words(incidents: tuple[Incident, ...], words: str | None) -> tuple[Incident, ...]:
    """Return the incidents, the first of them explained by what the guest said of its panic, if it did."""
    if words is None or not incidents or incidents[0].blame != "guest":
        return incidents
    first = incidents[0]
    told = replace(first, what="the guest panicked", details=f"{words} (serial.log); {first.details}")
    return (told, *incidents[1:])


def count_restarts(resets_at_s: Iterable[float]) -> int:
    """Return how often the guest restarted, by the times of its ``RESET`` events in order."""
    count, last_s = 0, -math.inf
    for at_s in resets_at_s:
        if at_s - last_s >= ONE_RESTART_S:
            count, last_s = count + 1, at_s
    return count


#: RESETs that come sooner after one another are one restart: SeaBIOS answers any reset by one of its own as
#: soon as it runs ("Attempting a hard reboot" in its log), and QEMU 7.2 tells of that up to four times.
ONE_RESTART_S = 2.0

_Told = tuple[str, Blame]
_Fields = Mapping[str, Any]

#: By the ``reason`` of a RESET or SHUTDOWN: what happened and whose doing it was.
# Each reason stands for itself: QEMU counts snapshot-load among those that the guest caused.
BY_REASON: dict[str, _Told] = {
    "host-error": ("QEMU failed on its host", "bench"),
    "host-qmp-quit": ("somebody ended QEMU over QMP", "bench"),
    "host-qmp-system-reset": ("somebody reset the guest over QMP", "bench"),
    "host-signal": ("QEMU was told to end (host-signal)", "bench"),
    "host-ui": ("somebody reset or ended the guest in QEMU's window", "bench"),
    "guest-shutdown": ("the guest powered off", "guest"),
    "guest-reset": ("the guest restarted", "guest"),
    "guest-panic": ("the guest panicked", "guest"),
    "snapshot-load": ("somebody loaded a snapshot", "bench"),
}


def _by_reason(by_guest: str, otherwise: str) -> Callable[[_Fields], _Told]:
    """Return how to tell an event that has a ``reason``; the texts are for reasons not in the table."""

    def tell(fields: _Fields) -> _Told:
        reason = fields.get("reason")
        told = BY_REASON.get(reason) if isinstance(reason, str) else None
        if told is not None:
            return told
        return (by_guest, "guest") if fields.get("guest") is True else (otherwise, "bench")

    return tell


def _always(what: str, blame: Blame) -> Callable[[_Fields], _Told]:
    return lambda _fields: (what, blame)


def _block_io_error(fields: _Fields) -> _Told:
    did = {"stop": "QEMU paused the guest", "ignore": "QEMU ignored an error of the guest's disk"}
    action = fields.get("action")
    told = did.get(action) if isinstance(action, str) else None
    reason = "No space left on device" if fields.get("nospace") is True else fields.get("reason", "no reason")
    drive = fields.get("device") or fields.get("node-name") or "unknown"
    return f"{told or 'the guest was given an error of its disk'}: {reason} (drive {drive})", "bench"


def _image_corrupted(fields: _Fields) -> _Told:
    return f"the guest's disk image is damaged: {fields.get('msg', 'QEMU does not say how')}", "bench"


def _unplug_error(fields: _Fields) -> _Told:
    device = fields.get("device") or fields.get("path") or "a device"
    return f"the guest did not let go of {device}", "guest"


_TELLERS: dict[str, Callable[[_Fields], _Told]] = {
    "RESET": _by_reason("the guest restarted", "QEMU reset the guest"),
    "SHUTDOWN": _by_reason("the guest powered off", "QEMU ended"),
    "POWERDOWN": _always("somebody pressed the guest's power button", "bench"),
    "RESUME": _always("somebody let the guest run on", "bench"),
    "SUSPEND": _always("the guest suspended itself", "guest"),
    "SUSPEND_DISK": _always("the guest hibernated", "guest"),
    "WAKEUP": _always("the guest woke up", "guest"),
    "GUEST_PANICKED": _always("the guest panicked", "guest"),
    "GUEST_CRASHLOADED": _always("the guest panicked and starts its crash kernel", "guest"),
    "GUEST_PVSHUTDOWN": _always("the guest asked to be powered off", "guest"),
    "WATCHDOG": _always("the guest's watchdog fired", "guest"),
    "BLOCK_IO_ERROR": _block_io_error,
    "BLOCK_IMAGE_CORRUPTED": _image_corrupted,
    "MEMORY_FAILURE": _always("memory of the host is broken", "bench"),
    "MEM_UNPLUG_ERROR": _unplug_error,
    "DEVICE_UNPLUG_GUEST_ERROR": _unplug_error,
}

#: All events to listen for. Left out is what tells of no harm: jobs, ballooning, clock and address changes,
#: displays, migration, and the answers to plugging.
INCIDENT_EVENTS = frozenset(_TELLERS) | {"STOP"}

_UNHARMED = ("running", "prelaunch", "inmigrate")

#: By the run state of a guest that does not run: why so, and whose doing it was.
RUN_STATES: dict[str, _Told] = {
    "paused": ("somebody paused the guest", "bench"),
    "debug": ("somebody's debugger stopped the guest", "bench"),
    "internal-error": ("QEMU or KVM failed and paused the guest", "bench"),
    "io-error": ("QEMU paused the guest: its disk failed", "bench"),
    "finish-migrate": ("somebody migrated the guest away", "bench"),
    "postmigrate": ("somebody migrated the guest away", "bench"),
    "save-vm": ("somebody saved a snapshot of the guest", "bench"),
    "restore-vm": ("somebody loaded a snapshot", "bench"),
    "shutdown": ("the guest powered off", "guest"),
    "suspended": ("the guest suspended itself", "guest"),
    "watchdog": ("the guest's watchdog fired", "guest"),
    "guest-panicked": ("the guest panicked", "guest"),
}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(fields: _Fields) -> str:
    said = [f"{key} {_value(value)}" for key, value in fields.items()]
    return f": {', '.join(said)}" if said else ""


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        if value.get("type") == "hyper-v":
            return _bug_check(value)
        return "{" + ", ".join(f"{name} {_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _bug_check(info: _Fields) -> str:
    # Hyper-V TLFS, guest crash enlightenment: arg1 is the bug check's code, arg2 to arg5 its parameters.
    code, *parameters = (_hex(info.get(f"arg{number}")) for number in range(1, 6))
    return f"bug check {code} ({', '.join(parameters)})"


def _hex(value: object) -> str:
    return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}" if isinstance(value, int) else _value(value)
