# SPDX-License-Identifier: MIT
"""Judges what the guest's ACPI answered (``_OST``) for the devices of a step. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.document.units import format_duration
from harness.evidence.effect import IN_PROGRESS, PLUG_SOURCES, SUCCESS, Answer
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.witness import OspmStatus, StepEvidence

# ACPI 6.5, section 6.3.5: the status codes of _OST.
_OST_STATUS = {
    SUCCESS: "success",
    1: "failure without a reason given",
    2: "notification not recognized",
    IN_PROGRESS: "insertion still in progress",
    0x81: "the operating system could not load a driver",
    0x82: "the device is not supported by the operating system",
}


def ospm_mismatches(evidence: StepEvidence) -> Iterator[Mismatch]:
    """What the guest's ACPI answered: success for each device of the step in time, and no failure on the way.

    A success may be repeated: how often ``_OST`` is evaluated for one event, ACPI leaves to the system.
    """
    about = About(evidence.number, evidence.title, "ospm")
    wrong = [
        *(mismatch for answer in evidence.effect.answers for mismatch in _answer(about, evidence, answer)),
        *_places(about, evidence),
    ]
    # What came in the place of an answer is not told twice.
    yield from wrong or _strays(about, evidence)


def told(answer: Answer, ospm: Sequence[OspmStatus]) -> list[OspmStatus]:
    """Return what the guest's ACPI said of one device, in answer to the events that are asked about."""
    return [one for one in ospm if one.device_id == answer.device_id and one.source in answer.sources]


def _answer(about: About, evidence: StepEvidence, answer: Answer) -> Iterator[Mismatch]:
    answers = told(answer, evidence.ospm)
    good = {*answer.statuses, *answer.passing}
    final = [one.at_s - evidence.due_from_s for one in answers if one.status in answer.statuses]
    what = f"ACPI answer (_OST) for {answer.device_id}"
    wanted = " or ".join(_ost_text(status) for status in answer.statuses)
    seen = ", ".join(_ost_text(one.status) for one in answers) or "no answer"
    if not final or not good.issuperset(one.status for one in answers):
        yield about.mismatch(f"the guest's {what}", wanted, seen)
    elif final[0] > evidence.within_s:
        wanted += f" within {format_duration(evidence.within_s)}"
        seen += f" after {format_duration(final[0])}"
        yield about.mismatch(f"a late {what}", wanted, seen)


def _places(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    """Compare the slots that were answered for with those that the step's devices are in."""
    # vCPUs are plugged by ascending place, and those of the start have the first ones.
    next_vcpu = evidence.vm_before.active_vcpus
    for device in evidence.effect.added:
        if device.is_memory:
            place = evidence.vm_after.dimm_places.get(device.device_id)
            wanted: tuple[str, int | None] = ("DIMM", None if place is None else place.slot)
        else:
            wanted = ("CPU", next_vcpu)
            next_vcpu += 1
        for one in evidence.ospm:
            slot = one.slot if wanted[1] is None else str(wanted[1])
            if one.device_id == device.device_id and (one.slot_type, one.slot) != (wanted[0], slot):
                yield about.mismatch(
                    f"the slot of the ACPI answer (_OST) for {device.device_id}",
                    f"{wanted[0]} {slot}",
                    f"{one.slot_type} {one.slot}",
                )


def _strays(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    """Find answers to what nobody did; a success may come again for what was plugged before."""
    asked = [one for answer in evidence.effect.answers for one in told(answer, evidence.ospm)]
    there = {*evidence.vm_before.vcpu_ids, *evidence.vm_before.dimm_bytes}
    for one in evidence.ospm:
        is_again = one.device_id in there and one.source in PLUG_SOURCES and one.status == SUCCESS
        if one not in asked and not is_again:
            yield about.mismatch(
                "an ACPI answer (_OST) that nobody asked for",
                "none",
                f"{one.device_id or f'{one.slot_type} {one.slot}'}: source {one.source:#x}, "
                f"{_ost_text(one.status)}",
            )


def _ost_text(status: int) -> str:
    return f"status {status:#x} ({_OST_STATUS.get(status, 'unknown to ACPI 6.5')})"
