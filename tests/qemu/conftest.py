# SPDX-License-Identifier: MIT
"""Fixtures that launch VMs and end them with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.vm.vm import Vm
from tests.qemu.bare_vm import Launch, bare_config


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(30)


@pytest.fixture
def asleep(tmp_path: Path) -> tuple[str, ...]:
    """Firmware that halts at its first instruction: a guest that runs and leaves its machine alone."""
    rom = tmp_path / "rom"
    # hlt; jmp back to hlt, at the reset vector 16 bytes below the end
    rom.write_bytes(bytes([0xF4, 0xEB, 0xFD]).ljust(16, b"\0").rjust(65536, b"\0"))
    return ("-bios", str(rom))


@pytest.fixture
def launch(tmp_path: Path, deadline: Deadline, qemu: str) -> Iterator[Launch]:
    """Launch VMs that end with the test; each has a folder of its own, in ``vm.folder``."""
    with ExitStack() as stack:

        def launch(**changes: Any) -> Vm:
            folder = tmp_path / f"vm{len(list(tmp_path.glob('vm*')))}"
            folder.mkdir()
            config = bare_config(**{"qemu": qemu, **changes})
            return stack.enter_context(Vm.launch(config, folder=folder, deadline=deadline))

        yield launch
