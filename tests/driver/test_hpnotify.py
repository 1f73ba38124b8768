# SPDX-License-Identifier: MIT
"""The shipped ``hpnotify.sys`` under Wine: what the documentation of driver notification says, and more.

After ``stop`` everything recorded is in the log, so no test waits for a line to come.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.evidence.record import Record, find_gaps
from tests.driver.hpnotify_bench import ARRIVAL, CLASS_GUIDS, GIB, INTERFACES, Hpnotify, link, parse, words
from tests.driver.wine import InstalledDriver, PnpFeed, Wine

DOCUMENT = Path(__file__).parents[2] / "docs" / "driver-log.md"
IMPORTS = Path(__file__).parents[2] / "guest-driver" / "hpnotify" / "imports.txt"
OTHER_GUID = "{00112233-4455-6677-8899-aabbccddeeff}"
RING_RECORDS = 512
NONE = (0, 0)
BEGUN = ["load", "baseline"]

STATUS_INVALID_PARAMETER = 0xC000000D
STATUS_NO_MEMORY = 0xC0000017
STATUS_ACCESS_DENIED = 0xC0000022
STATUS_OBJECT_TYPE_MISMATCH = 0xC0000024
STATUS_OBJECT_PATH_NOT_FOUND = 0xC000003A
STATUS_OBJECT_PATH_SYNTAX_BAD = 0xC000003B
STATUS_SHARING_VIOLATION = 0xC0000043
STATUS_DISK_FULL = 0xC000007F
STATUS_INSUFFICIENT_RESOURCES = 0xC000009A
STATUS_NAME_TOO_LONG = 0xC0000106


@pytest.fixture(scope="module")
def services(wine: Wine, build_dir: Path) -> Iterator[dict[str, InstalledDriver]]:
    names = ("hpnotify", "hpnotify-faulty")
    installed = {name: wine.install_driver(build_dir / "hpnotify.sys", name) for name in names}
    yield installed
    for driver in installed.values():
        driver.uninstall()


@pytest.fixture
def hpnotify(services: dict[str, InstalledDriver], pnp: PnpFeed) -> Iterator[Hpnotify]:
    with Hpnotify(services["hpnotify"], pnp) as hpnotify:
        yield hpnotify


@pytest.fixture
def faulty(services: dict[str, InstalledDriver], pnp: PnpFeed) -> Iterator[Hpnotify]:
    """The same, to be made to fail: Wine keeps the image of a failed start, which spoils it for the rest."""
    with Hpnotify(services["hpnotify-faulty"], pnp) as faulty:
        yield faulty


# What the documentation says, statement by statement.


@pytest.mark.parametrize("interface", ["processor", "memory"])
def test_callback_is_called_when_an_interface_arrives(hpnotify: Hpnotify, interface: str) -> None:
    hpnotify.start()
    arrived = hpnotify.arrive(interface)
    hpnotify.stop()
    [record] = [record for record in hpnotify.records() if record.kind == "notification"]
    assert (record.class_, record.event, record.link) == (interface, "arrival", arrived)


def test_both_interfaces_are_registered_and_each_callback_hears_its_own(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    assert hpnotify.registrations() == (2, 0)
    hpnotify.stop()
    assert words(hpnotify.run("memory", "processor", "memory"))[3:] == [
        "load",
        "baseline",
        "memory",
        "processor",
        "memory",
        "unload",
    ]


@pytest.mark.parametrize(("wanted", "other"), [("processor", "memory"), ("memory", "processor")])
def test_one_interface_alone_leaves_the_other_unregistered_and_unrecorded(
    hpnotify: Hpnotify, wanted: str, other: str
) -> None:
    hpnotify.configure(interfaces=wanted)
    hpnotify.start()
    assert hpnotify.registrations() == (1, 0)
    called = hpnotify.deliver(CLASS_GUIDS[other], ARRIVAL, link(other, 1000))
    assert called == 0
    hpnotify.stop()
    records = hpnotify.run(other, wanted, other)
    assert words(records) == ["load", "baseline", "unload", "load", "baseline", wanted, "unload"]
    assert records[0].fields["interfaces"] == wanted


@pytest.mark.parametrize("interfaces", sorted(INTERFACES))
@pytest.mark.parametrize("synchronous", [False, True])
def test_unload_unregisters_every_callback(hpnotify: Hpnotify, interfaces: str, synchronous: bool) -> None:
    hpnotify.configure(interfaces=interfaces, synchronous=synchronous)
    hpnotify.start()
    registrations = 2 if interfaces == "both" else 1
    assert hpnotify.registrations() == (registrations, int(synchronous))
    hpnotify.stop()
    assert hpnotify.registrations() == NONE
    before = hpnotify.log_path.read_bytes()
    hpnotify.arrive("processor")
    hpnotify.arrive("memory")
    assert hpnotify.pnp.request("processor add_start 1 0").startswith("ok")
    assert hpnotify.log_path.read_bytes() == before


def test_existing_interfaces_are_not_notified(hpnotify: Hpnotify) -> None:
    existing = link("memory", 2000)
    hpnotify.pnp.ok(f"existing memory {existing}")
    records = hpnotify.run()
    hpnotify.pnp.ok(f"remove memory {existing}")
    assert words(records) == ["load", "baseline", "unload"]


def test_existing_interfaces_are_notified_when_asked_for(hpnotify: Hpnotify) -> None:
    hpnotify.configure(existing=True)
    there = [hpnotify.arrive("processor"), hpnotify.arrive("memory")]
    hpnotify.start()
    new = hpnotify.arrive("memory")
    hpnotify.stop()
    records = hpnotify.records()
    assert words(records) == ["load", "baseline", "processor", "memory", "memory", "unload"]
    assert [record.link for record in records[2:5]] == [*there, new]
    assert records[0].fields["existing"] == "1"
    assert hpnotify.registrations() == NONE


def test_existing_interfaces_of_the_other_class_are_not_notified(hpnotify: Hpnotify) -> None:
    hpnotify.configure(existing=True, interfaces="processor")
    hpnotify.arrive("memory")
    assert words(hpnotify.run()) == ["load", "baseline", "unload"]


def test_while_stopped_nothing_is_recorded_and_the_next_baseline_has_it(hpnotify: Hpnotify) -> None:
    hpnotify.run()
    hpnotify.system(3, 2 * GIB)
    hpnotify.arrive("processor")
    records = hpnotify.run()
    assert words(records) == ["load", "baseline", "unload"] * 2
    assert [(r.active_processors, r.memory_bytes) for r in records if r.kind == "baseline"] == [
        (1, GIB),
        (3, 2 * GIB),
    ]


# The synchronous callback.


def test_synchronous_records_precede_the_arrival_of_the_processor(hpnotify: Hpnotify) -> None:
    hpnotify.configure(synchronous=True)
    hpnotify.start()
    assert hpnotify.pnp.request("processor add_start 1 0") == "ok 0x00000000"
    hpnotify.system(2, GIB)
    assert hpnotify.pnp.request("processor add_complete 1 0") == "ok 0x00000000"
    hpnotify.arrive("processor")
    hpnotify.stop()
    records = hpnotify.records()
    assert words(records) == ["load", "baseline", "add_start", "add_complete", "processor", "unload"]
    assert [record.active_processors for record in records] == [1, 1, 1, 2, 2, 2]
    assert records[0].fields["synchronous"] == "1"


def test_synchronous_record_says_which_processor_and_what_became_of_it(hpnotify: Hpnotify) -> None:
    hpnotify.configure(synchronous=True)
    hpnotify.start()
    assert hpnotify.pnp.request("processor add_start 65 0") == "ok 0x00000000"
    assert hpnotify.pnp.request(f"processor add_failure 65 {0xC000009A}") == "ok 0x00000000"
    hpnotify.stop()
    failure = hpnotify.records()[3]
    fields = {key: value for key, value in failure.fields.items() if key not in failure.context}
    assert fields == {
        "state": "add_failure",
        "number": "65",
        "group": "1",
        "group_number": "1",
        "status": "0xc000009a",
    }


def test_without_the_option_no_synchronous_callback_is_registered(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    assert hpnotify.pnp.request("processor add_start 1 0") == "ok 0x00000000"
    hpnotify.stop()
    assert words(hpnotify.records()) == ["load", "baseline", "unload"]


# The records.


def test_figures_are_those_of_the_moment_of_the_callback(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    hpnotify.system(2, GIB)
    hpnotify.arrive("processor")
    hpnotify.system(2, GIB + (256 << 20))
    hpnotify.arrive("memory")
    hpnotify.stop()
    figures = [(record.active_processors, record.memory_bytes) for record in hpnotify.records()]
    more = (2, GIB + (256 << 20))
    assert figures == [(1, GIB), (1, GIB), (2, GIB), more, more]


def test_sequence_and_clock_rise_together(hpnotify: Hpnotify) -> None:
    records = hpnotify.run(*["processor", "memory"] * 20)
    assert [record.seq for record in records] == list(range(43))
    assert find_gaps(records) == []
    assert {record.lost for record in records} == {0}
    assert all(early.qpc < late.qpc for early, late in itertools.pairwise(records))


def test_clocks_agree_with_the_host(hpnotify: Hpnotify, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.touch()
    records = hpnotify.run("processor")
    unix_s = records[2].time_100ns / 1e7 - 11_644_473_600
    assert before.stat().st_mtime - 1 <= unix_s <= hpnotify.log_path.stat().st_mtime + 1
    ticks_per_second = int(records[0].fields["qpc_hz"])
    by_qpc_s = (records[-1].qpc - records[0].qpc) / ticks_per_second
    by_time_s = (records[-1].time_100ns - records[0].time_100ns) / 1e7
    assert by_qpc_s == pytest.approx(by_time_s, abs=0.1)


def test_removal_is_recorded_as_such(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    arrived = hpnotify.arrive("memory")
    hpnotify.remove()
    hpnotify.stop()
    records = hpnotify.records()
    assert words(records) == ["load", "baseline", "memory", "memory_removal", "unload"]
    assert records[3].link == arrived


def test_arrival_that_comes_twice_is_recorded_twice(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    for _ in range(2):
        hpnotify.deliver(CLASS_GUIDS["processor"], ARRIVAL, link("processor", 3000))
    hpnotify.stop()
    assert words(hpnotify.records()) == ["load", "baseline", "processor", "processor", "unload"]


def test_unknown_event_is_recorded_with_its_guids(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    called = hpnotify.deliver(CLASS_GUIDS["memory"], OTHER_GUID, link("memory", 3000))
    assert called == 1
    hpnotify.stop()
    record = hpnotify.records()[2]
    assert [(key, value) for key, value in record.fields.items() if key not in record.context] == [
        ("class", "memory"),
        ("event", "other"),
        ("link", link("memory", 3000)),
        ("class_guid", CLASS_GUIDS["memory"]),
        ("event_guid", OTHER_GUID),
    ]


def test_unknown_class_is_recorded_with_its_guids(faulty: Hpnotify) -> None:
    # Nobody delivers a class that was not registered; but when memcmp says so, every GUID is an unknown one.
    faulty.pnp.ok("fail memcmp 1")
    fields = faulty.run("processor")[2].fields
    assert (fields["class"], fields["event"]) == ("other", "other")
    assert (fields["class_guid"], fields["event_guid"]) == (CLASS_GUIDS["processor"], ARRIVAL)


def test_class_nobody_registered_reaches_nobody(hpnotify: Hpnotify) -> None:
    hpnotify.start()
    assert hpnotify.deliver(OTHER_GUID, ARRIVAL, r"\??\X") == 0
    hpnotify.stop()
    assert words(hpnotify.records()) == ["load", "baseline", "unload"]


@pytest.mark.parametrize(
    ("symbolic_link", "recorded"),
    [
        ("\\??\\Ä\u2028\U0001f600\x7f\x01#", r"\??\??????#"),
        ("L" * 200, "L" * 200),
        ("L" * 201, "L" * 199 + "~"),
        ("L" * 256, "L" * 199 + "~"),
        ("\\??\\a=b{%s}\"'", "\\??\\a=b{%s}\"'"),
    ],
)
def test_link_stays_one_printable_word_of_bounded_length(
    hpnotify: Hpnotify, symbolic_link: str, recorded: str
) -> None:
    hpnotify.start()
    hpnotify.deliver(CLASS_GUIDS["memory"], ARRIVAL, symbolic_link)
    hpnotify.stop()
    assert hpnotify.records()[2].link == recorded


# Nothing blocks, nothing is lost unseen.


def test_full_ring_loses_records_visibly_and_never_blocks_a_callback(
    hpnotify: Hpnotify, tmp_path: Path
) -> None:
    # A full pipe that nobody reads stops the writer thread; the callbacks must return all the same.
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        hpnotify.configure(log=fifo)
        hpnotify.start()
        burst = RING_RECORDS + 200
        for slot in range(burst):
            assert hpnotify.deliver(CLASS_GUIDS["processor"], ARRIVAL, link("processor", slot)) == 1
        os.set_blocking(reader, True)
        drained = tmp_path / "drained"
        with drained.open("wb") as file, subprocess.Popen(["cat"], stdin=reader, stdout=file) as drain:
            hpnotify.stop()
            assert drain.wait(timeout=30) == 0
    finally:
        os.close(reader)
    records = parse(drained.read_bytes())
    [gap] = find_gaps(records)
    assert gap.missing > 0
    assert gap.after.lost == gap.missing
    assert gap.after.kind == "unload"
    assert gap.after.seq == burst + 2
    assert len(records) == burst + 3 - gap.missing
    assert gap.before.lost == 0


def test_burst_that_fits_the_ring_is_recorded_whole(hpnotify: Hpnotify) -> None:
    records = hpnotify.run(*["memory"] * 256)
    assert words(records) == ["load", "baseline", *["memory"] * 256, "unload"]
    assert find_gaps(records) == []


# Parameters.


def test_log_goes_where_log_path_says(hpnotify: Hpnotify, tmp_path: Path) -> None:
    log = tmp_path / "another.log"
    hpnotify.configure(log=log)
    hpnotify.run("memory")
    assert words(parse(log.read_bytes())) == ["load", "baseline", "memory", "unload"]
    assert not hpnotify.log_path.exists()


def test_log_is_appended_to(hpnotify: Hpnotify) -> None:
    first = hpnotify.run("processor")
    second = hpnotify.run("memory")
    assert second[: len(first)] == first
    assert words(second[len(first) :]) == ["load", "baseline", "memory", "unload"]


def test_missing_folder_of_the_log_fails_the_start(faulty: Hpnotify) -> None:
    shutil.rmtree(faulty.log_path.parent)
    assert faulty.start_status() == STATUS_OBJECT_PATH_NOT_FOUND
    assert faulty.registrations() == NONE


def test_log_that_cannot_be_written_fails_the_start(faulty: Hpnotify) -> None:
    faulty.configure(log=Path("/dev/full"))
    assert faulty.start_status() == STATUS_DISK_FULL
    assert faulty.registrations() == NONE


@pytest.mark.parametrize(
    ("name", "kind", "value", "status"),
    [
        ("Interfaces", "REG_DWORD", "0", STATUS_INVALID_PARAMETER),
        ("Interfaces", "REG_DWORD", "4", STATUS_INVALID_PARAMETER),
        ("Interfaces", "REG_SZ", "both", STATUS_OBJECT_TYPE_MISMATCH),
        ("Interfaces", "REG_BINARY", "01", STATUS_OBJECT_TYPE_MISMATCH),
        ("Synchronous", "REG_DWORD", "2", STATUS_INVALID_PARAMETER),
        ("Synchronous", "REG_SZ", "yes", STATUS_OBJECT_TYPE_MISMATCH),
        ("IncludeExisting", "REG_DWORD", "2", STATUS_INVALID_PARAMETER),
        ("IncludeExisting", "REG_SZ", "yes", STATUS_OBJECT_TYPE_MISMATCH),
        ("LogPath", "REG_DWORD", "1", STATUS_OBJECT_TYPE_MISMATCH),
        ("LogPath", "REG_SZ", "", STATUS_INVALID_PARAMETER),
        ("LogPath", "REG_SZ", r"\??\C:" + r"\a" * 200, STATUS_NAME_TOO_LONG),
        ("LogPath", "REG_SZ", "relative.log", STATUS_OBJECT_PATH_SYNTAX_BAD),
    ],
)
def test_wrong_parameter_fails_the_start(
    faulty: Hpnotify, name: str, kind: str, value: str, status: int
) -> None:
    faulty.set_parameter(name, kind, value)
    assert faulty.start_status() == status
    assert faulty.registrations() == NONE
    assert faulty.log_openers() == []
    assert faulty.records() == []


# Failure inside DriverEntry: import, what it returns, calls that pass before, DriverEntry's status, records.
FAULTS = [
    ("ZwOpenKey", STATUS_ACCESS_DENIED, 0, STATUS_ACCESS_DENIED, []),
    ("ZwOpenKey", STATUS_ACCESS_DENIED, 1, STATUS_ACCESS_DENIED, []),
    ("ZwQueryValueKey", STATUS_ACCESS_DENIED, 0, STATUS_ACCESS_DENIED, []),
    ("ZwQueryValueKey", STATUS_ACCESS_DENIED, 1, STATUS_ACCESS_DENIED, []),
    ("ZwQueryValueKey", STATUS_ACCESS_DENIED, 2, STATUS_ACCESS_DENIED, []),
    ("ZwCreateFile", STATUS_SHARING_VIOLATION, 0, STATUS_SHARING_VIOLATION, []),
    ("MmGetPhysicalMemoryRanges", 0, 0, STATUS_INSUFFICIENT_RESOURCES, []),
    ("ZwWriteFile", STATUS_DISK_FULL, 0, STATUS_DISK_FULL, []),
    ("ZwWriteFile", STATUS_DISK_FULL, 1, STATUS_DISK_FULL, ["load"]),
    ("PsCreateSystemThread", STATUS_NO_MEMORY, 0, STATUS_NO_MEMORY, BEGUN),
    ("KeRegisterProcessorChangeCallback", 0, 0, STATUS_INSUFFICIENT_RESOURCES, BEGUN),
    ("IoRegisterPlugPlayNotification", STATUS_NO_MEMORY, 0, STATUS_NO_MEMORY, BEGUN),
    ("IoRegisterPlugPlayNotification", STATUS_NO_MEMORY, 1, STATUS_NO_MEMORY, BEGUN),
]

# The other imports, and why no failure of theirs can make DriverEntry fail.
CANNOT_FAIL = {
    "DbgPrint": "its result is of no interest",
    "ExFreePool": "void",
    "IoUnregisterPlugPlayNotificationEx": "undoes; fails only for what is not registered",
    "KeAcquireSpinLockRaiseToDpc": "returns the IRQL to go back to",
    "KeDeregisterProcessorChangeCallback": "void",
    "KeAreAllApcsDisabled": "returns whether",
    "KeAreApcsDisabled": "returns whether",
    "KeGetCurrentProcessorNumberEx": "returns a number",
    "PsGetCurrentThreadId": "returns a number",
    "KeInitializeEvent": "void",
    "KeQueryActiveProcessorCountEx": "returns a count",
    "KeQueryPerformanceCounter": "returns a count",
    "KeReleaseSpinLock": "void",
    "KeSetEvent": "returns the state before",
    "KeWaitForSingleObject": "has neither a timeout nor an alert; in the writer thread",
    "MmGetSystemRoutineAddress": "NULL is an answer, and the one it gives under Wine",
    "PsTerminateSystemThread": "does not return",
    "RtlInitUnicodeString": "void",
    "ZwClose": "undoes; fails only for a handle that is not ours",
    "ZwWaitForSingleObject": "undoes; has neither a timeout nor an alert",
    "memcmp": "returns an order",
    "memcpy": "returns its argument",
}


@pytest.mark.parametrize(("name", "value", "passes", "status", "recorded"), FAULTS)
def test_failing_import_fails_the_start_and_leaves_nothing(
    faulty: Hpnotify, name: str, value: int, passes: int, status: int, recorded: list[str]
) -> None:
    faulty.configure(synchronous=True)
    failed_before = faulty.pnp.state()["failed_imports"]
    faulty.pnp.ok(f"fail {name} {value} {passes}")
    assert faulty.start_status() == status
    assert faulty.pnp.state()["failed_imports"] == failed_before + 1
    assert faulty.registrations() == NONE
    assert faulty.log_openers() == []
    assert words(faulty.records()) == recorded
    faulty.arrive("processor")
    # Wine kept the image and its variables, so this shows too that a load begins anew by itself.
    records = faulty.run("memory")[len(recorded) :]
    assert words(records) == ["load", "baseline", "memory", "unload"]
    assert [record.seq for record in records] == [0, 1, 2, 3]


def test_every_import_is_failed_or_known_to_be_unable_to() -> None:
    lines = IMPORTS.read_text(encoding="ascii").splitlines()
    names = {line.split()[1] for line in lines if not line.startswith("#")}
    failed = {fault[0] for fault in FAULTS}
    assert failed.isdisjoint(CANNOT_FAIL)
    assert failed | set(CANNOT_FAIL) == names


@pytest.mark.parametrize(
    ("newer", "routine"), [("on", "MmGetPhysicalMemoryRangesEx2"), ("off", "MmGetPhysicalMemoryRanges")]
)
def test_memory_comes_from_the_newest_routine_that_the_kernel_has(
    hpnotify: Hpnotify, newer: str, routine: str
) -> None:
    hpnotify.pnp.ok(f"switch newer {newer}")
    try:
        records = hpnotify.run("memory")
    finally:
        hpnotify.pnp.ok("switch newer off")
    assert records[0].fields["memory_from"] == routine
    assert {record.memory_bytes for record in records} == {GIB}


@pytest.mark.parametrize("newer", ["on", "off"])
def test_memory_is_not_asked_for_in_a_processor_callback_and_is_recorded_all_the_same(
    hpnotify: Hpnotify, newer: str
) -> None:
    before = hpnotify.pnp.state()["memory_asked"]
    hpnotify.pnp.ok(f"switch newer {newer}")
    hpnotify.configure(synchronous=True)
    try:
        hpnotify.start()
        assert hpnotify.pnp.request("processor add_start 1 0") == "ok 0x00000000"
        assert hpnotify.pnp.request("processor add_complete 1 0") == "ok 0x00000000"
        hpnotify.stop()
    finally:
        hpnotify.pnp.ok("switch newer off")
    assert hpnotify.pnp.state()["memory_asked"] == before
    changes = [record for record in hpnotify.records() if record.kind == "processor_change"]
    assert [record.memory_bytes for record in changes] == [GIB, GIB]


def test_every_record_tells_in_what_context_it_was_made(hpnotify: Hpnotify) -> None:
    hpnotify.configure(synchronous=True)
    hpnotify.start()
    assert hpnotify.pnp.request("processor add_start 1 0") == "ok 0x00000000"
    hpnotify.arrive("memory")
    hpnotify.stop()
    records = hpnotify.records()
    assert {tuple(record.fields)[-4:] for record in records} == {("irql", "thread", "apcs_disabled", "cpu")}
    assert {record.context["irql"] for record in records} == {0}
    threads = {record.kind: record.context["thread"] for record in records}
    assert threads["load"] == threads["baseline"]
    assert threads["notification"] == threads["processor_change"] != threads["load"]
    assert all(record.context["cpu"] < (os.cpu_count() or 1) for record in records)


@pytest.mark.parametrize(("twice", "times"), [("on", 2), ("off", 1)])
def test_what_exists_is_recorded_as_often_as_it_is_told(hpnotify: Hpnotify, twice: str, times: int) -> None:
    existing = link("memory", 7)
    hpnotify.pnp.ok(f"existing memory {existing}")
    hpnotify.pnp.ok(f"switch twice {twice}")
    hpnotify.configure(existing=True)
    try:
        records = hpnotify.run("memory")
    finally:
        hpnotify.pnp.ok("switch twice off")
        hpnotify.pnp.ok(f"remove memory {existing}")
    arrived = [record.link for record in records if record.word == "memory"]
    assert arrived.count(existing) == times
    assert len(arrived) == times + 1, "what comes later is told once"


@pytest.mark.parametrize(
    "request_", ["switch", "switch newer", "switch other on", "switch twice 1", "switch twice on x"]
)
def test_a_switch_that_is_none_is_refused(pnp: PnpFeed, request_: str) -> None:
    assert pnp.request(request_) == "error 0x00000057 usage: switch <newer|twice> <on|off>"


def test_memory_that_cannot_be_read_in_a_callback_shows_as_zero(faulty: Hpnotify) -> None:
    faulty.pnp.ok("fail MmGetPhysicalMemoryRanges 0 1")
    assert [record.memory_bytes for record in faulty.run("memory")] == [GIB, GIB, 0, 0]


def test_lines_that_cannot_be_written_trouble_nobody(faulty: Hpnotify) -> None:
    faulty.pnp.ok(f"fail ZwWriteFile {STATUS_DISK_FULL} 2")
    faulty.start()
    assert faulty.deliver(CLASS_GUIDS["memory"], ARRIVAL, link("memory", 0)) == 1
    faulty.stop()
    assert words(faulty.records()) == BEGUN
    assert faulty.log_openers() == []


# Over and over.


def driver_process(hpnotify: Hpnotify) -> int:
    """The process of Wine's kernel, known by the log it has open; the server has what any process has."""
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in hpnotify.log_openers()}
    [process] = [pid for pid, name in names.items() if name == "winedevice.exe"]
    return process


def count_threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def test_failed_starts_leave_no_writer_thread(faulty: Hpnotify) -> None:
    failures = 5
    faulty.start()
    process = driver_process(faulty)
    threads = count_threads(process)
    faulty.stop()
    for _ in range(failures):
        faulty.pnp.ok(f"fail IoRegisterPlugPlayNotification {STATUS_NO_MEMORY}")
        assert faulty.start_status() == STATUS_NO_MEMORY
    assert count_threads(process) < threads + failures - 1


def test_loads_and_unloads_a_hundred_times(hpnotify: Hpnotify) -> None:
    hpnotify.run()
    hpnotify.start()
    process = driver_process(hpnotify)
    threads = count_threads(process)
    descriptors = len(list(Path(f"/proc/{process}/fd").iterdir()))
    hpnotify.stop()
    # One shell of Wine's own: to start a process for each command from outside takes twice as long.
    # A start while the unload before it still goes on is refused, and so does not count.
    rounds = "for /L %i in (1,1,25) do @sc start hpnotify && sc stop hpnotify"
    deadline = Deadline.after(120)
    while words(hpnotify.records()).count("unload") < 100:
        deadline.check("the hundredth load")
        hpnotify.driver.wine.run("cmd.exe", "/c", rounds, deadline=deadline)
        hpnotify.stop()
    assert hpnotify.driver.wine.driver_entry_failure("hpnotify") is None
    assert hpnotify.registrations() == NONE
    records = hpnotify.records()
    loads = len(records) // 3
    assert loads >= 100
    assert words(records) == ["load", "baseline", "unload"] * loads
    assert {(r.active_processors, r.memory_bytes, r.lost) for r in records} == {(1, GIB, 0)}
    hpnotify.start()
    assert driver_process(hpnotify) == process
    assert count_threads(process) <= threads + 2
    assert len(list(Path(f"/proc/{process}/fd").iterdir())) <= descriptors + 2
    hpnotify.stop()


# The contract.


def example() -> list[Record]:
    text = DOCUMENT.read_text(encoding="utf-8")
    block = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return parse(block[1].encode("ascii"))


def shape(record: Record) -> list[str]:
    """The kind, the keys in order and every value that is a word."""
    pairs = [part.partition("=") for part in record.line.split(" ")]
    values = {
        "record",
        "class",
        "event",
        "state",
        "format",
        "driver",
        "interfaces",
        "synchronous",
        "existing",
        "link",
    }
    return [key + (f"={value}" if key in values else "") for key, _, value in pairs]


def figures(record: Record) -> tuple[int | None, ...]:
    # In a processor callback memory is not asked for; the writer does, who may be late.
    memory_bytes = None if record.kind == "processor_change" else record.memory_bytes
    return record.seq, record.active_processors, memory_bytes, record.lost


def test_documented_example_is_what_the_shipped_driver_writes(hpnotify: Hpnotify) -> None:
    documented = example()
    hpnotify.configure(synchronous=True)
    hpnotify.start()
    hpnotify.pnp.request("processor add_start 1 0")
    hpnotify.system(2, GIB)
    hpnotify.pnp.request("processor add_complete 1 0")
    for record in documented[4:6]:
        assert record.class_ is not None
        assert record.link is not None
        hpnotify.system(record.active_processors, record.memory_bytes)
        hpnotify.deliver(CLASS_GUIDS[record.class_], ARRIVAL, record.link)
    hpnotify.stop()
    written = hpnotify.records()
    assert [shape(record) for record in written] == [shape(record) for record in documented]
    assert [figures(record) for record in written] == [figures(record) for record in documented]
    assert find_gaps(documented) == []


def test_document_names_every_key_the_driver_writes() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    keys = {part.partition("=")[0] for record in example() for part in record.line.split(" ")}
    assert {key for key in keys if f"`{key}`" not in text} == set()
