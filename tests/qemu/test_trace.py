# SPDX-License-Identifier: MIT
"""What QEMU's trace events tell of a guest's ACPI: the reader by itself, and with real QEMU."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.document.units import GIB, MIB
from harness.evidence.witness import AmlAct
from harness.vm.trace import TRACE_FILE, TraceLog
from tests.qemu.bare_vm import Launch, acpi_of

CRS = """\
{at}mhp_acpi_read_addr_hi slot[0x{slot:x}] addr hi: 0x1
{at}mhp_acpi_read_addr_lo slot[0x{slot:x}] addr lo: 0x8000000
{at}mhp_acpi_read_size_hi slot[0x{slot:x}] size hi: 0x0
{at}mhp_acpi_read_size_lo slot[0x{slot:x}] size lo: 0x{size:x}
"""


def acts_of(folder: Path, *writes: bytes) -> list[AmlAct]:
    with TraceLog.open(folder) as trace:
        for data in writes:
            os.pwrite(trace.fd, data, os.fstat(trace.fd).st_size)
            trace.acts()
        return list(trace.acts())


def told(acts: list[AmlAct]) -> list[tuple[object, ...]]:
    return [(one.slot_type, one.slot, one.what, one.address, one.size_bytes) for one in acts]


class TestReader:
    def test_tells_what_was_taken_and_what_resources_were_read(self, tmp_path: Path) -> None:
        crs = CRS.format(at="7@1.5:", slot=16, size=128 * MIB)
        text = (
            "7@1.0:cpuhp_acpi_clear_inserting_evt idx[0xb]\n"
            f"7@1.1:mhp_acpi_clear_insert_evt slot[0x10] clear insert event\n{crs}"
        )
        assert told(acts_of(tmp_path, text.encode())) == [
            ("CPU", "11", "insertion taken", None, None),
            ("DIMM", "16", "insertion taken", None, None),
            ("DIMM", "16", "resources read", 4 * GIB + 128 * MIB, 128 * MIB),
        ]

    def test_an_empty_slot_has_no_resources(self, tmp_path: Path) -> None:
        assert acts_of(tmp_path, CRS.format(at="", slot=1, size=0).encode()) == []

    def test_slots_that_are_read_at_the_same_time_are_told_apart(self, tmp_path: Path) -> None:
        one, other = (CRS.format(at="", slot=slot, size=slot * MIB).splitlines() for slot in (2, 4))
        mixed = "".join(f"{line}\n" for pair in zip(one, other, strict=True) for line in pair)
        assert [(act.slot, act.size_bytes) for act in acts_of(tmp_path, mixed.encode())] == [
            ("2", 2 * MIB),
            ("4", 4 * MIB),
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "7@1.0:handle_qmp_command mon 0x55 req: slot[0x1] mhp_acpi_clear_insert_evt",
            "7@1.0:mhp_acpi_read_flags slot[0x0] flags: 0x3",
            "7@1.0:mhp_acpi_clear_insert_evt slot[0xyz] clear insert event",
            "mhp_acpi_clear_insert_evt",
            "qemu-system-x86_64: warning: slot[0x1]",
            "é\udcff",
        ],
    )
    def test_what_is_none_of_these_is_passed_over(self, tmp_path: Path, line: str) -> None:
        assert acts_of(tmp_path, f"{line}\n".encode("utf-8", "surrogateescape")) == []

    @given(st.data())
    def test_how_it_is_cut_does_not_matter(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        text = (
            b"7@1.0:cpuhp_acpi_clear_inserting_evt idx[0x1]\n"
            + CRS.format(at="7@1.0:", slot=0, size=MIB).encode()
        )
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        folder = tmp_path_factory.mktemp("trace")
        writes = [text[first:last] for first, last in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert told(acts_of(folder, *writes)) == told(acts_of(folder, text))

    def test_an_instant_is_the_stamps_if_that_is_between_two_looks(self, tmp_path: Path) -> None:
        with TraceLog.open(tmp_path) as trace:
            trace.acts()
            before_s = time.monotonic()
            line = f"7@{time.time():.6f}:cpuhp_acpi_clear_inserting_evt idx[0x1]\n"
            after_s = time.monotonic()
            os.pwrite(trace.fd, line.encode(), 0)
            [act] = trace.acts()
        assert before_s - act.error_s <= act.at_s <= after_s + act.error_s
        assert 0.001 <= act.error_s < after_s - before_s + 1

    def test_a_reader_that_is_interrupted_between_two_clocks_knows_less(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stamped_s = time.monotonic()
        line = f"7@{time.time():.6f}:cpuhp_acpi_clear_inserting_evt idx[0x1]\n"
        with TraceLog.open(tmp_path) as trace:
            trace._looked_at_s = stamped_s - 1
            os.pwrite(trace.fd, line.encode(), 0)
            # Half a second goes by before the time of day is read, and half after it.
            real_s = time.monotonic()
            clock = iter([real_s, real_s + 1.0])
            now_s = time.time() + 0.5
            monkeypatch.setattr("harness.vm.trace.time.monotonic", lambda: next(clock, real_s + 1.0))
            monkeypatch.setattr("harness.vm.trace.time.time", lambda: now_s)
            [act] = trace.acts()
            monkeypatch.undo()
        assert act.error_s == pytest.approx(0.501)
        assert abs(act.at_s - stamped_s) <= act.error_s

    @pytest.mark.parametrize("stamp", ["7@1.000000:", "7@99999999999.0:", ""])
    def test_a_time_of_day_that_was_set_is_not_believed(self, tmp_path: Path, stamp: str) -> None:
        with TraceLog.open(tmp_path) as trace:
            trace.acts()
            since_s = time.monotonic()
            os.pwrite(trace.fd, f"{stamp}cpuhp_acpi_clear_inserting_evt idx[0x1]\n".encode(), 0)
            [act] = trace.acts()
            until_s = time.monotonic()
        assert act.at_s - act.error_s <= since_s
        assert act.at_s <= until_s <= act.at_s + 2 * act.error_s + (until_s - since_s)

    def test_what_was_read_stays_when_the_trace_is_closed(self, tmp_path: Path) -> None:
        with TraceLog.open(tmp_path) as trace:
            os.pwrite(trace.fd, b"cpuhp_acpi_clear_inserting_evt idx[0x1]\n", 0)
        assert told(list(trace.acts())) == [("CPU", "1", "insertion taken", None, None)]


class TestQemu:
    def test_tells_what_is_done_with_its_registers(self, launch: Launch) -> None:
        vm = launch(qtest=True)
        assert vm.trace is not None
        assert vm.trace.acts() == ()
        registers = acpi_of(vm)
        vm.plug_vcpu(vm.vcpu_slots()[1], device_id="cpu1")
        vm.plug_dimm(128 * MIB, device_id="dimm1", slot=1)
        before_s = time.monotonic()
        for place in registers.take_inserted():
            registers.read_resources(place)
        after_s = time.monotonic()
        acts = list(vm.trace.acts())
        place = vm.state().dimm_places["dimm1"]
        assert told(acts) == [
            ("CPU", "1", "insertion taken", None, None),
            ("DIMM", "1", "insertion taken", None, None),
            ("DIMM", "1", "resources read", place.address, 128 * MIB),
        ]
        for act in acts:
            assert before_s <= act.at_s + act.error_s
            assert act.at_s - act.error_s <= after_s

    def test_one_that_writes_none_is_noticed(self, launch: Launch) -> None:
        # As one that was built with another trace backend: whatever is traced does not come to the file.
        vm = launch(extra=("-D", os.devnull))
        assert vm.trace is None
        assert (vm.folder / TRACE_FILE).read_bytes() == b""
