# SPDX-License-Identifier: MIT
"""Evidence that differs from a step's effect in one thing, each with the witness that is to be blamed.

The list is derived from the effect, so whatever step kind there will be is covered as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from harness.document.units import GIB, MIB
from harness.evidence.effect import Answer
from harness.evidence.witness import ObservedRecord, StepEvidence, VmState, Witness
from tests.words.perfect_run import Driver, arrival, change

DIMM_BYTES = 2 * MIB


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as the effect says.

    :ivar waits: it may yet come, so the witness is to be asked again.
    """

    what: str
    witness: Witness
    evidence: StepEvidence
    waits: bool = False


def deviations(evidence: StepEvidence, last_seq: int) -> Iterator[Deviation]:
    """Yield every deviation there is from perfect evidence.

    :param last_seq: of the driver's record before the step.
    """
    for deviate in DEVIATIONS.values():
        yield from deviate(evidence, last_seq)


def _vm(evidence: StepEvidence, what: str, *, waits: bool = False, **changes: Any) -> Deviation:
    vm = replace(evidence.vm_after, **changes)
    return Deviation(what, "vm", replace(evidence, vm_after=vm), waits)


def _guest(evidence: StepEvidence, what: str, *, waits: bool = False, **changes: Any) -> Iterator[Deviation]:
    if evidence.guest_before is not None and evidence.guest_after is not None:
        guest = replace(evidence.guest_after, **changes)
        yield Deviation(what, "guest", replace(evidence, guest_after=guest), waits)


# --- vm -------------------------------------------------------------------------------------------------


def _added(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    vm = evidence.vm_after
    for device in evidence.effect.added:
        yield _vm(evidence, f"{device.device_id} missing", waits=True, **_without(vm, device.device_id))
        if device.kind == "dimm":
            sizes = {**vm.dimm_bytes, device.device_id: vm.dimm_bytes[device.device_id] + DIMM_BYTES}
            yield _vm(evidence, f"{device.device_id} of another size", dimm_bytes=sizes)
        for name in ("slot", "node", "address"):
            wanted = getattr(device, name)
            if wanted is not None:
                place = replace(vm.dimm_places[device.device_id], **{name: wanted + DIMM_BYTES})
                places = {**vm.dimm_places, device.device_id: place}
                yield _vm(evidence, f"{device.device_id} with another {name}", dimm_places=places)
    yield _vm(evidence, "a vCPU that nobody plugged", vcpu_ids=(*vm.vcpu_ids, "stray"))
    yield _vm(evidence, "a DIMM that nobody plugged", dimm_bytes={**vm.dimm_bytes, "stray": DIMM_BYTES})


def _removed(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    before, after = evidence.vm_before, evidence.vm_after
    for name in evidence.effect.removed:
        there = (
            {"vcpu_ids": (*after.vcpu_ids, name)}
            if name in before.vcpu_ids
            else {"dimm_bytes": {**after.dimm_bytes, name: before.dimm_bytes[name]}}
        )
        yield _vm(evidence, f"{name} still there", waits=True, **there)
    for name in {*before.vcpu_ids, *before.dimm_bytes} - set(evidence.effect.removed):
        yield _vm(evidence, f"{name} gone", **_without(after, name))
    for name, place in after.dimm_places.items():
        if name in before.dimm_places:
            moved = {**after.dimm_places, name: replace(place, slot=place.slot + 1)}
            yield _vm(evidence, f"{name} in another slot than before", dimm_places=moved)


def _without(vm: VmState, name: str) -> dict[str, Any]:
    return {
        "vcpu_ids": tuple(one for one in vm.vcpu_ids if one != name),
        "dimm_bytes": {one: size for one, size in vm.dimm_bytes.items() if one != name},
        "dimm_places": {one: place for one, place in vm.dimm_places.items() if one != name},
    }


def _run_state(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    for state in {"running", "paused", "shutdown", "internal-error"} - {evidence.vm_after.run_state}:
        yield _vm(evidence, f"run state {state}", waits=True, run_state=state)


def _reply(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    reply, answered = evidence.effect.reply, evidence.answered
    if reply is None or answered is None:
        return

    def with_answer(what: str, *, returned: Any = None, refused: str | None = None) -> Deviation:
        other = replace(answered, returned=returned, refused=refused)
        return Deviation(what, "vm", replace(evidence, answered=other))

    if reply.refused is not None:
        yield with_answer("not refused", returned={})
        if not re.search(reply.refused, "for another reason"):
            yield with_answer("refused for another reason", refused="for another reason")
        return
    yield with_answer("refused", refused="not now")
    for key, value in (reply.returns or {}).items():
        others = {name: one for name, one in answered.returned.items() if name != key}
        yield with_answer(f"no {key!r} in the answer", returned=others)
        if value is not None:
            yield with_answer(f"another {key!r} in the answer", returned={**others, key: f"not {value}"})


# --- ospm -----------------------------------------------------------------------------------------------


def _answers(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    for answer in evidence.effect.answers:
        [given] = [one for one in evidence.ospm if one.device_id == answer.device_id]
        others = tuple(one for one in evidence.ospm if one is not given)

        def instead(what: str, *, waits: bool = False, others: Any = others, **changes: Any) -> Deviation:
            answers = (*others, replace(given, **changes))  # noqa: B023
            return Deviation(what, "ospm", replace(evidence, ospm=answers), waits)

        waits = answer.required
        if waits:
            nothing = replace(evidence, ospm=others)
            yield Deviation(f"no answer for {answer.device_id}", "ospm", nothing, waits=True)
        yield instead(f"an answer for another device than {answer.device_id}", device_id="other", waits=waits)
        yield instead("an answer from another source", source=max(answer.sources) + 1, waits=waits)
        yield instead("a failure", status=_failure(answer))
        yield instead("a failure before the success", others=(*evidence.ospm,), status=_failure(answer))
        for status in answer.passing:
            yield instead("an answer that is not the last", status=status, waits=True)
    yield from _aml(evidence)


def _aml(evidence: StepEvidence) -> Iterator[Deviation]:
    acts = evidence.aml or ()
    for act in acts:
        others = tuple(one for one in acts if one is not act)
        late = replace(act, at_s=evidence.due_from_s + evidence.within_s + 1)
        yield Deviation(f"no {act.what}", "ospm", replace(evidence, aml=others), True)
        yield Deviation(f"a late {act.what}", "ospm", replace(evidence, aml=(*others, late)), False)


def _failure(answer: Answer) -> int:
    return min({1, 0x81, 0x82, 0x83} - {*answer.statuses, *answer.passing})


# --- guest ----------------------------------------------------------------------------------------------


def _processors(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    wanted, state = evidence.effect.processors, evidence.guest_after
    for more in (-1, 1):
        count = evidence.vm_after.active_vcpus + more
        yield _vm(evidence, f"vCPUs off by {more}", active_vcpus=count)
        if state is not None:
            yield from _guest(
                evidence,
                f"processors off by {more}",
                active_processors=state.active_processors + more,
                waits=more < 0 <= wanted or wanted < 0 < more,
            )


def _memory_bytes(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    wanted, state = evidence.effect.memory_bytes, evidence.guest_after
    for more in (-DIMM_BYTES, DIMM_BYTES):
        plugged = evidence.vm_after.plugged_memory_bytes + more
        yield _vm(evidence, f"plugged memory off by {more}", plugged_memory_bytes=plugged)
        if state is not None:
            yield from _guest(
                evidence,
                f"memory off by {more}",
                memory_bytes=state.memory_bytes + more,
                waits=more < 0 <= wanted or wanted < 0 < more,
            )


def _boot(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    before, boot = evidence.guest_before, evidence.effect.boot
    if before is None:
        return
    if boot == "same":
        yield from _guest(evidence, "another boot", boot_id="another")
    if boot == "new":
        yield from _guest(evidence, "the same boot", boot_id=before.boot_id)
    after = before if boot == "none" else None
    yield Deviation("whether there is a guest", "guest", replace(evidence, guest_after=after))


def _told(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    told = evidence.told or ()
    for index, one in enumerate(told):
        others = (*told[:index], *told[index + 1 :])
        late = replace(one, at_s=evidence.due_from_s + evidence.within_s + 1)
        yield Deviation("told late", "guest", replace(evidence, told=(*others, late)))
        if evidence.effect.told_required:
            yield Deviation("nobody told", "guest", replace(evidence, told=others), True)
            yield Deviation("told twice", "guest", replace(evidence, told=(*told, one)))


# --- driver ---------------------------------------------------------------------------------------------


def _records(evidence: StepEvidence, last_seq: int) -> Iterator[Deviation]:
    seen = evidence.records

    def instead(what: str, *records: ObservedRecord, waits: bool = False) -> Deviation:
        told = tuple(_numbered(records, last_seq))
        return Deviation(what, "driver", replace(evidence, records=told), waits)

    extra = Driver(seq=0).write("notification", arrival("memory", 99), at_s=evidence.acted_at_s)
    yield instead("one record too many", *seen, extra)
    for index, observed in enumerate(seen):
        before, after = seen[:index], seen[index + 1 :]
        word = observed.record.word
        yield instead(f"no {word}", *before, *after, waits=True)
        yield instead(f"{word} twice", *before, observed, observed, *after)
        if observed.record.is_arrival:
            elsewhere = {**observed.record.fields, "link": r"\??\ROOT#NOTHING"}
            yield instead(
                f"{word} with a link of no {word}", *before, change(observed, fields=elsewhere), *after
            )
        late_s = evidence.due_from_s + evidence.within_s + observed.clock_error_s + 1.0
        yield instead(f"{word} late", *before, replace(observed, written_at_s=late_s), *after)
        yield instead(f"{word} with a loss", *before, change(observed, lost=1), *after)
        if word != "load":
            yield instead(f"a gap before {word}", *before, change(observed, seq=-1), *after)
        if word == "baseline":
            processors, memory_bytes = observed.record.active_processors, observed.record.memory_bytes
            if evidence.guest_after is not None:
                wrong = change(observed, active_processors=processors + 1)
                yield instead("a baseline with a processor too many", *before, wrong, *after)
            wrong = change(observed, memory_bytes=memory_bytes + GIB)
            yield instead("a baseline with memory too much", *before, wrong, *after)


def _order(evidence: StepEvidence, last_seq: int) -> Iterator[Deviation]:
    for index, (one, other) in enumerate(pairwise(evidence.records)):
        first, second = one.record.word, other.record.word
        if first != second and (evidence.effect.order == "strict" or is_promised(one, other)):
            told = swapped(evidence.records, index, last_seq)
            yield Deviation(f"{second} before {first}", "driver", replace(evidence, records=told))


def is_promised(one: ObservedRecord, other: ObservedRecord) -> bool:
    """Return whether these two can come in this order only, where all before them is in the usual one."""
    words = (one.record.word, other.record.word)
    return words in (("add_start", "add_complete"), ("add_complete", "processor")) or not {
        "load",
        "baseline",
        "unload",
    }.isdisjoint(words)


def swapped(records: Sequence[ObservedRecord], index: int, last_seq: int) -> tuple[ObservedRecord, ...]:
    """Return the records with what two neighbours tell exchanged; their numbers and clocks stay in order."""
    one, other = records[index : index + 2]
    stamps = [
        {name: getattr(observed.record, name) for name in ("time_100ns", "qpc")} for observed in (one, other)
    ]
    pair = [change(other, **stamps[0]), change(one, **stamps[1])]
    return tuple(_numbered([*records[:index], *pair, *records[index + 2 :]], last_seq))


def _announced(evidence: StepEvidence, last_seq: int) -> Iterator[Deviation]:
    for announced in evidence.announced:
        for index, observed in enumerate(evidence.records):
            fields = observed.record.fields
            classes = {"processor", "memory"} - {announced.announcement.interface_class}
            events = {"arrival", "removal"} - {announced.announcement.event}
            other = {
                "another link": {"link": f"{announced.link}#x"},
                "another class": {"class": classes.pop()},
                "another event": {"event": events.pop()},
                "the arrival of something plugged": {
                    "event": "arrival",
                    "link": _plugged_link(fields["class"]),
                },
            }
            for what, changes in other.items():
                records = list(evidence.records)
                records[index] = change(observed, fields={**fields, **changes})
                told = tuple(_numbered(records, last_seq))
                yield Deviation(f"{what} than announced", "driver", replace(evidence, records=told))


def _plugged_link(class_: str) -> str:
    return arrival(class_, 99).partition("link=")[2]


def _driver_runs(evidence: StepEvidence, _last_seq: int) -> Iterator[Deviation]:
    if evidence.effect.driver_runs is not None:
        yield Deviation("the driver refuses", "driver", replace(evidence, refused="error 1053"))


def _numbered(records: Sequence[ObservedRecord], last_seq: int) -> Iterator[ObservedRecord]:
    """Number the records anew, so that none seems lost; one numbered -1 comes after a gap."""
    seq = last_seq
    for observed in records:
        seq = 0 if observed.record.kind == "load" else seq + (2 if observed.record.seq == -1 else 1)
        yield change(observed, seq=seq)


#: By the field of the effect that they deviate from.
DEVIATIONS: dict[str, Callable[[StepEvidence, int], Iterator[Deviation]]] = {
    "added": _added,
    "removed": _removed,
    "run_state": _run_state,
    "reply": _reply,
    "answers": _answers,
    "told_required": _told,
    "processors": _processors,
    "memory_bytes": _memory_bytes,
    "boot": _boot,
    "records": _records,
    "order": _order,
    "announced": _announced,
    "driver_runs": _driver_runs,
}

#: Fields that no witness can deviate from, and why.
NOT_WITNESSED = {"clock": "what the harness has to do after the step; no evidence speaks of it"}
