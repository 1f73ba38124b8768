# SPDX-License-Identifier: MIT
"""VM shapes and DIMMs as written: what follows from what, what fits, and each mistake at its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from harness.document.units import GIB, MIB
from harness.errors import PlanError
from harness.fork.forkable import why_not_forkable
from harness.plan.need import need_of
from harness.plan.plan import Plan, load_plan
from harness.vm.backend import Backend
from harness.vm.dimm_slots import DimmSlots
from harness.vm.shape import Dimm, Division, VmShape

PLUG = "steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]\n"
HALVES = "[{vcpus: 2, memory: 512 MiB}, {vcpus: 2, memory: 512 MiB}]"


def load(folder: Path, text: str) -> Plan:
    path = folder / "p.yaml"
    path.write_text(text)
    return load_plan(path)


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(PlanError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def plugging(dimms: str) -> str:
    return f"steps: [{{plug: {{dimms: {dimms}}}, expect: {{driver: []}}}}]\n"


@pytest.mark.parametrize(
    ("vm", "error"),
    [
        # --- topology
        (
            "{topology: {cores: 3}}",
            "1:16: topology: cores 3 is 3; allowed: a product that is a divisor of max_vcpus, 4",
        ),
        (
            "{max_vcpus: 8, topology: {sockets: 2, dies: 2, cores: 2, threads: 2}}",
            "1:30: topology: sockets 2 x dies 2 x cores 2 x threads 2 is 16; allowed: a product that "
            "is max_vcpus, 8",
        ),
        (
            "{topology: {sockets: 0}}",
            "1:26: sockets: 0 is too small; allowed: at least 1",
        ),
        (
            "{topology: {core: 1}}",
            "1:17: unknown key 'core'; allowed: sockets, dies, cores, threads (did you mean 'cores'?)",
        ),
        # --- nodes
        (
            "{nodes: [{vcpus: 3, memory: 1 GiB}]}",
            "1:13: nodes: their vcpus are 3 together; allowed: as many as max_vcpus, 4",
        ),
        (
            "{nodes: [{vcpus: 4, memory: 512 MiB}, {}]}",
            "1:13: nodes: their memory is 512 MiB together; allowed: as much as memory, 1 GiB",
        ),
        (
            "{nodes: [{vcpus: 4}]}",
            "1:13: nodes: their memory is 0 bytes together; allowed: as much as memory, 1 GiB",
        ),
        (
            "{nodes: [{vcpus: 4, memory: 1 KiB}]}",
            "1:33: memory: 1 KiB is not a multiple of 1 MiB",
        ),
        (
            "{topology: {threads: 2}, nodes: [{vcpus: 1, memory: 1 GiB}, {vcpus: 3}]}",
            "1:46: vcpus: 1 ends this node inside a core of 2 threads; allowed: a multiple of 2",
        ),
        (
            "{nodes: [{vcpu: 4}]}",
            "1:15: unknown key 'vcpu'; allowed: vcpus, memory, backend (did you mean 'vcpus'?)",
        ),
        (
            "{nodes: [{vcpus: -1}]}",
            "1:22: vcpus: -1 is too small; allowed: at least 0",
        ),
        # --- backend
        (
            "{backend: {type: mem}}",
            "1:22: type: 'mem' is not known; allowed: ram, memfd, file (did you mean 'memfd'?)",
        ),
        (
            "{backend: {huge_pages: true}}",
            "1:28: huge_pages with type ram; allowed with type: memfd, which needs no hugetlbfs",
        ),
        (
            "{backend: {type: memfd, huge_pages: 3 MiB}}",
            "1:41: huge_pages: '3 MiB' is no size of a page; allowed: true, false, or a page's size, "
            "such as '2 MiB'",
        ),
        (
            "{backend: {type: memfd, huge_pages: 2}}",
            "1:41: huge_pages: 2 is no size of a page; allowed: true, false, or a page's size, such as "
            "'2 MiB'",
        ),
        (
            "{memory: 7 MiB, backend: {type: memfd, huge_pages: 2 MiB}}",
            "1:14: memory: 7 MiB is not a multiple of huge_pages, 2 MiB",
        ),
        (
            "{nodes: [{vcpus: 4}, {memory: 1 GiB, backend: {type: memfd, huge_pages: 2 GiB}}]}",
            "1:35: memory: 1 GiB is not a multiple of huge_pages, 2 GiB",
        ),
        (
            "{backend: {host_nodes: [0]}}",
            "1:28: host_nodes with policy default; allowed with policy: preferred, bind, interleave",
        ),
        (
            "{backend: {policy: bind}}",
            "1:24: policy: bind without host_nodes; allowed: host_nodes: [0]",
        ),
        (
            "{backend: {policy: bind, host_nodes: [-1]}}",
            "1:43: -1 is too small; allowed: at least 0",
        ),
        (
            "{backend: {share: maybe}}",
            "1:23: share: 'maybe' is neither true nor false",
        ),
        # --- machine and start
        (
            "{machine: 'pc,accel=kvm'}",
            "1:15: machine: 'pc,accel=kvm' is not the name of a machine; allowed: a name such as pc-q35-7.2",
        ),
        (
            "{start: pause}",
            "1:13: start: 'pause' is not known; allowed: running, paused (did you mean 'paused'?)",
        ),
    ],
)
def test_a_bad_shape_is_told_where_and_what_is_allowed(tmp_path: Path, vm: str, error: str) -> None:
    assert error_of(tmp_path, f"vm: {vm}\n{PLUG}") == f"p.yaml:{error}"


@pytest.mark.parametrize(
    ("dimms", "error"),
    [
        (
            "[{size: 1 GB}]",
            "1:32: size: '1 GB' has the unknown unit 'GB'; allowed: a number and KiB, MiB, GiB or TiB, "
            "such as '256 MiB' (did you mean 'GiB'?)",
        ),
        (
            "[1 GB]",
            "1:25: '1 GB' has the unknown unit 'GB'; allowed: a number and KiB, MiB, GiB or TiB, such "
            "as '256 MiB' (did you mean 'GiB'?)",
        ),
        (
            "[[1 GiB]]",
            "1:25: ['1 GiB'] is not a size; allowed: a number and KiB, MiB, GiB or TiB, such as '256 MiB'",
        ),
        (
            "[{slot: 1}]",
            "1:25: the key 'size' is missing",
        ),
        (
            "[{size: 1 GiB, slto: 1}]",
            "1:39: unknown key 'slto'; allowed: size, slot, node, address, backend (did you mean 'slot'?)",
        ),
        (
            "[{size: 1 GiB, backend: {typ: ram}}]",
            "1:49: unknown key 'typ'; allowed: type, share, prealloc, huge_pages, policy, host_nodes "
            "(did you mean 'type'?)",
        ),
        (
            "[{size: 1 GiB, slot: -1}]",
            "1:45: slot: -1 is too small; allowed: at least 0",
        ),
        (
            "[{size: 1 GiB, slot: 4}]",
            "1:45: slot: 4 is none of the vm's; allowed here: 0, 1, 2, 3",
        ),
        (
            "[1 GiB, {size: 1 GiB, slot: 0}]",
            "1:52: slot: 0 is taken by then; allowed here: 1, 2, 3",
        ),
        (
            "[{size: 1 GiB, slot: 1}, 1 GiB, 1 GiB, {size: 1 GiB, slot: 2}]",
            "1:83: slot: 2 is taken by then; allowed here: 3",
        ),
        (
            "[{size: 1 GiB, node: 1}]",
            "1:45: node: 1; the vm has nodes: 0",
        ),
        (
            "[{size: 1 GiB, address: 0x40000000}]",
            "1:48: address: 0x40000000 is no place for a DIMM; allowed: a multiple of 2 MiB from "
            "0x100000000 on",
        ),
        (
            "[{size: 1 GiB, address: 0x140000001}]",
            "1:48: address: 0x140000001 is no place for a DIMM; allowed: a multiple of 2 MiB from "
            "0x100000000 on",
        ),
        (
            "[{size: 1 GiB, address: 0x140000000}, {size: 1 GiB, address: 0x170000000}]",
            "1:85: address: 0x170000000 overlaps the DIMM in slot 0, 1 GiB at 0x140000000",
        ),
        (
            "[{size: 3 MiB, slot: 1}]",
            "1:32: DIMM of 3 MiB; allowed: a multiple of 2 MiB",
        ),
        (
            "[{size: 4 MiB, backend: {type: memfd, huge_pages: 8 MiB}}]",
            "1:32: size: 4 MiB is not a multiple of huge_pages, 8 MiB",
        ),
        (
            "[{size: 8 GiB, slot: 1}]",
            "1:32: DIMM of 8 GiB exceeds max_memory 8 GiB; allowed here: 7 GiB",
        ),
    ],
)
def test_a_bad_dimm_is_told_where_and_what_is_allowed(tmp_path: Path, dimms: str, error: str) -> None:
    assert error_of(tmp_path, plugging(dimms)) == f"p.yaml:{error}"


def test_the_vms_huge_pages_count_for_dimms_that_say_nothing(tmp_path: Path) -> None:
    vm = "vm: {backend: {type: memfd, huge_pages: 8 MiB}}\n"
    error = "p.yaml:2:25: DIMM of 4 MiB is not a multiple of huge_pages, 8 MiB"
    assert error_of(tmp_path, vm + plugging("[4 MiB]")) == error
    assert load(tmp_path, vm + plugging("[{size: 4 MiB, backend: {type: ram}}]")).unrolled()


@pytest.mark.parametrize(
    ("given", "max_vcpus", "division"),
    [
        ({}, 4, Division(4, 1, 1, 1)),
        ({"cores": 2, "threads": 2}, 8, Division(2, 1, 2, 2)),
        ({"sockets": 2}, 8, Division(2, 1, 4, 1)),
        ({"sockets": 2, "cores": 2}, 8, Division(2, 1, 2, 2)),
        ({"sockets": 1, "dies": 2, "cores": 1}, 8, Division(1, 2, 1, 4)),
        ({"dies": 2}, 8, Division(4, 2, 1, 1)),
        ({"sockets": 1, "cores": 4, "threads": 2}, 8, Division(1, 1, 4, 2)),
    ],
)
def test_what_a_topology_leaves_open_follows(
    given: dict[str, int], max_vcpus: int, division: Division
) -> None:
    assert VmShape(topology=given, max_vcpus=max_vcpus).division == division


counts = st.none() | st.integers(1, 5)


@given(
    st.integers(1, 40), st.fixed_dictionaries(dict.fromkeys(("sockets", "dies", "cores", "threads"), counts))
)
def test_a_topology_is_either_all_places_or_a_mistake(
    max_vcpus: int, topology: dict[str, int | None]
) -> None:
    given = {key: value for key, value in topology.items() if value is not None}
    product = math.prod(given.values())
    all_given = {"sockets", "cores", "threads"} <= given.keys()
    fits = product == max_vcpus if all_given else max_vcpus % product == 0
    if not fits:
        with pytest.raises(ValidationError, match=r"topology: .* allowed: a product"):
            VmShape(topology=topology, max_vcpus=max_vcpus)
        return
    of = VmShape(topology=topology, max_vcpus=max_vcpus).division
    assert of.sockets * of.dies * of.cores * of.threads == max_vcpus
    assert {key: getattr(of, key) for key in given} == given


sizes = st.integers(1, 64).map(lambda number: f"{2 * number} MiB")
backends = st.one_of(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(["ram", "memfd", "file"]),
                                        "share": st.booleans(), "prealloc": st.booleans()}),
    st.just({"type": "memfd", "huge_pages": "2 MiB"}),
    st.just({"type": "memfd", "huge_pages": True}),
    st.fixed_dictionaries({"policy": st.sampled_from(["bind", "interleave", "preferred"]),
                           "host_nodes": st.lists(st.integers(0, 127), min_size=1, max_size=3)}),
)  # fmt: skip
dimms = st.one_of(
    sizes,
    st.fixed_dictionaries(
        {"size": sizes},
        optional={
            "slot": st.integers(0, 9),
            "node": st.integers(0, 3),
            "address": st.integers(2048, 9999).map(lambda number: number * 2 * MIB),
            "backend": backends,
        },
    ),
)


@given(dimms)
def test_a_dimm_is_written_and_read_again(written: str | dict[str, Any]) -> None:
    dimm = Dimm.model_validate(written)
    assert Dimm.model_validate_json(dimm.model_dump_json(by_alias=True)) == dimm
    if isinstance(written, str):
        assert dimm == Dimm.model_validate({"size": written})
        assert str(dimm) == f"DIMM {written}" or "GiB" in str(dimm)


@given(backends, st.lists(backends, max_size=3))
def test_a_shape_is_written_and_read_again(backend: dict[str, Any], of_nodes: list[dict[str, Any]]) -> None:
    nodes = [{"memory": "8 MiB", "backend": of_node} for of_node in of_nodes]
    shape = VmShape.model_validate(
        {
            "backend": backend,
            "memory": f"{8 * max(1, len(nodes))} MiB",
            "nodes": [*nodes, {"vcpus": 4}] if nodes else [],
        }
    )
    assert VmShape.model_validate_json(shape.model_dump_json(by_alias=True)) == shape
    plain = all(memory.backend == Backend() for memory in shape.boot_memories)
    assert (why_not_forkable(shape) is None) == plain


@given(st.lists(dimms, max_size=8))
def test_no_two_dimms_get_one_slot(written: list[str | dict[str, Any]]) -> None:
    slots, taken = DimmSlots(VmShape(slots=5)), {}
    for entry in written:
        dimm = Dimm.model_validate(entry)
        try:
            slot = slots.take(dimm)
        except PydanticCustomError:
            continue
        assert slot not in taken
        assert dimm.slot in (None, slot)
        taken[slot] = dimm
    assert set(taken) <= set(range(5))
    for slot in taken:
        slots.give_back(slot)
    assert slots.take(Dimm(size="2 MiB")) == 0


@pytest.mark.parametrize(
    ("dimm", "text"),
    [
        ("128 MiB", "DIMM 128 MiB"),
        ({"size": "128 MiB", "slot": 3, "node": 1}, "DIMM 128 MiB in slot 3 on node 1"),
        (
            {"size": "1 GiB", "address": 0x140000000, "backend": {"type": "file", "prealloc": True}},
            "DIMM 1 GiB at 0x140000000 (file, prealloc)",
        ),
        ({"size": "1 GiB", "backend": {"type": "memfd", "huge_pages": "2 MiB", "policy": "bind",
                                       "host_nodes": [0, 1]}},
         "DIMM 1 GiB (memfd, huge pages of 2 MiB, bind of host nodes 0, 1)"),
        ({"size": "1 GiB", "backend": {}}, "DIMM 1 GiB"),
    ],
)  # fmt: skip
def test_a_dimm_says_what_it_is(dimm: object, text: str) -> None:
    assert str(Dimm.model_validate(dimm)) == text


def test_the_json_schema_shows_both_ways_to_write_a_dimm() -> None:
    schema = Plan.model_json_schema()["$defs"]["Dimm"]
    text, mapping = schema["anyOf"]
    assert text["type"] == "string"
    assert set(mapping["properties"]) == {"size", "slot", "node", "address", "backend"}
    assert mapping["required"] == ["size"]
    assert mapping["additionalProperties"] is False


@pytest.mark.parametrize(
    ("vm", "reason"),
    [
        ({}, None),
        ({"topology": {"threads": 2}, "machine": "pc", "backend": {"type": "ram"}}, None),
        ({"nodes": [{"vcpus": 2, "memory": "512 MiB"}, {"vcpus": 2, "memory": "512 MiB"}]}, None),
        ({"backend": {"type": "memfd", "share": True}}, "its memory is to be memfd, share, and a fork's is a "
         "private mapping of a file"),
        ({"nodes": [{"vcpus": 4, "memory": "512 MiB"}, {"memory": "512 MiB", "backend": {"type": "file"}}]},
         "its memory on node 1 is to be file, and a fork's is a private mapping of a file"),
        ({"start": "paused"}, "it is to start paused, and a fork goes on from where its template was"),
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_forked_says_why(vm: dict[str, Any], reason: str | None) -> None:
    assert why_not_forkable(VmShape.model_validate(vm)) == reason


def test_memory_in_files_takes_room_on_the_disk(tmp_path: Path) -> None:
    plain = need_of(load(tmp_path, PLUG))
    filed = need_of(load(tmp_path, f"vm: {{backend: {{type: file}}, nodes: {HALVES}}}\n{PLUG}"))
    assert filed.disk_bytes - plain.disk_bytes == GIB
    assert filed.memory_bytes == plain.memory_bytes
