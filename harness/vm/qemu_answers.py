# SPDX-License-Identifier: MIT
"""Read what QEMU says about itself over QMP: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.errors import VmError

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(?P<port>\d+)\s")


def read_version(answer: Mapping[str, Any]) -> str:
    """Return the answer to ``query-version`` as people write it, such as ``7.2.22``."""
    version = answer["qemu"]
    return f"{version['major']}.{version['minor']}.{version['micro']}"


def read_forwarded_port(text: str) -> int:
    """Return the port on 127.0.0.1 that ``info usernet`` says is forwarded to the guest.

    :raise VmError: there is none.
    """
    found = _FORWARD.search(text)
    if found is None:
        raise VmError(f"QEMU forwards no port to the guest: {text.strip() or 'it has no network'}")
    return int(found["port"])
