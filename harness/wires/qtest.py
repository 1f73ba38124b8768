# SPDX-License-Identifier: MIT
"""Speak qtest to one QEMU: read and write its ports and memory in the place of a guest.

The protocol is one line each way (QEMU docs/devel/testing/qtest.rst). Once asked for it, QEMU also says which
line of an interrupt controller was raised.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from harness.errors import QtestError

Bits = Literal[8, 16, 32]

#: QEMU answers in a fraction of a millisecond unless its host is overloaded.
REPLY_WITHIN_S = 30.0

_WIDTHS: dict[Bits, str] = {8: "b", 16: "w", 32: "l"}
_RAISED = re.compile(r"IRQ raise (?P<line>\d+)")


class QtestSession:
    """One qtest connection; made by :meth:`pair`. For one thread at a time.

    Every call raises :class:`QtestError` when QEMU refuses it, hung up or does not answer.

    :ivar raised: the interrupt lines that were raised since somebody last cleared this.
    """

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.raised: set[int] = set()
        self._ours = ours
        self._theirs = theirs
        self._received = b""

    @classmethod
    @contextmanager
    def pair(cls) -> Iterator[QtestSession]:
        """Make a connection of which QEMU is to inherit the other end; see :meth:`passing`."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(REPLY_WITHIN_S)
            yield cls(ours, theirs)

    @contextmanager
    def passing(self) -> Iterator[int]:
        """Give the file descriptor that QEMU must have inherited by the end of the block."""
        with self._theirs:
            yield self._theirs.fileno()

    def fileno(self) -> int:
        """Return what becomes readable when QEMU says something unasked."""
        return self._ours.fileno()

    def write_port(self, port: int, value: int, *, bits: Bits = 8) -> None:
        """Write to an I/O port."""
        self._request(f"out{_WIDTHS[bits]} {port:#x} {value:#x}")

    def read_port(self, port: int, *, bits: Bits = 8) -> int:
        """Read from an I/O port."""
        return int(self._request(f"in{_WIDTHS[bits]} {port:#x}"), 16)

    def write_memory(self, address: int, value: int) -> None:
        """Write 32 bits to physical memory."""
        self._request(f"writel {address:#x} {value:#x}")

    def read_memory(self, address: int) -> int:
        """Read 32 bits of physical memory."""
        return int(self._request(f"readl {address:#x}"), 16)

    def intercept_interrupts(self, controller: str) -> None:
        """Be told of the interrupts of a controller, by its name in QEMU; no vCPU gets them any more."""
        self._request(f"irq_intercept_in {controller}")

    def receive(self) -> None:
        """Take in what QEMU has said unasked; waits for something if there is nothing."""
        self._hear(self._next_line())
        self._hear_the_rest()

    def _request(self, line: str) -> str:
        try:
            self._ours.sendall(line.encode() + b"\n")
        except OSError as err:
            raise QtestError(f"the qtest connection ended: {err}") from err
        while True:
            kind, _, value = (reply := self._next_line()).partition(" ")
            if kind == "OK":
                self._hear_the_rest()
                return value
            if not self._hear(reply):
                raise QtestError(f"QEMU refused '{line}' over qtest: {reply}")

    def _hear_the_rest(self) -> None:
        # What has been read already makes the file descriptor readable no more.
        while b"\n" in self._received:
            self._hear(self._next_line())

    def _hear(self, line: str) -> bool:
        """Return whether a line was about an interrupt."""
        raised = _RAISED.fullmatch(line)
        if raised is not None:
            self.raised.add(int(raised["line"]))
        return line.startswith("IRQ ")

    def _next_line(self) -> str:
        while b"\n" not in self._received:
            try:
                received = self._ours.recv(4096)
            except OSError as err:
                raise QtestError(f"QEMU does not answer over qtest: {err}") from err
            if not received:
                raise QtestError("QEMU hung up the qtest connection")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace").strip()


def passing(session: QtestSession | None) -> AbstractContextManager[int | None]:
    """Give what QEMU must have inherited by the end of the block: None if there is no session."""
    return nullcontext() if session is None else session.passing()
