# SPDX-License-Identifier: MIT
"""What an installed QEMU can do and is made of, asked of itself instead of guessed from its version."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from harness.deadline import Deadline
from harness.host.answers import answer_of
from harness.vm.accelerator import DEFAULT_QEMU

ANSWER_WITHIN_S = 10.0

#: Files of QEMU's that end up in a guest: firmware, and what a directly booted kernel or KVM adds.
FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")


@functools.cache
def can_fork_from_read_only(qemu: str = DEFAULT_QEMU) -> bool:
    """Return whether guest memory can be a private mapping of a file opened for reading only.

    That takes the property ``rom`` of memory-backend-file (QEMU docs/system/vm-templating.rst).

    :raise HostError: QEMU is not installed or does not answer.
    """
    deadline = Deadline.after(ANSWER_WITHIN_S)
    properties = answer_of(qemu, "-object", "memory-backend-file,help", deadline=deadline)
    return re.search(r"^\s*rom=", properties, re.MULTILINE) is not None


@functools.cache
def firmware_files(qemu: str = DEFAULT_QEMU) -> tuple[Path, ...]:
    """Return those of :data:`FIRMWARE` that this QEMU would load.

    :raise HostError: QEMU is not installed or does not answer.
    """
    folders = answer_of(qemu, "-L", "help", deadline=Deadline.after(ANSWER_WITHIN_S)).splitlines()
    found = []
    for name in FIRMWARE:
        places = [Path(folder, name) for folder in folders if Path(folder, name).is_file()]
        found += places[:1]
    return tuple(found)
