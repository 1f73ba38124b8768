# SPDX-License-Identifier: MIT
"""A test plan: which vCPUs and DIMMs to plug, and what the driver must tell of each step.

:func:`load_plan` reads a plan as its author wrote it (:class:`Plan`); :meth:`Plan.unrolled` returns the steps
to run, with every repetition, default and ``all`` spelled out (:class:`Step`). Whatever can be known to be
wrong before a vm is started is found while loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from harness.errors import PlanError
from harness.evidence import Witness
from harness.units import GIB, MIB, DurationSeconds, SizeBytes, format_size
from harness.yaml_model import NotEmpty, YamlModel, error_at
from harness.yaml_source import Source, load_model

#: QEMU takes a DIMM only in multiples of this ("backend memory size must be multiple of 0x200000").
DIMM_MULTIPLE_BYTES = 2 * MIB

Word = Literal[
    "processor", "memory", "add_start", "add_complete", "add_failure", "load", "baseline", "unload"
]


def _vcpu_count(value: object) -> object:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"{value!r} is not a number of vCPUs; allowed: a whole number of at least 1, or all")


class VmShape(YamlModel):
    """The vm at boot and the room it leaves for plugging."""

    vcpus: StrictInt = Field(default=1, ge=1)
    max_vcpus: StrictInt = Field(default=4, ge=1)
    memory_bytes: SizeBytes = Field(default=1 * GIB, alias="memory")
    slots: StrictInt = Field(default=4, ge=0)
    max_memory_bytes: SizeBytes = Field(default=8 * GIB, alias="max_memory")

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        if self.vcpus > self.max_vcpus:
            raise error_at(f"vcpus: {self.vcpus} is more than max_vcpus, {self.max_vcpus}", "vcpus")
        for key, size_bytes in (("memory", self.memory_bytes), ("max_memory", self.max_memory_bytes)):
            if size_bytes % MIB:
                raise error_at(f"{key}: {format_size(size_bytes)} is not a multiple of 1 MiB", key)
        memory, max_memory = format_size(self.memory_bytes), format_size(self.max_memory_bytes)
        if self.max_memory_bytes < self.memory_bytes:
            written = "max_memory" if "max_memory_bytes" in self.model_fields_set else "memory"
            raise error_at(f"max_memory: {max_memory} is less than memory, {memory}", written)
        if self.slots == 0 and self.max_memory_bytes > self.memory_bytes:
            raise error_at(
                f"slots: 0 with max_memory {max_memory} above memory {memory}; "
                f"allowed: slots of at least 1, or max_memory: {memory}",
                "slots",
            )
        if self.slots > 0 and self.max_memory_bytes == self.memory_bytes:
            raise error_at(
                f"max_memory: {max_memory} leaves no room for the {self.slots} slots above memory, {memory}; "
                "allowed: more than memory, or slots: 0",
                "max_memory",
            )
        return self


class DriverSetup(YamlModel):
    """How the driver is configured before the first step."""

    interfaces: Literal["both", "processor", "memory"] = "both"
    synchronous: StrictBool = False


class Expect(YamlModel):
    """What a step must lead to."""

    driver: tuple[Word, ...] = Field(
        description="The records the driver must write, in this order; [] for none at all."
    )


class PlannedPlug(YamlModel):
    """The devices of a plug step as written."""

    vcpus: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], BeforeValidator(_vcpu_count)] | None = None
    dimms_bytes: tuple[SizeBytes, ...] = Field(default=(), alias="dimms")


class PlannedStep(YamlModel):
    """One step as written."""

    plug: PlannedPlug | None = None
    driver: Literal["start", "stop"] | None = None
    repeat: StrictInt = Field(default=1, ge=1, le=1000)
    within_s: DurationSeconds | None = Field(default=None, alias="within")
    expect: Expect

    @model_validator(mode="after")
    def _has_one_action(self) -> Self:
        if self.plug is not None and self.driver is not None:
            raise error_at("two actions in one step; allowed: one of plug and driver", "driver")
        if self.plug is None and self.driver is None:
            raise error_at("a step without an action; allowed: one of plug and driver")
        if self.plug is not None and self.plug.vcpus is None and not self.plug.dimms_bytes:
            raise error_at("plug: nothing to plug; allowed: vcpus, dimms or both", "plug")
        return self


@dataclass(frozen=True, slots=True)
class Plug:
    """The devices to plug in one step, back to back: vCPUs first, then DIMMs."""

    vcpus: int
    dimms_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step to run; exactly one of :attr:`plug` and :attr:`driver` is set."""

    number: int  #: from 1
    plug: Plug | None
    driver: Literal["start", "stop"] | None
    within_s: float
    expect: Expect

    @property
    def title(self) -> str:
        """What the step does, such as ``plug 1 vCPU, DIMM 256 MiB``."""
        if self.plug is None:
            return f"driver {self.driver}"
        vcpus = self.plug.vcpus
        parts = [f"{vcpus} vCPU{'s' if vcpus > 1 else ''}"] if vcpus else []
        if self.plug.dimms_bytes:
            sizes = ", ".join(format_size(size_bytes) for size_bytes in self.plug.dimms_bytes)
            parts.append(f"DIMM{'s' if len(self.plug.dimms_bytes) > 1 else ''} {sizes}")
        return f"plug {', '.join(parts)}"


class Plan(YamlModel):
    """A test plan as written."""

    description: StrictStr | None = None
    guest: StrictStr = Field(default="reference", min_length=1)
    vm: VmShape = VmShape()
    boot: Literal["fork", "cold"] = Field(
        default="fork", description="Fork a booted guest, which takes a second, or boot one of its own."
    )
    driver: DriverSetup = DriverSetup()
    require: Annotated[tuple[Witness, ...], NotEmpty] | None = None
    within_s: DurationSeconds = Field(default=30.0, alias="within")
    steps: Annotated[tuple[PlannedStep, ...], NotEmpty]

    _source: Source[PlanError] | None = PrivateAttr(default=None)
    _unrolled: tuple[Step, ...] = PrivateAttr(default=())

    @property
    def source(self) -> Path:
        """The file the plan was loaded from."""
        if self._source is None:
            raise ValueError("this plan was not loaded from a file")
        return self._source.path

    @property
    def name(self) -> str:
        """The name of that file without its ending."""
        return self.source.stem

    def unrolled(self) -> tuple[Step, ...]:
        """Return the steps to run, in order."""
        return self._unrolled

    def error(self, message: str, *at: str | int) -> PlanError:
        """Return an error about a part of this plan, given by its YAML keys and list positions."""
        if self._source is None:
            return PlanError(message, file="plan")
        return self._source.error(message, *at)

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        self._unrolled = _unroll(self)
        return self


def load_plan(path: Path) -> Plan:
    """Read a test plan.

    :raise PlanError: the file cannot be read or the plan cannot be run.
    """
    loaded = load_model(path, Plan, PlanError)
    loaded.model._source = loaded.source
    return loaded.model


class _Room:
    """What is left to plug, and the state of the driver, while a plan's steps are gone through."""

    def __init__(self, shape: VmShape) -> None:
        self._shape = shape
        self._vcpus = shape.vcpus
        self._dimms = 0
        self._memory_bytes = shape.memory_bytes
        self._driver_runs = True

    def take(self, planned: PlannedPlug, at: tuple[str | int, ...]) -> Plug:
        """Return the devices of a plug step.

        :raise PydanticCustomError: there is no room for them.
        """
        return Plug(self._take_vcpus(planned, at), self._take_dimms(planned, at))

    def switch_driver(self, action: Literal["start", "stop"], at: tuple[str | int, ...]) -> None:
        """Start or stop the driver.

        :raise PydanticCustomError: it is started or stopped already.
        """
        if self._driver_runs == (action == "start"):
            state = "running" if self._driver_runs else "stopped"
            raise error_at(f"driver: {action} while the driver is {state} already", *at, "driver")
        self._driver_runs = action == "start"

    def _take_vcpus(self, planned: PlannedPlug, at: tuple[str | int, ...]) -> int:
        if planned.vcpus is None:
            return 0
        left = self._shape.max_vcpus - self._vcpus
        wanted = left if planned.vcpus == "all" else planned.vcpus
        if left == 0 or wanted > left:
            raise error_at(
                f"vcpus: {planned.vcpus} is more than the vm has room for; "
                f"allowed here: {left} (max_vcpus {self._shape.max_vcpus}, {self._vcpus} present by then)",
                *at,
                "plug",
                "vcpus",
            )
        self._vcpus += wanted
        return wanted

    def _take_dimms(self, planned: PlannedPlug, at: tuple[str | int, ...]) -> tuple[int, ...]:
        for index, size_bytes in enumerate(planned.dimms_bytes):
            size, here = format_size(size_bytes), (*at, "plug", "dimms", index)
            if size_bytes % DIMM_MULTIPLE_BYTES:
                multiple = format_size(DIMM_MULTIPLE_BYTES)
                raise error_at(f"DIMM of {size}; allowed: a multiple of {multiple}", *here)
            if self._dimms == self._shape.slots:
                raise error_at(f"DIMM without a free slot; the vm has slots: {self._shape.slots}", *here)
            left_bytes = self._shape.max_memory_bytes - self._memory_bytes
            if size_bytes > left_bytes:
                maximum = format_size(self._shape.max_memory_bytes)
                raise error_at(
                    f"DIMM of {size} exceeds max_memory {maximum}; allowed here: {format_size(left_bytes)}",
                    *here,
                )
            self._dimms += 1
            self._memory_bytes += size_bytes
        return planned.dimms_bytes


def _unroll(plan: Plan) -> tuple[Step, ...]:
    room = _Room(plan.vm)
    steps: list[Step] = []
    for index, planned in enumerate(plan.steps):
        at = ("steps", index)
        within_s = plan.within_s if planned.within_s is None else planned.within_s
        for _ in range(planned.repeat):
            plug = None if planned.plug is None else room.take(planned.plug, at)
            if planned.driver is not None:
                room.switch_driver(planned.driver, at)
            steps.append(Step(len(steps) + 1, plug, planned.driver, within_s, planned.expect))
    return tuple(steps)
