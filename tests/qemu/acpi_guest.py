# SPDX-License-Identifier: MIT
"""A guest's ACPI without a guest: writes the hot-plug registers over QEMU's qtest protocol.

The registers are those of QEMU docs/specs/acpi_cpu_hotplug.rst and acpi_mem_hotplug.rst, on q35.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VCPU_BASE = 0xCD8
DIMM_BASE = 0xA00


class AcpiGuest:
    """Answers plugs as a guest's ACPI does, with the ``_OST`` source and status the test wants."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._connection: socket.socket | None = None

    @classmethod
    @contextmanager
    def listening(cls, path: Path) -> Iterator[AcpiGuest]:
        """Wait at a socket path for the QEMU that is given :meth:`arguments`."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.settimeout(30)
            listening.bind(str(path))
            listening.listen()
            guest = cls(listening)
            try:
                yield guest
            finally:
                if guest._connection is not None:
                    guest._connection.close()

    def arguments(self) -> tuple[str, ...]:
        return ("-qtest", f"unix:{self._listening.getsockname()}", "-qtest-log", "/dev/null")

    def answer_vcpu(self, number: int, *, source: int, status: int) -> None:
        # A write of 0 to the selector at first use switches the registers on.
        self._request(f"outl {VCPU_BASE} 0")
        self._request(f"outl {VCPU_BASE} {number}")
        self._request(f"outb {VCPU_BASE + 5} 1")
        self._request(f"outl {VCPU_BASE + 8} {source}")
        self._request(f"outb {VCPU_BASE + 5} 2")
        self._request(f"outl {VCPU_BASE + 8} {status}")

    def answer_dimm(self, slot: int, *, source: int, status: int) -> None:
        self._request(f"outl {DIMM_BASE} {slot}")
        self._request(f"outl {DIMM_BASE + 4} {source}")
        self._request(f"outl {DIMM_BASE + 8} {status}")

    def write_memory(self, address: int, value: int) -> None:
        self._request(f"writel {address} {value}")

    def read_memory(self, address: int) -> int:
        return int(self._request(f"readl {address}").split()[1], 16)

    def _request(self, line: str) -> str:
        if self._connection is None:
            self._connection, _ = self._listening.accept()
            self._connection.settimeout(30)
        self._connection.sendall(line.encode() + b"\n")
        reply = b""
        while not reply.endswith(b"\n"):
            received = self._connection.recv(4096)
            assert received, "QEMU hung up"
            reply += received
        assert reply.startswith(b"OK"), reply
        return reply.decode()
