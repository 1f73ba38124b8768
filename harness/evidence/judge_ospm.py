# SPDX-License-Identifier: MIT
"""Judges what the guest's ACPI did and answered for the devices of a step. Pure.

What it did QEMU's trace events tell of every guest (:class:`AmlAct`); what it answered (``_OST``) only those
tell that evaluate it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.document.units import format_duration, format_size
from harness.evidence.effect import IN_PROGRESS, PLUG_SOURCES, SUCCESS, Answer, Device
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.witness import AmlAct, OspmStatus, StepEvidence

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
    """What the guest's ACPI did and answered: each device taken, and success for it, in time; and no failure.

    A success may be repeated: how often ``_OST`` is evaluated for one event, ACPI leaves to the system.
    """
    about = About(evidence.number, evidence.title, "ospm")
    wrong = [
        *_aml(about, evidence),
        *(mismatch for answer in evidence.effect.answers for mismatch in _answer(about, evidence, answer)),
        *_places(about, evidence),
    ]
    # What came in the place of an answer is not told twice.
    yield from wrong or [*_strays(about, evidence), *_stray_acts(about, evidence)]


def is_answered(evidence: StepEvidence) -> bool:
    """Return whether the guest's ACPI has done and answered all that it must, right or wrong."""
    for answer in evidence.effect.answers:
        statuses = {one.status for one in told(answer, evidence.ospm)}
        if (statuses or answer.required) and statuses <= set(answer.passing):
            return False
    return not list(_undone(evidence))


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
    if not answers and not answer.required:
        return
    if not final or not good.issuperset(one.status for one in answers):
        yield about.mismatch(f"the guest's {what}", wanted, seen)
    elif final[0] > evidence.within_s:
        wanted += f" within {format_duration(evidence.within_s)}"
        seen += f" after {format_duration(final[0])}"
        yield about.mismatch(f"a late {what}", wanted, seen)


def _places(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    """Compare the slots that were answered for with those that the step's devices are in."""
    for device, (slot_type, known) in _slots(evidence):
        for one in evidence.ospm:
            slot = known or one.slot
            if one.device_id == device.device_id and (one.slot_type, one.slot) != (slot_type, slot):
                yield about.mismatch(
                    f"the slot of the ACPI answer (_OST) for {device.device_id}",
                    f"{slot_type} {slot}",
                    f"{one.slot_type} {one.slot}",
                )


def _slots(evidence: StepEvidence) -> Iterator[tuple[Device, tuple[str, str | None]]]:
    """Yield the step's devices with type and number of their slots; no number for a DIMM that is gone."""
    # vCPUs are plugged by ascending place, and those of the start have the first ones.
    next_vcpu = evidence.vm_before.active_vcpus
    for device in evidence.effect.added:
        if device.is_memory:
            place = evidence.vm_after.dimm_places.get(device.device_id)
            yield device, ("DIMM", None if place is None else str(place.slot))
        else:
            yield device, ("CPU", str(next_vcpu))
            next_vcpu += 1


def _duties(evidence: StepEvidence) -> Iterator[tuple[Device, str, list[AmlAct]]]:
    """Yield what the guest's AML must do for each device, and when it did that."""
    if evidence.aml is None:
        return
    plugged = {one.device_id for one in evidence.effect.answers if one.sources == PLUG_SOURCES}
    for device, slot in _slots(evidence):
        if device.device_id in plugged and slot[1] is not None:
            for what in ("insertion taken", *(["resources read"] if device.is_memory else [])):
                acts = [one for one in evidence.aml if one.what == what and (one.slot_type, one.slot) == slot]
                yield device, what, acts


def _undone(evidence: StepEvidence) -> Iterator[str]:
    for device, what, acts in _duties(evidence):
        if not acts:
            yield f"{device.device_id}: {what}"


_AML_WHAT = {
    "insertion taken": "the insertion of {} in the guest's ACPI (AML)",
    "resources read": "the resources (_CRS) of {}",
}


def _aml(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    """The guest's AML took each insertion, and read of each DIMM where it is, in time."""
    for device, duty, acts in _duties(evidence):
        what, done = _AML_WHAT[duty].format(device.device_id), duty.rpartition(" ")[2]
        if not acts:
            yield about.mismatch(f"{what} not {done}", f"{done} by the guest", f"not {done}")
            continue
        first_s = min(one.at_s - one.error_s for one in acts) - evidence.due_from_s
        if first_s > evidence.within_s:
            wanted = f"{done} within {format_duration(evidence.within_s)}"
            yield about.mismatch(f"{what} {done} late", wanted, f"after {format_duration(first_s)}")
        if duty == "resources read":
            yield from _resources(about, evidence, device, acts)


def _resources(
    about: About, evidence: StepEvidence, device: Device, acts: Sequence[AmlAct]
) -> Iterator[Mismatch]:
    place = evidence.vm_after.dimm_places[device.device_id]
    wanted = place.address, device.size_bytes
    for one in acts:
        if (one.address, one.size_bytes) != wanted:
            yield about.mismatch(
                _AML_WHAT["resources read"].format(device.device_id),
                _resources_text(*wanted),
                _resources_text(one.address, one.size_bytes),
            )


def _resources_text(address: int | None, size_bytes: int | None) -> str:
    return f"{format_size(size_bytes or 0)} at {address or 0:#x}"


def _stray_acts(about: About, evidence: StepEvidence) -> Iterator[Mismatch]:
    """Find insertions that were taken and nobody made; a system that boots looks at all slots."""
    if evidence.aml is None or evidence.effect.boot != "same":
        return
    slots = dict(_slots(evidence)).values()
    if any(slot is None for _, slot in slots):
        return  # which one that was in, nobody can say any more
    there = {*slots, *(("CPU", str(number)) for number in range(evidence.vm_after.active_vcpus))}
    there |= {("DIMM", str(place.slot)) for place in evidence.vm_after.dimm_places.values()}
    for one in evidence.aml:
        if (one.slot_type, one.slot) not in there:
            yield about.mismatch(
                "something that the guest's ACPI (AML) did in an empty slot",
                "nothing",
                f"{one.slot_type} {one.slot}: {one.what}",
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
