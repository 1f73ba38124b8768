# SPDX-License-Identifier: MIT
"""What is left to plug, and how guest and driver are, as a plan's steps are gone through before it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.evidence.effect import Announcement
from harness.vm.dimm_slots import DimmSlots
from harness.vm.shape import VmShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Pure: an action gets one and returns the next."""

    shape: VmShape
    vcpus: int
    dimm_slots: DimmSlots
    driver_runs: bool = True
    guest_runs: bool = True  #: not after it was switched off
    announced: tuple[Announcement, ...] = field(default=())

    @classmethod
    def at_boot(cls, shape: VmShape) -> Room:
        """Return what there is before the first step."""
        return cls(shape=shape, vcpus=shape.vcpus, dimm_slots=DimmSlots(shape))
