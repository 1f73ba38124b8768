# SPDX-License-Identifier: MIT
"""Every way in which one thing in the evidence of a good run can be another, by witness, part and field.

``python -m tests.words.mutations`` writes what becomes of each into ``docs/driver-log.md``; a test compares
the page with it, and judges each mutation of each run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.document.units import MIB
from harness.evidence.judge_told import plain
from harness.evidence.record import CHOICES
from harness.evidence.witness import AmlAct, ObservedRecord, StepEvidence, Told, Witness
from tests.words.perfect_run import QPC_HZ, Evidence, change

PAGE = Path(__file__).parents[2] / "docs" / "driver-log.md"
BEGIN = "<!-- from here made by: python -m tests.words.mutations -->"
END = "<!-- to here -->"

HOUR = 3600 * QPC_HZ
WITHIN = "another between those before and after the step"
#: What no verdict can depend on, and why.
NOT_JUDGED = {
    (
        "load",
        "driver",
        "another version",
    ): "only the driver knows its version; but each load of a run has the same",
    ("any record", "active_processors", WITHIN): "another processor of a burst comes up at the same time",
    ("any record", "memory_bytes", WITHIN): "another DIMM of a burst comes up at the same time",
    (
        "any record",
        "time_100ns",
        "0.1 s on, with those after it",
    ): "timers have ticks and whoever reads them waits",
    ("dimm", "address", "another that is free"): "QEMU's own choice unless the plan makes it",
    ("load", "memory_from", "another, in the only load"): "which routines a kernel has only it knows",
    (
        "any record",
        "apcs_disabled",
        "another, in a callback",
    ): "nothing is documented of it",
    ("AML", "error_s", "another"): "it only says how exact an instant is",
    ("told", "error_s", "another"): "it only says how exact an instant is",
    ("told", "link", "another, with nobody else told"): "which instance a device is the guest alone knows",
    (
        "guest",
        "reading",
        "another time of day",
    ): "a guest may set it; records are judged by every reading of their step",
}


@dataclass(frozen=True, slots=True)
class Mutation:
    """One thing that is another.

    :ivar part: what it is of: the kind of a record, or what another witness speaks of.
    """

    witness: Witness
    part: str
    field: str
    to: str
    run: Evidence

    @property
    def row(self) -> tuple[str, str, str]:
        return self.part, self.field, self.to


def mutations(run: Evidence) -> Iterator[Mutation]:
    """Yield every mutation of a run, each with a run of its own."""
    if run.links:
        yield from _of_records(run)
    for number, step in enumerate(run.steps):
        for witness, part, field, to, other in _of_step(step):
            steps = [*run.steps[:number], other, *run.steps[number + 1 :]]
            yield Mutation(witness, part, field, to, replace(run, steps=steps))


# --- driver ---------------------------------------------------------------------------------------------

_Place = tuple[int, int]  # the step, 0 for before the first one, and the place in it


def _of_records(run: Evidence) -> Iterator[Mutation]:
    begun = [index for index, one in enumerate(run.earlier) if one.record.kind == "load"][-1]
    parts = [run.earlier, *(step.records for step in run.steps)]
    places = [
        (part, index)
        for part, records in enumerate(parts)
        for index in range(len(records))
        if part or index >= begun
    ]
    for before, place in zip([None, *places], places, strict=False):
        observed = parts[place[0]][place[1]]
        record = observed.record
        yield _with(run, place, "any record", "(all)", "left out", [])
        yield _with(run, place, "any record", "(all)", "there twice", [observed, observed])
        if before is not None and before[0] == place[0]:
            previous = parts[before[0]][before[1]]
            if previous.record.kind != record.kind or previous.record.line != record.line:
                yield _swapped(run, before, place, previous, observed)
        for field, to, value in _common(run, place, observed):
            yield _with(run, place, "any record", field, to, [change(observed, **{field: value})])
        step = run.steps[place[0] - 1] if place[0] else None
        if step is not None and step.told and record.link and not run.driver.existing:
            fields = {**record.fields, "link": re.sub(r"#(_?\d+|0x[0-9a-f]+)#", "#77#", record.link)}
            if fields["link"] != record.link and not any(one.record.kind == "load" for one in step.records):
                to = "one of that shape never told"
                yield _with(run, place, "notification", "link", to, [change(observed, fields=fields)])
        for field, to, text in _fields(run, observed):
            fields = {**record.fields, field: text}
            part = "any record" if field in record.context else record.kind
            yield _with(run, place, part, field, to, [change(observed, fields=fields)])


def _with(
    run: Evidence, place: _Place, part: str, field: str, to: str, instead: list[ObservedRecord]
) -> Mutation:
    step, index = place
    records = list(run.steps[step - 1].records if step else run.earlier)
    records[index : index + 1] = instead
    if step == 0:
        return Mutation("driver", part, field, to, replace(run, earlier=records))
    steps = list(run.steps)
    steps[step - 1] = replace(steps[step - 1], records=tuple(records))
    return Mutation("driver", part, field, to, replace(run, steps=steps))


def _swapped(
    run: Evidence, one: _Place, other: _Place, first: ObservedRecord, second: ObservedRecord
) -> Mutation:
    half = _with(run, one, "", "", "", [second]).run
    return _with(half, other, "any record", "(all)", "in the place of its neighbour", [first])


def _common(run: Evidence, place: _Place, observed: ObservedRecord) -> Iterator[tuple[str, str, int]]:
    record = observed.record
    yield "seq", "one more", record.seq + 1
    if record.seq:
        yield "seq", "one less", record.seq - 1
    for clock in ("time_100ns", "qpc"):
        now = getattr(record, clock)
        yield clock, "an hour later", now + HOUR
        yield clock, "an hour earlier", max(now - HOUR, 0)
        if record.kind != "load":
            yield clock, "just before the record before it", _before(run, place, clock) - 1
    yield "lost", "one more", record.lost + 1
    least, most = _processors(run, place, record.word)
    yield "active_processors", "fewer than there can be", least - 1
    yield "active_processors", "more than there can be", most + 1
    least, most = _memory(run, place, record.word)
    yield "memory_bytes", "2 MiB less than there can be", least - 2 * MIB
    yield "memory_bytes", "2 MiB more than there can be", most + 2 * MIB
    yield "memory_bytes", "0", 0


def _before(run: Evidence, place: _Place, clock: str) -> int:
    step, index = place
    told = [
        one for records in (run.earlier, *(one.records for one in run.steps[: step - 1])) for one in records
    ]
    told = told if step else []
    told += (run.steps[step - 1].records if step else run.earlier)[:index]
    return int(getattr(told[-1].record, clock))


def _processors(run: Evidence, place: _Place, word: str) -> tuple[int, int]:
    """Return how few and how many processors there can be when the record is made."""
    step = run.steps[max(place[0] - 1, 0)]
    assert step.guest_before is not None
    before = step.guest_before.active_processors
    added = step.effect.processors if place[0] else 0
    least = before + (word in ("processor", "add_complete") and added > 0)
    return least, before + added - (word == "add_start")


def _memory(run: Evidence, place: _Place, word: str) -> tuple[int, int]:
    baseline = next(one.record for one in reversed(run.earlier) if one.record.kind == "baseline")
    plugged = sum(step.effect.memory_bytes for step in run.steps[: max(place[0] - 1, 0)])
    before = baseline.memory_bytes + plugged
    effect = run.steps[place[0] - 1].effect if place[0] else None
    sizes = [one.size_bytes for one in effect.added if one.size_bytes] if effect else []
    least = before + (min(sizes) if sizes and word == "memory" else 0)
    return least, before + (effect.memory_bytes if effect else 0)


def _fields(run: Evidence, observed: ObservedRecord) -> Iterator[tuple[str, str, str]]:
    for field, text in observed.record.fields.items():
        for choice in CHOICES.get(field, ()):
            if choice != text:
                yield field, "another word" if not choice.isdigit() else "the other", choice
        yield from _FIELDS.get(field, lambda _run, _observed, _text: ())(run, observed, text)


_Others = Iterable[tuple[str, str, str]]


def _numbers(field: str) -> Callable[[Evidence, ObservedRecord, str], _Others]:
    def others(_run: Evidence, _observed: ObservedRecord, text: str) -> _Others:
        yield field, "one more", str(int(text) + 1)
        if int(text):
            yield field, "one less", str(int(text) - 1)

    return others


#: By the thread that loads or unloads the driver.
_WRITTEN_AT_ONCE = ("load", "baseline", "unload")


def _count_loads(run: Evidence) -> int:
    # Before the first step only the last one counts.
    before = any(one.record.kind == "load" for one in run.earlier)
    return before + sum(one.record.kind == "load" for step in run.steps for one in step.records)


def _driver(_run: Evidence, _observed: ObservedRecord, text: str) -> _Others:
    yield "driver", "another name", f"other/{text.partition('/')[2]}"


def _link(run: Evidence, observed: ObservedRecord, text: str) -> _Others:
    yield "link", "one of another shape", r"\??\ROOT#NOTHING"
    yield "link", "none", ""
    told = {
        one.record.link
        for records in (run.earlier, *(step.records for step in run.steps))
        for one in records
        if one.record.is_arrival and one.record.seq < observed.record.seq
    }
    if observed.record.is_arrival and observed.record.seq > 1:
        for link in sorted(link for link in told - {text} if link and link.lower().endswith(text[-39:])):
            yield "link", "one told before", link


def _status(_run: Evidence, observed: ObservedRecord, _text: str) -> _Others:
    is_failure = observed.record.word == "add_failure"
    yield "status", "a success" if is_failure else "a failure", "0x00000000" if is_failure else "0xc0000001"


def _memory_from(run: Evidence, _observed: ObservedRecord, _text: str) -> _Others:
    if _count_loads(run) > 1:
        yield "memory_from", "another than in the other loads", "Other"


def _apcs_disabled(_run: Evidence, observed: ObservedRecord, _text: str) -> _Others:
    if observed.record.kind in _WRITTEN_AT_ONCE:
        yield "apcs_disabled", "another", "1"


_FIELDS: dict[str, Callable[[Evidence, ObservedRecord, str], _Others]] = {
    "format": _numbers("format"),
    "driver": _driver,
    "qpc_hz": _numbers("qpc_hz"),
    "link": _link,
    "number": _numbers("number"),
    "group": _numbers("group"),
    "group_number": _numbers("group_number"),
    "status": _status,
    "memory_from": _memory_from,
    "irql": lambda _run, _observed, _text: iter([("irql", "another", "2")]),
    "thread": lambda _run, _observed, _text: iter([("thread", "none", "0")]),
    "apcs_disabled": _apcs_disabled,
    "cpu": lambda run, _observed, _text: iter(
        [("cpu", "one that cannot be", str(run.driver.max_processors))]
    ),
}


# --- the other witnesses --------------------------------------------------------------------------------

_Other = tuple[Witness, str, str, str, StepEvidence]


def _of_step(step: StepEvidence) -> Iterator[_Other]:
    yield from _of_vm(step)
    yield from _of_ospm(step)
    if step.aml is not None:
        yield from _of_aml(step)
    yield from _of_guest(step)
    if step.told is not None:
        yield from _of_told(step)


def _of_vm(step: StepEvidence) -> Iterator[_Other]:
    vm = step.vm_after

    def other(part: str, field: str, to: str, **changes: Any) -> _Other:
        return "vm", part, field, to, replace(step, vm_after=replace(vm, **changes))

    yield other("vm", "run_state", "another", run_state="paused" if vm.run_state != "paused" else "running")
    for more, to in ((1, "one more"), (-1, "one less")):
        yield other("vm", "active_vcpus", to, active_vcpus=vm.active_vcpus + more)
        plugged = vm.plugged_memory_bytes + more * 2 * MIB
        yield other("vm", "plugged_memory_bytes", f"2 MiB {to[4:]}", plugged_memory_bytes=plugged)
    for name in vm.vcpu_ids:
        others = tuple(one for one in vm.vcpu_ids if one != name)
        yield other("vcpu", "id", "another", vcpu_ids=(*others, "stray"))
        yield other("vcpu", "(all)", "left out", vcpu_ids=others)
        yield other("vcpu", "type", "a DIMM", vcpu_ids=others, dimm_bytes={**vm.dimm_bytes, name: 128 * MIB})
    yield other("vcpu", "(all)", "one that nobody plugged", vcpu_ids=(*vm.vcpu_ids, "stray"))
    for name, size in vm.dimm_bytes.items():
        sizes = {one: size for one, size in vm.dimm_bytes.items() if one != name}
        yield other("dimm", "id", "another", dimm_bytes={**sizes, "stray": size})
        yield other("dimm", "(all)", "left out", dimm_bytes=sizes)
        yield other("dimm", "type", "a vCPU", dimm_bytes=sizes, vcpu_ids=(*vm.vcpu_ids, name))
        yield other("dimm", "size", "2 MiB more", dimm_bytes={**sizes, name: size + 2 * MIB})
        place = vm.dimm_places[name]
        for field, value in {"slot": place.slot + 1, "node": place.node + 1}.items():
            places = {**vm.dimm_places, name: replace(place, **{field: value})}
            yield other("dimm", field, "another", dimm_places=places)
        for taken in vm.dimm_places.values():
            if taken != place:
                places = {**vm.dimm_places, name: replace(place, address=taken.address)}
                yield other("dimm", "address", "one that is taken", dimm_places=places)
    yield other("dimm", "(all)", "one that nobody plugged", dimm_bytes={**vm.dimm_bytes, "stray": 128 * MIB})


def _of_ospm(step: StepEvidence) -> Iterator[_Other]:
    for index, one in enumerate(step.ospm):
        others: dict[tuple[str, str], Mapping[str, Any]] = {
            ("status", "a failure"): {"status": 0x81},
            ("source", "an ejection"): {"source": 3},
            ("device_id", "another device"): {"device_id": "other"},
            ("slot_type", "another"): {"slot_type": "DIMM" if one.slot_type == "CPU" else "CPU"},
            ("slot", "another"): {"slot": str(int(one.slot) + 1)},
            ("at_s", "after the deadline"): {"at_s": step.due_from_s + step.within_s + 1},
        }
        is_last = one.status == 0
        for (field, to), changes in others.items():
            if field != "at_s" or is_last:
                told = list(step.ospm)
                told[index] = replace(one, **changes)
                yield "ospm", "_OST", field, to, replace(step, ospm=tuple(told))
        if is_last:
            again = replace(one, device_id="stray")
            yield (
                "ospm",
                "_OST",
                "(all)",
                "one that nobody asked for",
                replace(step, ospm=(*step.ospm, again)),
            )
            told = [other for other in step.ospm if other is not one]
            yield "ospm", "_OST", "(all)", "left out", replace(step, ospm=tuple(told))


def _of_aml(step: StepEvidence) -> Iterator[_Other]:
    acts = step.aml or ()

    def other(field: str, to: str, aml: Iterable[AmlAct]) -> _Other:
        return "ospm", "AML", field, to, replace(step, aml=tuple(aml))

    # A system that boots looks at all slots, and nothing of that is due.
    if step.effect.boot != "same":
        return
    for slot in dict.fromkeys((one.slot_type, one.slot, one.what) for one in acts):
        same = [one for one in acts if (one.slot_type, one.slot, one.what) == slot]
        others = [one for one in acts if one not in same]
        yield other("(all)", "left out", others)
        changes: dict[tuple[str, str], Mapping[str, Any]] = {
            ("what", "another"): {"what": "resources read" if slot[2] != "resources read" else "none"},
            ("slot_type", "another"): {"slot_type": "DIMM" if slot[0] == "CPU" else "CPU"},
            ("slot", "another"): {"slot": str(int(slot[1]) + 1)},
            ("at_s", "after the deadline"): {"at_s": step.due_from_s + step.within_s + 1},
        }
        for (field, to), change_ in changes.items():
            yield other(field, to, [*others, *(replace(one, **change_) for one in same)])
        if same[0].address is not None and same[0].size_bytes is not None:
            yield other("address", "another", [*others, replace(same[0], address=same[0].address + MIB)])
            more = replace(same[0], size_bytes=same[0].size_bytes + 2 * MIB)
            yield other("size_bytes", "2 MiB more", [*others, more])
    stray = AmlAct("DIMM", "255", "insertion taken", step.acted_at_s, 0.0)
    yield other("(all)", "one in an empty slot", [*acts, stray])


def _of_guest(step: StepEvidence) -> Iterator[_Other]:
    guest = step.guest_after
    if guest is None:
        return

    def other(field: str, to: str, value: object) -> _Other:
        return "guest", "guest", field, to, replace(step, guest_after=replace(guest, **{field: value}))

    for more, to in ((1, "one more"), (-1, "one less")):
        yield other("active_processors", to, guest.active_processors + more)
        yield other("memory_bytes", f"2 MiB {to[4:]}", guest.memory_bytes + more * 2 * MIB)
    assert step.guest_before is not None
    if step.effect.boot == "same":
        yield other("boot_id", "that of another boot", "another")
    else:
        yield other("boot_id", "that of the boot before", step.guest_before.boot_id)


_ELSEWHERE = r"\??\ACPI#PNP0C80#77#{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"


def _of_told(step: StepEvidence) -> Iterator[_Other]:
    told = step.told or ()

    def other(field: str, to: str, *instead: Told) -> _Other:
        return "guest", "told", field, to, replace(step, told=instead)

    for index, one in enumerate(told):
        others = (*told[:index], *told[index + 1 :])
        class_ = "memory" if one.interface_class == "processor" else "processor"
        event = "removal" if one.event == "arrival" else "arrival"
        yield other("(all)", "left out", *others)
        yield other("(all)", "there twice", *told, one)
        yield other("class", "another", *others, replace(one, interface_class=class_))
        yield other("event", "another", *others, replace(one, event=event))
        late_s = step.due_from_s + step.within_s + 1
        yield other("at_s", "after the deadline", *others, replace(one, at_s=late_s))
        elsewhere = (*others, replace(one, link=_ELSEWHERE))
        if plain(one.link) in {plain(announced.link) for announced in step.announced}:
            yield other("link", "another than was announced", *elsewhere)
        elif plain(one.link) in {plain(observed.record.link or "") for observed in step.records}:
            to = "another than the driver was told"
            yield "driver", "told", "link", to, replace(step, told=elsewhere)
    stray = Told("memory", "removal", _ELSEWHERE, 0.0, 0.0)
    yield other("(all)", "one of what nobody did", *told, stray)


# --- what stays a good run ------------------------------------------------------------------------------


def harmless(run: Evidence) -> Iterator[Mutation]:
    """Yield what may be another without any verdict being another; each is in :data:`NOT_JUDGED`."""
    count = _count_loads(run)
    for number, records in enumerate([run.earlier, *(step.records for step in run.steps)]):
        for index, observed in enumerate(records):
            record, place = observed.record, (number, index)
            if record.kind == "load" and count == 1:
                fields = {**record.fields, "driver": f"{record.fields['driver']}-other"}
                yield _with(
                    run, place, "load", "driver", "another version", [change(observed, fields=fields)]
                )
                if "memory_from" in record.fields:
                    fields = {**record.fields, "memory_from": "Other"}
                    to = "another, in the only load"
                    yield _with(run, place, "load", "memory_from", to, [change(observed, fields=fields)])
            if "apcs_disabled" in record.fields and record.kind not in _WRITTEN_AT_ONCE:
                fields = {**record.fields, "apcs_disabled": "1"}
                to = "another, in a callback"
                yield _with(run, place, "any record", "apcs_disabled", to, [change(observed, fields=fields)])
            if number:
                yield from _within(run, place, observed)
    for number, step in enumerate(run.steps):
        for name, was in step.vm_after.dimm_places.items():
            chosen = [one.address for one in step.effect.added if one.device_id == name]
            if chosen == [None]:
                moved = replace(was, address=was.address + (1 << 40))
                places = {**step.vm_after.dimm_places, name: moved}
                there = {
                    index: replace(act, address=moved.address)
                    for index, act in enumerate(step.aml or ())
                    if act.address == was.address
                }
                aml = [there.get(index, act) for index, act in enumerate(step.aml or ())]
                vm_after = replace(step.vm_after, dimm_places=places)
                other = replace(step, vm_after=vm_after, aml=None if step.aml is None else tuple(aml))
                steps = [*run.steps[:number], other, *run.steps[number + 1 :]]
                yield Mutation("vm", "dimm", "address", "another that is free", replace(run, steps=steps))
        for one in step.told or ():
            rest = [other for other in step.told or () if other is not one]
            changes: dict[tuple[str, str], Mapping[str, Any]] = {("error_s", "another"): {"error_s": 0.5}}
            others = [*step.announced, *(observed.record for observed in step.records)]
            if plain(one.link) not in {plain(other.link or "") for other in others}:
                changes["link", "another, with nobody else told"] = {"link": _ELSEWHERE}
            for (field, to), change_ in changes.items():
                told = (*rest, replace(one, **change_))
                steps = [*run.steps[:number], replace(step, told=told), *run.steps[number + 1 :]]
                yield Mutation("guest", "told", field, to, replace(run, steps=steps))
        for act in step.aml or ():
            acts = [replace(one, error_s=0.5) if one is act else one for one in step.aml or ()]
            steps = [*run.steps[:number], replace(step, aml=tuple(acts)), *run.steps[number + 1 :]]
            yield Mutation("ospm", "AML", "error_s", "another", replace(run, steps=steps))
        guest = step.guest_after
        if guest is not None and guest.reading is not None:
            was_set = replace(guest.reading, time_100ns=guest.reading.time_100ns + HOUR)
            other = replace(step, guest_after=replace(guest, reading=was_set))
            steps = [*run.steps[:number], other, *run.steps[number + 1 :]]
            yield Mutation("guest", "guest", "reading", "another time of day", replace(run, steps=steps))


def _within(run: Evidence, place: _Place, observed: ObservedRecord) -> Iterator[Mutation]:
    record = observed.record
    bounds = {
        "active_processors": _processors(run, place, record.word),
        "memory_bytes": _memory(run, place, record.word),
    }
    if record.kind != "baseline":
        for field, between in bounds.items():
            for value in set(between) - {getattr(record, field)}:
                yield _with(run, place, "any record", field, WITHIN, [change(observed, **{field: value})])
    step = place[0] - 1
    if place[1] == len(run.steps[step].records) - 1 and step == len(run.steps) - 1:
        later = change(observed, time_100ns=record.time_100ns + QPC_HZ // 10)
        yield _with(run, place, "any record", "time_100ns", "0.1 s on, with those after it", [later])


# --- the page -------------------------------------------------------------------------------------------


def table(runs: Iterable[Evidence]) -> str:
    """Return what becomes of each mutation of these runs, as a table for a page."""
    rows: dict[tuple[str, str, str], str] = {}
    for run in runs:
        for mutation in mutations(run):
            rows.setdefault(mutation.row, f"failed, blame on {mutation.witness}")
    for row, reason in NOT_JUDGED.items():
        rows[row] = f"none: {reason}"
    ordered = sorted(rows.items(), key=lambda item: (_PARTS.index(item[0][0]), item[0]))
    lines = [f"| {part} | {_shown(field)} | {to} | {verdict} |" for (part, field, to), verdict in ordered]
    return "\n".join(["| of | field | is | verdict |", "|---|---|---|---|", *lines])


def with_table(page: str, runs: Iterable[Evidence]) -> str:
    """Return a page with all that stands between its two marks made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs a line '{BEGIN}' and below it a line '{END}'")
    return f"{before}{BEGIN}\n\n{table(runs)}\n\n{END}{after}"


_PARTS = (
    *("any record", "load", "notification", "processor_change"),
    *("vm", "vcpu", "dimm", "AML", "_OST", "guest", "told"),
)


def _shown(field: str) -> str:
    return "all of it" if field == "(all)" else f"`{field}`"


if __name__ == "__main__":
    from tests.words.test_mutations import perfect_runs

    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), perfect_runs().values()), encoding="utf-8")
