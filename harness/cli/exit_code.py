# SPDX-License-Identifier: MIT
"""How commands end."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How ``hil run`` ends."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    BENCH = 3
    INTERRUPTED = 130
