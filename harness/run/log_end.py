# SPDX-License-Identifier: MIT
"""The end of the driver's log: what is due there is waited for, and what has no end is no record."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from harness.deadline import Deadline
from harness.errors import DriverLogError
from harness.evidence.driver_rules import is_told_of_existing
from harness.evidence.effect import InterfaceClass
from harness.evidence.witness import ObservedRecord
from harness.guest.guest import Guest

_POLL_S = 0.01
_SHOWN_BYTES = 60


def unended(pending: bytes) -> DriverLogError | None:
    """Return what is wrong with a log that ends in these bytes without a line feed; None for none."""
    if not pending:
        return None
    cut = "..." if len(pending) > _SHOWN_BYTES else ""
    return DriverLogError(
        f"the driver's log does not end in a whole line: {len(pending)} bytes without a line feed, "
        f"{pending[:_SHOWN_BYTES].decode('ascii', 'backslashreplace')!r}{cut}"
    )


def await_end_of_line(guest: Guest, read: Callable[[], None], *, deadline: Deadline) -> None:
    """Read until the log ends in a whole line.

    :raise DriverLogError: it does not get there in time.
    """
    while (error := unended(guest.log_pending)) is not None:
        if deadline.expired():
            raise error
        _pause()
        read()


def await_existing(
    wanted: Counter[InterfaceClass],
    read: Callable[[], Sequence[ObservedRecord]],
    *,
    deadline: Deadline,
) -> None:
    """Read until the last load has been told of so many existing interfaces, or the time is over.

    The driver is told before its start returns, and its own thread writes that down later.
    """
    while not is_told_of_existing([one.record for one in read()], wanted) and not deadline.expired():
        _pause()


def _pause() -> None:
    threading.Event().wait(_POLL_S)
