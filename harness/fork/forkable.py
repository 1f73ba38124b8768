# SPDX-License-Identifier: MIT
"""Whether a VM can be forked from a template, or must boot: pure."""

from __future__ import annotations

from harness.vm.backend import Backend
from harness.vm.shape import VmShape


def why_not_forkable(shape: VmShape) -> str | None:
    """Return why a VM of this shape cannot be forked, or None if it can.

    A fork's boot memory is a private mapping of its template's file, which only plain memory may as well be.
    NUMA nodes, firmware and its variables are no hindrance: a template has a file for each. Nor are the
    backends of DIMMs, which are plugged into the fork itself.
    """
    for memory in shape.boot_memories:
        if memory.backend != Backend():
            where = "its memory" if memory.node is None else f"its memory on node {memory.node}"
            return f"{where} is to be {memory.backend}, and a fork's is a private mapping of a file"
    if shape.start == "paused":
        return "it is to start paused, and a fork goes on from where its template was"
    return None
