# SPDX-License-Identifier: MIT
"""For all tests."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_works() -> None:
    """Let what tests start be interrupted, though they be run by a shell's background job.

    There SIGINT is ignored, and a program that a test starts would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
