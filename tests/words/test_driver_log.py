# SPDX-License-Identifier: MIT
"""The driver's log: lines to records and back, in any pieces, and what is no log."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DriverLogError
from harness.evidence.record import LogParser, Record, find_gaps

LINK = r"\??\ACPI#PNP0C80#1#{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"
LOAD = {
    "format": "1",
    "driver": "hpnotify/1.0.0",
    "qpc_hz": "10000000",
    "interfaces": "both",
    "synchronous": "0",
}

CHANGE = {"state": "add_start", "number": "1", "group": "0", "group_number": "1", "status": "0x00000000"}


def line_of(seq: int, kind: str, fields: Mapping[str, str] | None = None, **common: int) -> str:
    numbers = {"time_100ns": 1, "qpc": 2, "active_processors": 1, "memory_bytes": 2**30, "lost": 0, **common}
    values = {"seq": seq, "record": kind, **numbers, **(fields or {})}
    return " ".join(f"{key}={value}" for key, value in values.items())


def parse(*lines: str) -> list[Record]:
    return LogParser().feed("".join(f"{line}\n" for line in lines).encode())


def notification(seq: int, class_: str = "processor", event: str = "arrival") -> str:
    return line_of(seq, "notification", {"class": class_, "event": event, "link": LINK})


def test_a_notification_has_all_that_its_line_says() -> None:
    line = line_of(
        7,
        "notification",
        {"class": "memory", "event": "arrival", "link": LINK, "new_key": "a=b"},
        time_100ns=133_000_000_000_000_000,
        qpc=2**64 - 1,
        active_processors=3,
        memory_bytes=2**31,
        lost=1,
    )
    (record,) = parse(line)
    assert record == Record(
        seq=7,
        kind="notification",
        time_100ns=133_000_000_000_000_000,
        qpc=2**64 - 1,
        active_processors=3,
        memory_bytes=2**31,
        lost=1,
        fields={"class": "memory", "event": "arrival", "link": LINK, "new_key": "a=b"},
        line=line,
    )
    assert (record.class_, record.event, record.link, record.word) == ("memory", "arrival", LINK, "memory")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (line_of(0, "load", LOAD), "load"),
        (line_of(1, "baseline"), "baseline"),
        (line_of(9, "unload"), "unload"),
        (notification(2), "processor"),
        (notification(2, "memory"), "memory"),
        (notification(2, "memory", "removal"), "memory_removal"),
        (notification(2, "processor", "other"), "processor other"),
        (notification(2, "other", "arrival"), "other arrival"),
        (line_of(3, "processor_change", CHANGE), "add_start"),
    ],
)  # fmt: skip
def test_each_record_has_the_word_that_plans_use(line: str, word: str) -> None:
    assert parse(line)[0].word == word


def test_a_torn_line_waits_for_its_rest() -> None:
    parser = LogParser()
    line = notification(2).encode()
    assert parser.feed(line[:30]) == []
    assert parser.pending == line[:30]
    assert parser.feed(line[30:]) == []
    assert [record.seq for record in parser.feed(b"\n")] == [2]
    assert parser.pending == b""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "has '' where key=value must be"),
        ("rubbish", "has 'rubbish' where key=value must be"),
        (notification(2) + "\r", "is not printable ASCII"),
        (notification(2).replace("ACPI", "ÄCPI"), "is not printable ASCII"),
        (notification(2) + " ", "has '' where key=value must be"),
        (notification(2).replace(" qpc", "  qpc"), "has '' where key=value must be"),
        (notification(2) + " lost=0", "has the key 'lost' twice"),
        (notification(2).replace(" lost=0", ""), "does not start with the keys seq record time_100ns qpc"),
        ("record=unload seq=3", "does not start with the keys seq record"),
        (line_of(3, "unload", lost=-1), "has lost=-1, not a number up to 18446744073709551615"),
        (line_of(2**64, "unload"), "has seq=18446744073709551616, not a number"),
        (line_of(3, "unload", active_processors=2**32), "not a number up to 4294967295"),
        (line_of(3, "unload").replace("seq=3", "seq=03"), "has seq=03, not a number"),
        (line_of(3, "reload"), "has the unknown record kind 'reload'; known: load, baseline, notification"),
        (line_of(3, "notification", {"event": "arrival", "class": "memory", "link": LINK}),
         "is a notification record without the keys class event link in this order"),
        (notification(3, "cpu"), "has class=cpu; allowed: processor, memory, other"),
        (line_of(3, "processor_change", {**CHANGE, "number": "one"}),
         "has number=one, not a number up to 4294967295"),
        (line_of(3, "processor_change", {**CHANGE, "group": "65536"}), "has group=65536, not a number up to"),
        (line_of(3, "processor_change", {**CHANGE, "group_number": "-1"}), "not a number up to 255"),
        (line_of(3, "processor_change", {**CHANGE, "status": "0xC0000001"}), "not 0x and 8 hex digits"),
        (line_of(0, "load", {**LOAD, "qpc_hz": "fast"}), "has qpc_hz=fast, not a number"),
        (line_of(0, "load", {**LOAD, "driver": ""}), "has driver= without a value"),
        (line_of(0, "load", {**LOAD, "existing": "2"}), "has existing=2; allowed: 0, 1"),
        (line_of(0, "load", {**LOAD, "format": "2"}), "announces format 2; this harness reads format 1"),
        (line_of(0, "baseline"), "breaks the rule that seq=0 is the load record"),
        (line_of(4, "load", LOAD), "breaks the rule that seq=0 is the load record"),
        ("x" * 20_000, "is too long"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_told_by_number(line: str, problem: str) -> None:
    with pytest.raises(DriverLogError) as caught:
        parse(line_of(0, "load", LOAD), line)
    assert str(caught.value).startswith("line 2 of the driver's log ")
    assert problem in str(caught.value)


def test_a_line_without_end_is_no_log() -> None:
    with pytest.raises(DriverLogError, match=r"line 1 .* has no end"):
        LogParser().feed(b"a" * 20_000)


def test_gaps_are_inside_one_load_only() -> None:
    records = parse(
        notification(5),  # a log read from its middle: what was before is not known
        notification(6),
        line_of(0, "load", LOAD),
        line_of(1, "baseline"),
        notification(4),
        notification(4),
        line_of(5, "unload"),
        line_of(0, "load", LOAD),
    )
    gaps = find_gaps(records)
    assert [(gap.before.seq, gap.after.seq, gap.missing) for gap in gaps] == [(1, 4, 2), (4, 4, -1)]
    assert find_gaps([]) == []


u64 = st.integers(min_value=0, max_value=2**64 - 1)
u32 = st.integers(min_value=0, max_value=2**32 - 1)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
kinds: st.SearchStrategy[tuple[str, dict[str, str]]] = st.one_of(
    st.just(("baseline", {})),
    st.just(("unload", {})),
    st.builds(
        lambda class_, event, link: ("notification", {"class": class_, "event": event, "link": link}),
        st.sampled_from(["processor", "memory", "other"]),
        st.sampled_from(["arrival", "removal", "other"]),
        values,
    ),
)


@st.composite
def log_lines(draw: st.DrawFn) -> str:
    kind, fields = draw(kinds)
    return line_of(
        draw(st.integers(min_value=1, max_value=2**64 - 1)),
        kind,
        {**fields, **draw(st.dictionaries(st.sampled_from(["class_guid", "event_guid", "x9"]), values))},
        time_100ns=draw(u64),
        qpc=draw(u64),
        active_processors=draw(u32),
        memory_bytes=draw(u64),
        lost=draw(u64),
    )


@given(st.lists(log_lines()))
def test_records_say_exactly_what_their_lines_say(lines: list[str]) -> None:
    records = parse(*lines)
    assert [record.line for record in records] == lines
    for record, line in zip(records, lines, strict=True):
        common = {
            "time_100ns": record.time_100ns,
            "qpc": record.qpc,
            "active_processors": record.active_processors,
            "memory_bytes": record.memory_bytes,
            "lost": record.lost,
        }
        assert line_of(record.seq, record.kind, record.fields, **common) == line


@given(st.lists(log_lines(), min_size=1), st.lists(st.integers(min_value=0, max_value=2000)))
def test_pieces_do_not_matter(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    parser = LogParser()
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    records: list[Record] = []
    for start, end in pairwise(edges):
        records += parser.feed(data[start:end])
    assert records == parse(*lines)
    assert parser.pending == b""


@given(
    st.lists(
        st.binary()
        | log_lines().map(str.encode)
        | st.just(b"\n")
        | st.text("seq=0 1record\n").map(str.encode)
    )
)
def test_garbage_raises_nothing_but_a_driver_log_error(pieces: list[bytes]) -> None:
    parser = LogParser()
    try:
        for piece in pieces:
            for record in parser.feed(piece):
                assert "\n" not in record.line
    except DriverLogError as error:
        text = str(error)
    else:
        text = ""
    assert "\n" not in text
