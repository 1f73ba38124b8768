# SPDX-License-Identifier: MIT
"""What one step must lead to, said before it is looked at: values only.

A step kind says it once (:meth:`harness.steps.action.Action.effect`); waiting for it and judging it
(:mod:`harness.evidence.judge`) are the same code for all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

#: The words by which plans name records of the driver's log.
Word = Literal[
    "processor",
    "memory",
    "processor_removal",
    "memory_removal",
    "add_start",
    "add_complete",
    "add_failure",
    "load",
    "baseline",
    "unload",
]
WORDS: tuple[Word, ...] = get_args(Word)

DeviceKind = Literal["vcpu", "dimm"]
InterfaceClass = Literal["processor", "memory"]

#: Of the records of one step: only those of the same device in order, or all as they are written.
RecordOrder = Literal["per_device", "strict"]

#: ACPI 6.5, section 6.3.5: the source events of ``_OST`` that a plug raises: bus check and device check.
PLUG_SOURCES = (0, 1)
SUCCESS = 0
IN_PROGRESS = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the VM, present at its end of the step; None where the plan leaves the choice to QEMU."""

    device_id: str
    kind: DeviceKind
    size_bytes: int | None = None  #: of a DIMM
    slot: int | None = None
    node: int | None = None
    address: int | None = None

    @property
    def is_memory(self) -> bool:
        """Whether it brings memory, and so has a place in the VM's address space; else it is a processor."""
        return self.size_bytes is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the guest's ACPI must say of one device: in the end one of ``statuses``, before it ``passing``."""

    device_id: str
    sources: tuple[int, ...] = PLUG_SOURCES
    statuses: tuple[int, ...] = (SUCCESS,)
    passing: tuple[int, ...] = (IN_PROGRESS,)
    required: bool = True  #: else none may come, but what comes must be that


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What QEMU must say to a command of the plan's own: an answer, or a refusal with a text."""

    command: str
    returns: Mapping[str, Any] | None = field(default=None, hash=False)  #: at least these keys and values
    refused: str | None = None  #: a regular expression that is found in the text of the refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A device interface that appears or goes without any hardware; it is never counted as plugged."""

    interface_class: InterfaceClass
    event: Literal["arrival", "removal"]
    name: str  #: of the software device, part of the symbolic link


def announced_after(
    announced: tuple[Announcement, ...], announcement: Announcement
) -> tuple[Announcement, ...]:
    """Return the interfaces that are there once this has been told, in the order of their arrivals."""
    if announcement.event == "arrival":
        return (*announced, announcement)
    return tuple(one for one in announced if one.name != announcement.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """All that must be different after a step; whatever is not named must be as before."""

    # vm
    added: tuple[Device, ...] = ()  #: there when QEMU is asked again
    removed: tuple[str, ...] = ()  #: ids that are gone then
    run_state: str | None = None  #: of QMP ``query-status``; None: as before
    reply: Reply | None = None
    # ospm
    answers: tuple[Answer, ...] = ()
    # guest
    processors: int = 0  #: more (or fewer), exactly
    memory_bytes: int = 0
    told_required: bool = True  #: whether programs must be told of each interface that comes or goes
    boot: Literal["same", "new", "none"] = "same"  #: its boot id; none: it is switched off
    clock: Literal["kept", "anew"] = "kept"  #: whether guest time must be fitted to host time again
    # driver
    records: tuple[Word, ...] = ()
    order: RecordOrder = "per_device"  #: what of the records' order is demanded
    announced: tuple[Announcement, ...] = ()
    driver_runs: bool | None = None  #: afterwards; None: as before

    def asking(self, *, answers: bool, told: bool) -> Effect:
        """Return the effect on a guest whose ACPI must answer, and that must tell programs, or need not.

        What is not asked for and comes is judged all the same.
        """
        answered = tuple(replace(one, required=answers) for one in self.answers)
        return replace(self, answers=answered, told_required=told)
