# SPDX-License-Identifier: MIT
"""Whether the DIMMs of a plan find their places, gone through without a VM: pure."""

from __future__ import annotations

from harness.document.model import error_at
from harness.document.units import format_size
from harness.vm.shape import DIMM_MULTIPLE_BYTES, Dimm, VmShape


class DimmSlots:
    """The slots of a VM and the room for memory in it, while a plan's DIMMs are plugged one after the other.

    What depends on where QEMU puts memory, such as the highest address, is left for QEMU to refuse.
    """

    def __init__(self, shape: VmShape) -> None:
        self._shape = shape
        self._taken: dict[int, Dimm] = {}

    def copy(self) -> DimmSlots:
        """Return the same slots with the same DIMMs in them, to go on from."""
        twin = DimmSlots(self._shape)
        twin._taken = dict(self._taken)
        return twin

    def take(self, dimm: Dimm, *at: str | int) -> int:
        """Plug a DIMM that is written at this place of a document, and return its slot.

        :raise PydanticCustomError: it does not fit, pointing at what is wrong with it.
        """
        shape, size = self._shape, format_size(dimm.size_bytes)
        if dimm.size_bytes % DIMM_MULTIPLE_BYTES:
            multiple = format_size(DIMM_MULTIPLE_BYTES)
            raise error_at(f"DIMM of {size}; allowed: a multiple of {multiple}", *at, "size")
        mistake = (dimm.backend or shape.backend).mistake_of_size(dimm.size_bytes)
        if mistake:
            raise error_at(f"DIMM of {mistake}", *at, "size")
        slot = self._slot(dimm, at)
        left_bytes = shape.max_memory_bytes - shape.memory_bytes
        left_bytes -= sum(other.size_bytes for other in self._taken.values())
        if dimm.size_bytes > left_bytes:
            maximum = format_size(shape.max_memory_bytes)
            raise error_at(
                f"DIMM of {size} exceeds max_memory {maximum}; allowed here: {format_size(left_bytes)}",
                *at,
                "size",
            )
        nodes = len(shape.nodes) or 1
        if dimm.node is not None and dimm.node >= nodes:
            raise error_at(f"node: {dimm.node}; the vm has nodes: {_numbers(range(nodes))}", *at, "node")
        if dimm.address is not None:
            self._check_address(dimm, dimm.address, at)
        self._taken[slot] = dimm
        return slot

    def give_back(self, slot: int) -> None:
        """Unplug the DIMM in a slot."""
        del self._taken[slot]

    def _slot(self, dimm: Dimm, at: tuple[str | int, ...]) -> int:
        free = [slot for slot in range(self._shape.slots) if slot not in self._taken]
        if not free:
            raise error_at(f"DIMM without a free slot; the vm has slots: {self._shape.slots}", *at)
        if dimm.slot is None:
            # QEMU takes the lowest free one (pc_dimm_get_free_slot in its hw/mem/pc-dimm.c).
            return free[0]
        if dimm.slot not in free:
            problem = "is taken by then" if dimm.slot in self._taken else "is none of the vm's"
            raise error_at(f"slot: {dimm.slot} {problem}; allowed here: {_numbers(free)}", *at, "slot")
        return dimm.slot

    def _check_address(self, dimm: Dimm, address: int, at: tuple[str | int, ...]) -> None:
        for slot, other in self._taken.items():
            if other.address is not None and (
                address < other.address + other.size_bytes and other.address < address + dimm.size_bytes
            ):
                raise error_at(
                    f"address: {address:#x} overlaps the DIMM in slot {slot}, "
                    f"{format_size(other.size_bytes)} at {other.address:#x}",
                    *at,
                    "address",
                )


def _numbers(numbers: range | list[int]) -> str:
    return ", ".join(map(str, numbers))
