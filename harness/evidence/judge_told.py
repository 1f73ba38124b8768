# SPDX-License-Identifier: MIT
"""Judges what the guest's PnP manager told a program in user mode of device interfaces. Pure.

It tells programs and drivers of the same arrivals. So what no program was told either, the platform told
nobody; what one was told, a driver without a record of it has missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, get_args

from harness.document.units import format_duration
from harness.evidence.effect import DeviceKind, InterfaceClass
from harness.evidence.mismatch import About, Mismatch
from harness.evidence.witness import StepEvidence, Told

_Event = Literal["arrival", "removal"]

CLASS_OF: dict[DeviceKind, InterfaceClass] = {"vcpu": "processor", "dimm": "memory"}


def told_mismatches(evidence: StepEvidence) -> Iterator[Mismatch]:
    """Each interface that came or went was told to programs, once and in time."""
    if evidence.told is None:
        return
    about = About(evidence.number, evidence.title, "guest")
    for (class_, event), wanted in _wanted(evidence).items():
        told = [one for one in evidence.told if (one.interface_class, one.event) == (class_, event)]
        drivers = [one.record for one in evidence.records if one.record.word == _word(class_, event)]
        if len(told) != wanted:
            misses = len(drivers) < evidence.effect.records.count(_word(class_, event))
            if evidence.effect.told_required or (len(told) < wanted and misses):
                what = f"{class_} {event}s that the guest's PnP manager told to programs"
                nobody = ": the platform told nobody" if misses else ", though the driver was told"
                few = f"{len(told) or 'none'}{nobody if len(told) < wanted else ''}"
                yield about.mismatch(what, wanted or "none", few)
            continue
        yield from _late(about, evidence, told)
        yield from _announced(about, evidence, told, class_, event)


def untold_links(evidence: StepEvidence) -> Iterator[Mismatch]:
    """Yield the driver's records with a link of which no program was told, where it was told of all."""
    if evidence.told is None or any(one.record.kind == "load" for one in evidence.records):
        return
    about = About(evidence.number, evidence.title, "driver")
    for (class_, event), wanted in _wanted(evidence).items():
        told = [one.link for one in evidence.told if (one.interface_class, one.event) == (class_, event)]
        drivers = [
            one.record.link or "" for one in evidence.records if one.record.word == _word(class_, event)
        ]
        # One more may be told again of what existed.
        if len(told) == len(drivers) == wanted:
            known = {plain(link) for link in told}
            for link in drivers:
                if plain(link) not in known:
                    yield about.mismatch("a link that no program was told", " or ".join(sorted(told)), link)


def is_told(evidence: StepEvidence) -> bool:
    """Return whether programs were told of all that they must be told of."""
    if evidence.told is None or not evidence.effect.told_required:
        return True
    told = Counter((one.interface_class, one.event) for one in evidence.told)
    return all(told[of] >= number for of, number in _wanted(evidence).items())


def plain(link: str) -> str:
    r"""Return a symbolic link in one spelling: programs see ``\\?\`` for ``\??\``, in any letter case."""
    lower = link.lower()
    return rf"\??{lower[3:]}" if lower.startswith("\\\\?\\") else lower


def _late(about: About, evidence: StepEvidence, told: list[Told]) -> Iterator[Mismatch]:
    for one in told:
        after_s = one.at_s - one.error_s - evidence.due_from_s
        if after_s > evidence.within_s:
            yield about.mismatch(
                f"a {one.interface_class} {one.event} told late to programs",
                f"told within {format_duration(evidence.within_s)}",
                f"{one.link} after {format_duration(after_s)}",
            )


def _announced(
    about: About, evidence: StepEvidence, told: list[Told], class_: InterfaceClass, event: _Event
) -> Iterator[Mismatch]:
    links = {plain(one.link) for one in told}
    for announced in evidence.announced:
        one = announced.announcement
        if (one.interface_class, one.event) == (class_, event) and plain(announced.link) not in links:
            seen = " and ".join(sorted(one.link for one in told))
            what = "the link of an announced interface, as told to programs"
            yield about.mismatch(what, announced.link, seen)


def _wanted(evidence: StepEvidence) -> dict[tuple[InterfaceClass, _Event], int]:
    """Return of how many interfaces of each class programs must be told that they came or went."""
    wanted: dict[tuple[InterfaceClass, _Event], int] = {
        (class_, event): 0 for class_ in get_args(InterfaceClass) for event in get_args(_Event)
    }
    for device in evidence.effect.added:
        wanted[CLASS_OF[device.kind], "arrival"] += 1
    for kind, class_ in CLASS_OF.items():
        there = evidence.vm_before.present(kind)
        wanted[class_, "removal"] += sum(name in there for name in evidence.effect.removed)
    for one in evidence.effect.announced:
        wanted[one.interface_class, one.event] += 1
    return wanted


def _word(class_: InterfaceClass, event: _Event) -> str:
    return class_ if event == "arrival" else f"{class_}_removal"
