# SPDX-License-Identifier: MIT
"""A host that is too busy for one process: the kernel lets somebody else run on all that it may run on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """Give the process less than a fiftieth of one core until the block ends.

    With automatic groups a session competes as a whole, by a niceness of its own; otherwise each thread does
    by its policy (sched(7), on the autogroup feature and on SCHED_IDLE).
    """
    core = {min(os.sched_getaffinity(0))}
    threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    before = os.sched_getaffinity(pid)
    hog = subprocess.Popen(
        ["sh", "-c", "while :; do :; done"], preexec_fn=lambda: os.sched_setaffinity(0, core)
    )
    try:
        with suppress(FileNotFoundError):
            Path(f"/proc/{pid}/autogroup").write_text("19")
        for thread in threads:
            # One that QEMU had for a moment only may have ended.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
                os.sched_setaffinity(thread, core)
        yield
    finally:
        hog.kill()
        hog.wait()
        for thread in threads:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, before)
