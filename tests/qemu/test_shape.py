# SPDX-License-Identifier: MIT
"""What a shape asks for, QEMU says it has: places for vCPUs, nodes, memory and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.deadline import Deadline
from harness.document.units import GIB, MIB
from harness.errors import HostError, QmpCommandError, VmError
from harness.evidence.witness import DimmPlace
from harness.vm import huge_pages
from harness.vm.backend import Backend
from harness.vm.shape import VmShape
from harness.vm.vm import Vm
from tests.qemu.bare_vm import Launch, bare_config, small_shape

#: By property of ``query-memdev``: what a backend that says nothing has.
PLAIN = {"share": False, "prealloc": False, "policy": "default", "host-nodes": []}
TWO_NODES = [{"vcpus": 2, "memory": "32 MiB"}, {"vcpus": 2, "memory": "32 MiB"}]

# Host node 0 is there on every host, and policies are for hosts that let QEMU have one.
backends = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["ram", "memfd", "file"]),
        "share": st.booleans(),
        "prealloc": st.booleans(),
    },
)


@st.composite
def shapes(draw: st.DrawFn) -> VmShape:
    """Draw a shape of up to 24 places for vCPUs, with nodes or without."""
    division = {key: draw(st.integers(1, 3 if key == "sockets" else 2)) for key in TOPOLOGY}
    max_vcpus = 1
    for number in division.values():
        max_vcpus *= number
    memories = draw(st.lists(st.integers(0, 3), max_size=4).filter(lambda mib: not mib or any(mib)))
    threads, cores = division["threads"], max_vcpus // division["threads"]
    cuts = sorted(draw(st.integers(0, cores)) for _ in memories[1:])
    ends = [0, *(cut * threads for cut in cuts), max_vcpus]
    memory_mib = sum(memories) * 2 if memories else draw(st.integers(2, 8))
    slots = draw(st.integers(0, 8))
    return VmShape.model_validate(
        {
            "vcpus": draw(st.integers(1, max_vcpus)),
            "max_vcpus": max_vcpus,
            "topology": draw(st.sampled_from([division, _without_sockets(division)])),
            "memory": f"{memory_mib} MiB",
            "slots": slots,
            "max_memory": f"{memory_mib + 256 * bool(slots)} MiB",
            "machine": draw(st.sampled_from([None, "pc", "pc-q35-7.2"])),
            "backend": draw(backends),
            "nodes": [
                {
                    "vcpus": end - start,
                    **({"memory": f"{2 * mib} MiB"} if mib else {}),
                    **draw(st.fixed_dictionaries({}, optional={"backend": backends})),
                }
                for mib, start, end in zip(memories, ends, ends[1:], strict=False)
            ],
        }
    )


TOPOLOGY = ("sockets", "dies", "cores", "threads")


def _without_sockets(division: dict[str, int]) -> dict[str, int]:
    return {key: number for key, number in division.items() if key != "sockets"}


@contextmanager
def bare_vm(**changes: Any) -> Iterator[Vm]:
    """Launch a VM in a folder of its own, for examples that share a test."""
    with (
        TemporaryDirectory() as folder,
        Vm.launch(bare_config(**changes), folder=Path(folder), deadline=Deadline.after(30)) as vm,
    ):
        yield vm


def memories_of(vm: Vm) -> dict[str, dict[str, Any]]:
    """Return the VM's memory backends by id, as QEMU tells them, with their type."""
    types = {
        entry["name"]: re.sub(r"child<memory-backend-(\w+)>", r"\1", entry["type"])
        for entry in vm.execute("qom-list", {"path": "/objects"})
    }
    return {memory["id"]: {**memory, "type": types[memory["id"]]} for memory in vm.execute("query-memdev")}


def expected_of(backend: Backend, size_bytes: int) -> dict[str, Any]:
    told = {"type": backend.type, "size": size_bytes, "share": backend.share, "prealloc": backend.prealloc}
    return {**told, "policy": backend.policy, "host-nodes": list(backend.host_nodes)}


@settings(max_examples=40)
@given(shapes())
def test_qemu_has_the_very_numbers_asked_for(shape: VmShape) -> None:
    with bare_vm(shape=shape, machine=shape.machine or "q35", network_device=None) as vm:
        slots = vm.vcpu_slots()
        of = shape.division
        counts = (of.sockets, of.dies, of.cores, of.threads)
        found = [
            tuple(slot.props.get(f"{key[:-1]}-id", 0) for key in ("sockets", "dies", "cores", "threads"))
            for slot in slots
        ]
        assert found == list(product(*map(range, counts)))
        assert [slot.free for slot in slots] == [place >= shape.vcpus for place in range(shape.max_vcpus)]
        if shape.nodes:
            node_of = [number for number, node in enumerate(shape.nodes) for _ in range(node.vcpus)]
            assert [slot.props["node-id"] for slot in slots] == node_of
            told = vm.execute("human-monitor-command", {"command-line": "info numa"})
            sizes = [int(size) for size in re.findall(r"node \d+ size: (\d+) MB", told)]
            assert sizes == [(node.memory_bytes or 0) // MIB for node in shape.nodes]
        assert vm.execute("query-memory-size-summary")["base-memory"] == shape.memory_bytes
        size = vm.execute("qom-get", {"path": "/machine", "property": "memory"})
        if shape.slots:
            assert (size["slots"], size["max-size"]) == (shape.slots, shape.max_memory_bytes)
        memories = memories_of(vm)
        assert len(memories) == len(shape.boot_memories)
        for number, memory in enumerate(shape.boot_memories):
            expected = expected_of(memory.backend, memory.size_bytes)
            assert {key: memories[f"ram{number}"][key] for key in expected} == expected
        assert [path for path in vm.folder.iterdir() if path.suffix not in (".txt", ".log", ".jsonl")] == []


@settings(max_examples=25)
@given(backends, st.integers(0, 3), st.integers(0, 1), st.integers(0, 64))
def test_a_dimm_is_where_it_was_to_be(backend: dict[str, Any], slot: int, node: int, place: int) -> None:
    shape = small_shape(slots=4, nodes=TWO_NODES)
    address, chosen = 4 * GIB + place * 2 * MIB, Backend.model_validate(backend)
    with bare_vm(shape=shape) as vm:
        vm.plug_dimm(4 * MIB, device_id="dimm", slot=slot, node=node, address=address, backend=chosen)
        assert vm.state().dimm_places == {"dimm": DimmPlace(slot, node, address)}
        expected = expected_of(chosen, 4 * MIB)
        memory = memories_of(vm)["dimm-ram"]
        assert {key: memory[key] for key in expected} == expected


def test_what_is_not_given_of_a_dimm_qemu_chooses(launch: Launch) -> None:
    vm = launch(shape=small_shape(slots=4, backend={"type": "memfd", "share": True}))
    vm.plug_dimm(2 * MIB, device_id="third", slot=2)
    for name in ("first", "second", "fourth"):
        vm.plug_dimm(2 * MIB, device_id=name)
    slots = {name: place.slot for name, place in vm.state().dimm_places.items()}
    assert slots == {"first": 0, "second": 1, "third": 2, "fourth": 3}
    memories = memories_of(vm)
    assert {(memory["type"], memory["share"]) for memory in memories.values()} == {("memfd", True)}
    assert memories.keys() == {"ram0", *(f"{name}-ram" for name in slots)}


@pytest.mark.parametrize(
    ("place", "description"),
    [
        ({"slot": 2}, "slot number 2, valid range is"),
        ({"node": 1}, "exceeds the number of numa nodes"),
        ({"address": 4 * GIB + MIB}, "must be aligned to 0x200000"),
        ({"address": 64 * GIB}, "usable range for memory devices"),
    ],
)
def test_a_place_that_is_not_there_is_refused_and_leaves_nothing(
    launch: Launch, place: dict[str, int], description: str
) -> None:
    vm = launch()
    before = vm.state(), memories_of(vm)
    with pytest.raises(QmpCommandError, match=description):
        vm.plug_dimm(2 * MIB, device_id="dimm", **place)
    assert (vm.state(), memories_of(vm)) == before


def test_memory_in_a_file_has_no_name(launch: Launch) -> None:
    vm = launch(shape=small_shape(backend={"type": "file", "share": True}))
    links = [os.fspath(link.readlink()) for link in Path(f"/proc/{vm.pid}/map_files").iterdir()]
    files = {link for link in links if link.startswith(os.fspath(vm.folder))}
    assert files
    assert all(link.endswith(" (deleted)") for link in files)
    assert {path.suffix for path in vm.folder.iterdir()} <= {".txt", ".log", ".jsonl"}


@pytest.mark.parametrize("policy", ["preferred", "bind", "interleave"])
def test_memory_comes_from_the_hosts_node(launch: Launch, policy: str) -> None:
    vm = launch(shape=small_shape(backend={"policy": policy, "host_nodes": [0]}))
    memory = memories_of(vm)["ram0"]
    assert (memory["policy"], memory["host-nodes"]) == (policy, [0])


def test_a_node_that_the_host_lacks_is_told_by_qemu(launch: Launch) -> None:
    with pytest.raises(VmError, match="cannot bind memory to host NUMA nodes"):
        launch(shape=small_shape(backend={"policy": "bind", "host_nodes": [127]}))


def test_a_machine_that_qemu_does_not_know_is_told_by_qemu(launch: Launch) -> None:
    with pytest.raises(VmError, match="unsupported machine type"):
        launch(machine="pc-q35-0.1")


class TestHugePages:
    """A host's huge pages are files with numbers; those here are of hosts that have some, and none."""

    @pytest.fixture
    def host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A host with five free huge pages of 2 MiB, of which one is promised to somebody."""
        folder = tmp_path / "hugepages-2048kB"
        folder.mkdir()
        for name, number in (("free", 5), ("resv", 1), ("nr", 7)):
            (folder / f"{name}_hugepages").write_text(f"{number}\n")
        (tmp_path / "meminfo").write_text("HugePages_Total: 7\nHugepagesize:       2048 kB\n")
        monkeypatch.setattr(huge_pages, "HUGE_PAGES", tmp_path)
        monkeypatch.setattr(huge_pages, "MEMINFO", tmp_path / "meminfo")
        return folder

    @pytest.mark.parametrize("size", [True, "2 MiB"])
    def test_are_counted_before_qemu_starts(
        self, host: Path, size: object, launch: Launch, tmp_path: Path
    ) -> None:
        backend = Backend(type="memfd", huge_pages=size)
        huge_pages.check_huge_pages([(backend, 8 * MIB), (Backend(), GIB)])
        with pytest.raises(HostError) as refused:
            launch(shape=small_shape(backend=backend))
        assert str(refused.value) == (
            "32 huge pages of 2 MiB are needed and 4 are free on this host; "
            f"as root: echo 35 >{host}/nr_hugepages"
        )
        assert not list(tmp_path.rglob("qemu-command.txt"))

    def test_of_several_memories_are_added_up(self, host: Path) -> None:
        backend = Backend(type="memfd", huge_pages=True)
        huge_pages.check_huge_pages([(backend, 4 * MIB), (backend, 4 * MIB)])
        with pytest.raises(HostError, match="5 huge pages of 2 MiB are needed"):
            huge_pages.check_huge_pages([(backend, 4 * MIB), (backend, 6 * MIB)])

    def test_for_a_dimm_are_asked_for_before_it_is_plugged(self, host: Path, launch: Launch) -> None:
        vm = launch()
        with pytest.raises(HostError, match="huge pages"):
            vm.plug_dimm(16 * MIB, device_id="dimm", backend=Backend(type="memfd", huge_pages=True))
        assert memories_of(vm).keys() == {"ram0"}

    def test_of_a_size_the_host_does_not_know_are_told(self, host: Path) -> None:
        backend = Backend(type="memfd", huge_pages="1 GiB")
        with pytest.raises(HostError, match=r"no huge pages of 1 GiB; it knows: 2 MiB$"):
            huge_pages.check_huge_pages([(backend, GIB)])

    def test_are_none_of_a_kernel_without(self, host: Path) -> None:
        huge_pages.MEMINFO.write_text("MemTotal: 1 kB\n")
        with pytest.raises(HostError, match="kernel has no huge pages"):
            huge_pages.check_huge_pages([(Backend(type="memfd", huge_pages=True), GIB)])

    def test_reach_qemu(self) -> None:
        told = Backend(type="memfd", huge_pages="2 MiB").properties("m", 4 * MIB, mem_path=Path("/"))
        assert (told["hugetlb"], told["hugetlbsize"]) == (True, 2 * MIB)
