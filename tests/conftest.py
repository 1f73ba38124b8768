# SPDX-License-Identifier: MIT
"""For all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from harness.vm.accelerator import DEFAULT_QEMU
from tests.other_qemu import other_qemu

# No property is about speed, and hypothesis' own limits take a busy machine for a defect.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_works() -> None:
    """Let what tests start be interrupted, though they be run by a shell's background job or by nohup.

    There SIGINT, SIGQUIT and SIGHUP are ignored, and a program that a test starts would inherit that.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", params=["host-qemu", "other-qemu"])
def qemu(request: pytest.FixtureRequest) -> str:
    """This host's QEMU, then that of the other Debian: 7.2 and 10.0, in the order this host has it."""
    return DEFAULT_QEMU if request.param == "host-qemu" else str(other_qemu())
