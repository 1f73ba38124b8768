# SPDX-License-Identifier: MIT
"""What a plan needs of its host."""

from __future__ import annotations

from harness.errors import BenchError
from harness.host.amounts import Amounts
from harness.host.budget import DISK_BYTES, FILES, QEMU_BYTES, within
from harness.plan.plan import Plan


def need_of(plan: Plan) -> Amounts:
    """Return what a plan needs at its peak, when all it plugs is plugged."""
    vm = Amounts(
        vcpus=plan.vm.vcpus,
        memory_bytes=plan.vm.memory_bytes + QEMU_BYTES,
        disk_bytes=DISK_BYTES + plan.vm.file_bytes,
        files=FILES,
    )
    return sum((step.action.need() for step in plan.unrolled()), start=vm)


def has_room_for(plan: Plan, host: Amounts) -> bool:
    """Return whether the plan can be run on the host at all."""
    try:
        within(need_of(plan), host, plan=plan.name)
    except BenchError:
        return False
    return True
