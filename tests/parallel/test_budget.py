# SPDX-License-Identifier: MIT
"""What plans need, what a host has, and who may start: decided without a VM."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.document.units import GIB, MIB
from harness.errors import BenchError
from harness.host import budget
from harness.host.amounts import Amounts
from harness.host.budget import Ledger, core_count, host_amounts, plans_at_once, within
from harness.host.control_groups import Leave
from harness.plan.need import has_room_for, need_of
from harness.plan.plan import load_plan

HOST = Amounts(vcpus=8, memory_bytes=16 * GIB, disk_bytes=100 * GIB, files=1000)

amounts = st.builds(
    Amounts,
    vcpus=st.integers(1, 12),
    memory_bytes=st.integers(1, 16 * GIB),
    disk_bytes=st.integers(1, 100 * GIB),
    files=st.integers(1, 1000),
)


def need(**given: int) -> Amounts:
    """Return a small need, but for what is given."""
    return Amounts(**{"vcpus": 1, "memory_bytes": GIB, "disk_bytes": MIB, "files": 10, **given})


class TestNeed:
    def test_is_counted_at_the_peak_of_the_plan(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.yaml"
        path.write_text("""
vm: {vcpus: 2, max_vcpus: 6, memory: 1 GiB, slots: 4, max_memory: 8 GiB}
steps:
  - {plug: {vcpus: 1, dimms: [128 MiB, 256 MiB]}, expect: {driver: []}}
  - {plug: {dimms: [128 MiB]}, repeat: 2, expect: {driver: []}}
  - {driver: stop, expect: {driver: []}}
  - {plug: {vcpus: all}, expect: {driver: []}}
""")
        wanted = need_of(load_plan(path))
        assert wanted.vcpus == 6
        assert wanted.memory_bytes == GIB + 640 * MIB + budget.QEMU_BYTES
        assert not has_room_for(load_plan(path), need(memory_bytes=GIB))

    def test_of_more_vcpus_than_the_host_may_have_is_all_of_them(self) -> None:
        assert within(need(vcpus=64), HOST, plan="big").vcpus == HOST.vcpus

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"memory_bytes": 17 * GIB}, "big is too large for this host: it needs memory of 17 GiB"),
            ({"disk_bytes": 101 * GIB}, "it needs disk of 101 GiB and 100 GiB is free for plans"),
            ({"files": 1001}, "it needs 1001 open files and 1000 are left; see ulimit -n"),
        ],
    )
    def test_of_more_than_there_is_at_all_is_told_in_one_line(self, given: dict[str, int], says: str) -> None:
        with pytest.raises(BenchError) as caught:
            within(need(**given), HOST, plan="big")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


class TestHost:
    def test_has_less_than_all_of_its_memory_and_some_of_everything(self, tmp_path: Path) -> None:
        host = host_amounts(tmp_path / "not" / "made" / "yet")
        assert 0 < host.memory_bytes < psutil.virtual_memory().total
        assert 0 < host.files < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert host.disk_bytes > 0
        assert host.vcpus % budget.VCPUS_PER_CORE == 0

    def test_leaves_what_its_control_groups_do_not_allow(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = host_amounts(tmp_path)
        monkeypatch.setattr(budget, "leave", lambda: Leave(memory_bytes=512 * MIB, cores=0.5))
        host = host_amounts(tmp_path)
        assert host.memory_bytes == 512 * MIB - budget.KEPT_FREE_BYTES < free.memory_bytes
        assert host.vcpus == budget.VCPUS_PER_CORE
        assert (core_count(), plans_at_once()) == (1, budget.PLANS_PER_CORE)
        monkeypatch.setattr(budget, "leave", lambda: Leave(memory_bytes=1 << 60, cores=1000.0))
        assert host_amounts(tmp_path).vcpus == free.vcpus
        assert host_amounts(tmp_path).memory_bytes == pytest.approx(free.memory_bytes, rel=0.2)


class TestLedger:
    def test_lets_in_as_many_as_fit_and_the_next_when_one_leaves(self) -> None:
        ledger: Ledger[str] = Ledger(HOST)
        for name in "abcd":
            ledger.ask(name, need(memory_bytes=6 * GIB))
        assert [name for name, _ in ledger.admit()] == ["a", "b"]
        assert ledger.admit() == []
        ledger.give_back(need(memory_bytes=6 * GIB))
        assert [name for name, _ in ledger.admit()] == ["c"]
        assert ledger.dismiss() == ["d"]
        ledger.give_back(need(memory_bytes=6 * GIB))
        assert ledger.admit() == []

    def test_lets_nobody_overtake_a_large_one(self) -> None:
        ledger: Ledger[str] = Ledger(HOST)
        for name, memory_bytes in (("small", GIB), ("large", 16 * GIB), ("tiny", MIB)):
            ledger.ask(name, need(memory_bytes=memory_bytes))
        assert [name for name, _ in ledger.admit()] == ["small"]
        ledger.give_back(need())
        assert [name for name, _ in ledger.admit()] == ["large"]
        ledger.give_back(need(memory_bytes=16 * GIB))
        assert [name for name, _ in ledger.admit()] == ["tiny"]

    @given(needs=st.lists(amounts, max_size=30), at_once=st.none() | st.integers(1, 5), data=st.data())
    def test_runs_all_in_order_and_never_more_than_there_is(
        self, needs: list[Amounts], at_once: int | None, data: st.DataObject
    ) -> None:
        ledger: Ledger[int] = Ledger(HOST, at_once=at_once)
        for number, wanted in enumerate(needs):
            ledger.ask(number, within(wanted, HOST, plan="any"))
        started: list[int] = []
        running: list[Amounts] = []
        while True:
            for number, taken in ledger.admit():
                started.append(number)
                running.append(taken)
            assert len(running) <= (at_once or len(needs))
            assert sum(taken.memory_bytes for taken in running) <= HOST.memory_bytes
            assert sum(taken.vcpus for taken in running) <= HOST.vcpus
            if not running:
                break
            index = data.draw(st.integers(0, len(running) - 1))
            ledger.give_back(running.pop(index))
        assert started == list(range(len(needs)))
        assert ledger.free == HOST
