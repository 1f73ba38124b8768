# SPDX-License-Identifier: MIT
"""Fixtures that launch VMs and end them with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.vm import Vm
from tests.qemu.bare_vm import Launch, bare_config


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(30)


@pytest.fixture
def launch(tmp_path: Path, deadline: Deadline) -> Iterator[Launch]:
    """Launch VMs that end with the test; each has a folder of its own, in ``vm.folder``."""
    with ExitStack() as stack:

        def launch(**changes: Any) -> Vm:
            folder = tmp_path / f"vm{len(list(tmp_path.glob('vm*')))}"
            folder.mkdir()
            return stack.enter_context(Vm.launch(bare_config(**changes), folder=folder, deadline=deadline))

        yield launch
