# SPDX-License-Identifier: MIT
"""What a VM is made of at boot, and the room it leaves for plugging: as written in a plan."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

from harness.document.model import ShortForm, YamlModel, error_at
from harness.document.units import GIB, MIB, SizeBytes, format_size, parse_size
from harness.vm.backend import Backend

#: QEMU takes a DIMM only in multiples of this ("backend memory size must be multiple of 0x200000").
DIMM_MULTIPLE_BYTES = 2 * MIB

#: QEMU's memory for devices begins above this ("usable range for memory devices").
FIRST_DIMM_ADDRESS = 4 * GIB

#: The most NUMA nodes QEMU takes (MAX_NODES in its include/sysemu/numa.h).
MOST_NODES = 128

Count = Annotated[StrictInt, Field(ge=1)]
Number = Annotated[StrictInt, Field(ge=0)]


# The model itself says in words what is wrong with one.
_Address = Annotated[
    StrictInt, Field(json_schema_extra={"minimum": FIRST_DIMM_ADDRESS, "multipleOf": DIMM_MULTIPLE_BYTES})
]


def _machine(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"{name!r} is not the name of a machine; allowed: a name such as pc-q35-7.2")
    return name


class Dimm(ShortForm):
    """A DIMM to plug; a size alone stands for one that QEMU finds a place for."""

    short_key: ClassVar[str] = "size"

    size_bytes: SizeBytes = Field(alias="size", description="how much memory it has")
    slot: Number | None = Field(default=None, description="the lowest free one unless given")
    node: Number | None = Field(default=None, description="the NUMA node; 0 unless given")
    address: _Address | None = Field(
        default=None, description="guest-physical, such as 0x140000000; QEMU's choice unless given"
    )
    backend: Backend | None = Field(default=None, description="the vm's unless given")

    @model_validator(mode="before")
    @classmethod
    def _spell_out_short_form(cls, value: object) -> object:
        if isinstance(value, (Mapping, cls)):
            return value
        parse_size(value)
        return {"size": value}

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        at = self.address
        if at is not None and (at < FIRST_DIMM_ADDRESS or at % DIMM_MULTIPLE_BYTES):
            multiple = format_size(DIMM_MULTIPLE_BYTES)
            raise error_at(
                f"address: {at:#x} is no place for a DIMM; "
                f"allowed: a multiple of {multiple} from {FIRST_DIMM_ADDRESS:#x} on",
                "address",
            )
        mistake = self.backend.mistake_of_size(self.size_bytes) if self.backend else None
        if mistake:
            raise error_at(f"size: {mistake}", "size")
        return self

    def __str__(self) -> str:
        """Return what a person would call it, such as ``DIMM 128 MiB in slot 3 on node 1``."""
        slot = "" if self.slot is None else f" in slot {self.slot}"
        node = "" if self.node is None else f" on node {self.node}"
        address = "" if self.address is None else f" at {self.address:#x}"
        backend = f" ({self.backend})" if self.backend and str(self.backend) else ""
        return f"DIMM {format_size(self.size_bytes)}{slot}{node}{address}{backend}"


class Topology(YamlModel):
    """Into what the places for vCPUs are divided; the whole product is max_vcpus."""

    sockets: Count | None = Field(default=None, description="of the machine; what is left unless given")
    dies: Count | None = Field(default=None, description="of a socket; 1 unless given")
    cores: Count | None = Field(default=None, description="of a die")
    threads: Count | None = Field(default=None, description="of a core")


@dataclass(frozen=True, slots=True)
class Division:
    """A topology with nothing left open."""

    sockets: int
    dies: int
    cores: int
    threads: int


class Node(YamlModel):
    """A NUMA node of the guest, with its places for vCPUs and its part of the boot memory."""

    vcpus: StrictInt = Field(
        default=0, ge=0, description="places for vCPUs, plugged or not; of all nodes together max_vcpus"
    )
    memory_bytes: SizeBytes | None = Field(
        default=None, alias="memory", description="none unless given; of all nodes together the vm's memory"
    )
    backend: Backend | None = Field(default=None, description="the vm's unless given")


@dataclass(frozen=True, slots=True)
class BootMemory:
    """One piece of the memory that a VM has at boot."""

    size_bytes: int
    backend: Backend
    node: int | None  #: the NUMA node it belongs to, in a VM that has nodes


class VmShape(YamlModel):
    """The vm at boot and the room it leaves for plugging."""

    vcpus: Count = Field(default=1, description="vCPUs at boot.")
    max_vcpus: Count = Field(default=4, description="The most vCPUs, those plugged included.")
    topology: Topology = Field(default=Topology(), description="one vCPU per socket unless given")
    memory_bytes: SizeBytes = Field(default=1 * GIB, alias="memory", description="Memory at boot.")
    slots: StrictInt = Field(default=4, ge=0, description="Slots for DIMMs.")
    max_memory_bytes: SizeBytes = Field(
        default=8 * GIB, alias="max_memory", description="The most memory, that of plugged DIMMs included."
    )
    nodes: tuple[Node, ...] = Field(
        default=(), description="NUMA nodes; each takes the next places for vCPUs, the lowest first"
    )
    backend: Backend = Field(
        default=Backend(), description="of the boot memory, and of nodes and DIMMs without one of their own"
    )
    machine: Annotated[StrictStr, AfterValidator(_machine)] | None = Field(
        default=None, description="QEMU's machine, such as pc-q35-7.2; the guest profile's unless given"
    )
    start: Literal["running", "paused"] = Field(
        default="running", description="paused: the vCPUs stand still until QMP's cont"
    )

    @property
    def division(self) -> Division:
        """The topology with nothing left open: sockets, else cores, else threads take what is left."""
        given = {key: value for key, value in self.topology if value is not None}
        left = self.max_vcpus // math.prod(given.values())
        following = next((key for key in ("sockets", "cores", "threads") if key not in given), None)
        ones = dict.fromkeys(("sockets", "dies", "cores", "threads"), 1)
        return Division(**{**ones, **({following: left} if following else {}), **given})

    @property
    def boot_memories(self) -> tuple[BootMemory, ...]:
        """The pieces of the boot memory: one, or one for each node that has memory."""
        if not self.nodes:
            return (BootMemory(self.memory_bytes, self.backend, None),)
        return tuple(
            BootMemory(node.memory_bytes, node.backend or self.backend, number)
            for number, node in enumerate(self.nodes)
            if node.memory_bytes is not None
        )

    @property
    def file_bytes(self) -> int:
        """How much of the boot memory is in files, which take room on the host's disk."""
        return sum(memory.size_bytes for memory in self.boot_memories if memory.backend.type == "file")

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        if self.vcpus > self.max_vcpus:
            raise error_at(f"vcpus: {self.vcpus} is more than max_vcpus, {self.max_vcpus}", "vcpus")
        _check_topology(self)
        _check_memory(self)
        if self.nodes:
            _check_nodes(self)
        for memory in self.boot_memories:
            mistake = memory.backend.mistake_of_size(memory.size_bytes)
            if mistake:
                at = () if memory.node is None else ("nodes", memory.node)
                raise error_at(f"memory: {mistake}", *at, "memory")
        return self


def _check_topology(shape: VmShape) -> None:
    given = {key: value for key, value in shape.topology if value is not None}
    product = math.prod(given.values())
    division = shape.division
    if division.sockets * division.dies * division.cores * division.threads == shape.max_vcpus:
        return
    written = " x ".join(f"{key} {value}" for key, value in given.items())
    rest = "" if {"sockets", "cores", "threads"} <= given.keys() else "a divisor of "
    raise error_at(
        f"topology: {written} is {product}; allowed: a product that is {rest}max_vcpus, {shape.max_vcpus}",
        "topology",
    )


def _check_memory(shape: VmShape) -> None:
    for key, size_bytes in (("memory", shape.memory_bytes), ("max_memory", shape.max_memory_bytes)):
        if size_bytes % MIB:
            raise error_at(f"{key}: {format_size(size_bytes)} is not a multiple of 1 MiB", key)
    memory, max_memory = format_size(shape.memory_bytes), format_size(shape.max_memory_bytes)
    if shape.max_memory_bytes < shape.memory_bytes:
        written = "max_memory" if "max_memory_bytes" in shape.model_fields_set else "memory"
        raise error_at(f"max_memory: {max_memory} is less than memory, {memory}", written)
    if shape.slots == 0 and shape.max_memory_bytes > shape.memory_bytes:
        raise error_at(
            f"slots: 0 with max_memory {max_memory} above memory {memory}; "
            f"allowed: slots of at least 1, or max_memory: {memory}",
            "slots",
        )
    if shape.slots > 0 and shape.max_memory_bytes == shape.memory_bytes:
        raise error_at(
            f"max_memory: {max_memory} leaves no room for the {shape.slots} slots above memory, {memory}; "
            "allowed: more than memory, or slots: 0",
            "max_memory",
        )


def _check_nodes(shape: VmShape) -> None:
    if len(shape.nodes) > MOST_NODES:
        raise error_at(f"nodes: {len(shape.nodes)} of them; allowed: at most {MOST_NODES}", "nodes")
    threads, places = shape.division.threads, 0
    for number, node in enumerate(shape.nodes):
        if (node.memory_bytes or 0) % MIB:
            size = format_size(node.memory_bytes or 0)
            raise error_at(f"memory: {size} is not a multiple of 1 MiB", "nodes", number, "memory")
        places += node.vcpus
        # The guest's kernel takes the threads of one core to be neighbours, and says so if they are not.
        if places % threads:
            raise error_at(
                f"vcpus: {node.vcpus} ends this node inside a core of {threads} threads; "
                f"allowed: a multiple of {threads}",
                *("nodes", number, "vcpus"),
            )
    if places != shape.max_vcpus:
        raise error_at(
            f"nodes: their vcpus are {places} together; allowed: as many as max_vcpus, {shape.max_vcpus}",
            "nodes",
        )
    memory_bytes = sum(node.memory_bytes or 0 for node in shape.nodes)
    if memory_bytes != shape.memory_bytes:
        raise error_at(
            f"nodes: their memory is {format_size(memory_bytes)} together; "
            f"allowed: as much as memory, {format_size(shape.memory_bytes)}",
            "nodes",
        )
