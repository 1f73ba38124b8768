# SPDX-License-Identifier: MIT
"""Open a guest for a plan, as a run does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.fork.open import open_guest
from harness.guest.bench import Bench
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan


@contextmanager
def open_for(bench: Bench, plan: Plan, *, folder: Path) -> Iterator[SshGuest]:
    """Give the plan a guest of its own, with all that is known of an SSH guest."""
    opened = open_guest(bench, shape=plan.vm, boot=plan.boot, driver=plan.driver, folder=folder)
    with opened as guest:
        assert isinstance(guest, SshGuest)
        yield guest
