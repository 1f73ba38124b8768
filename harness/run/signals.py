# SPDX-License-Identifier: MIT
"""Signals that ask to end: each does what Ctrl-C does, so that VMs are ended and reports are written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, what every CI ends a job with, a terminal that is closed, and Ctrl-\\.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_NOBODYS = (signal.SIG_DFL, signal.default_int_handler)

_received: signal.Signals | None = None
_held = False


@contextmanager
def signals_end_in_order() -> Iterator[None]:
    """Have each of :data:`ENDING` raise KeyboardInterrupt in the main thread while the block runs.

    Left alone is what is ignored, such as SIGHUP under ``nohup``, or handled by somebody else already. In
    another thread than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    taken = {number: handler for number, handler in before.items() if handler in _NOBODYS}
    try:
        for number in taken:
            signal.signal(number, _end)
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextmanager
def holding_signals() -> Iterator[None]:
    """Let nothing interrupt the block, which is bounded and is the end already."""
    global _held
    before, _held = _held, True
    try:
        yield
    finally:
        _held = before


def signal_received() -> signal.Signals | None:
    """Return the signal that asked to end first, or None."""
    return _received


def exit_status() -> int:
    """Return the exit status of a program that was interrupted: 128 plus the signal's number."""
    return 128 + (_received or signal.SIGINT)


def _end(number: int, _frame: FrameType | None) -> None:
    global _received
    if _received is None:
        _received = signal.Signals(number)
    if not _held:
        raise KeyboardInterrupt(_received.name)
