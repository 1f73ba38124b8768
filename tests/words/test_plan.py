# SPDX-License-Identifier: MIT
"""Plans: what a good one means, and the default plans."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import ValidationError

from harness.document.units import GIB
from harness.plan.plan import Plan, load_plan
from harness.steps.driver import SwitchDriver
from harness.steps.plug import Plug
from harness.vm.shape import Dimm, VmShape

OF_ANOTHER_SHAPE = {"topology", "numa-nodes", "memory-backend", "no-system"}
TESTPLANS = Path(__file__).parents[2] / "testplans"


def load(folder: Path, text: str) -> Plan:
    path = folder / "sample.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return load_plan(path)


def test_a_plan_of_one_step_gets_every_default(tmp_path: Path) -> None:
    plan = load(tmp_path, "steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]")
    assert (plan.name, plan.source) == ("sample", tmp_path / "sample.yaml")
    assert plan.guest == "reference"
    assert plan.vm == VmShape()
    assert (plan.vm.vcpus, plan.vm.max_vcpus, plan.vm.memory_bytes) == (1, 4, GIB)
    assert (plan.vm.slots, plan.vm.max_memory_bytes) == (4, 8 * GIB)
    assert (plan.driver.interfaces, plan.driver.synchronous) == ("both", False)
    assert plan.require is None
    assert plan.unrolled()[0].within_s == 30.0


def test_unrolling_spells_out_repetition_all_and_within(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """
        within: 20 s
        steps:
          - plug: {vcpus: 1, dimms: [128 MiB, 1 GiB]}
            repeat: 2
            within: 500 ms
            expect: {driver: [processor, memory, memory]}
          - {driver: stop, expect: {driver: [unload]}}
          - {plug: {vcpus: all}, expect: {driver: []}}
        """,
    )
    steps = plan.unrolled()
    assert [step.title for step in steps] == [
        "plug 1 vCPU, DIMMs 128 MiB, 1 GiB",
        "plug 1 vCPU, DIMMs 128 MiB, 1 GiB",
        "driver stop",
        "plug 1 vCPU",
    ]
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert [step.within_s for step in steps] == [0.5, 0.5, 20.0, 20.0]
    assert steps[0].action == Plug(vcpus=1, dimms=(Dimm(size="128 MiB"), Dimm(size="1 GiB")))
    assert steps[2].action == SwitchDriver("stop")
    assert steps[3].action == Plug(vcpus=1)
    assert steps[3].expect.driver == ()


def test_all_leaves_no_vcpu_behind(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        "{vm: {vcpus: 2, max_vcpus: 8}, steps: [{plug: {vcpus: all}, expect: {driver: [processor]}}]}",
    )
    assert plan.unrolled()[0].title == "plug 6 vCPUs"


def test_anchors_and_dates_are_ordinary(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """
        description: 2026-11-22
        steps:
          - &one {plug: {vcpus: 1}, expect: {driver: [processor]}}
          - *one
        """,
    )
    assert plan.description == "2026-11-22"
    assert len(plan.unrolled()) == 2


def test_a_plan_does_not_change(tmp_path: Path) -> None:
    plan = load(tmp_path, "steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]")
    with pytest.raises(ValidationError, match="frozen"):
        plan.guest = "other"  # type: ignore[misc]


def test_the_json_schema_speaks_of_the_keys_in_yaml() -> None:
    schema = Plan.model_json_schema()
    vm = schema["$defs"]["VmShape"]
    assert set(vm["properties"]) == {
        *("vcpus", "max_vcpus", "topology", "memory", "slots", "max_memory"),
        *("nodes", "backend", "machine", "start"),
    }
    assert vm["properties"]["memory"]["type"] == "string"
    assert vm["properties"]["memory"]["default"] == "1 GiB"
    assert vm["additionalProperties"] is False
    assert "within" in schema["properties"]
    assert schema["required"] == ["steps"]


@pytest.mark.parametrize("path", sorted(TESTPLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_default_plans_load_and_share_one_vm_shape_but_for_those_about_shapes(path: Path) -> None:
    plan = load_plan(path)
    # Each shape costs the first run a boot.
    assert (plan.vm != VmShape()) == (plan.name in OF_ANOTHER_SHAPE)
    assert plan.description


def test_there_are_default_plans() -> None:
    assert {path.stem for path in TESTPLANS.glob("*.yaml")} >= {
        "one-vcpu", "vcpus-one-by-one", "vcpu-burst", "all-vcpus", "one-dimm", "dimms-of-different-sizes",
        "all-slots", "interleaved", "processor-only", "memory-only", "driver-stopped", "unload-unregisters",
    }  # fmt: skip
