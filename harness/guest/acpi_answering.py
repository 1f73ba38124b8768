# SPDX-License-Identifier: MIT
"""The ACPI of a guest without an operating system, at work: notices plugs and does what its script says.

Like a real one it is called by ACPI's interrupt, looks in the registers for who called, and evaluates
``_OST``. It has a thread of its own, which alone speaks qtest.
"""

from __future__ import annotations

import heapq
import queue
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from harness.deadline import Deadline
from harness.errors import BenchError, DeadlineExpiredError, GuestError
from harness.guest.acpi_registers import AcpiRegisters, Place
from harness.guest.qtest_script import Behaviour, Death, Evaluation, behaviours
from harness.vm.vm import Vm

#: How often a guest that stands still, because QEMU was paused, looks whether it is to end.
_LOOK_S = 0.2

Order = Callable[[AcpiRegisters], None]

_DEATHS: dict[Death, Order] = {
    "panic": lambda registers: registers.panic(),
    "restart": lambda registers: registers.restart(),
    "power_off": lambda registers: registers.sleep(5),
}


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    at_s: float
    number: int  #: so that what is due at the same time is done in the order in which it was planned
    place: Place = field(compare=False)
    status: int = field(compare=False)


class AcpiAnswering:
    """Made by :meth:`start` only."""

    def __init__(self, vm: Vm, registers: AcpiRegisters, script: tuple[Behaviour, ...]) -> None:
        self._vm = vm
        self._registers = registers
        self._behaviours = behaviours(script)
        self._next = next(self._behaviours)
        self._due: list[_Due] = []
        self._planned = 0
        self._burst: list[Place] = []  #: who waits for the others to come
        self._burst_of: Behaviour | None = None
        self._dead = False
        self._closing = False
        self._orders: queue.SimpleQueue[tuple[Order, Future[None]]] = queue.SimpleQueue()
        self._bell, self._ringer = socket.socketpair()
        self._run: Future[None] = Future()

    @classmethod
    @contextmanager
    def start(cls, vm: Vm, script: tuple[Behaviour, ...]) -> Iterator[AcpiAnswering]:
        """Switch ACPI on and answer until the block ends.

        :raise QtestError: QEMU does not let it.
        """
        assert vm.qtest is not None
        registers = AcpiRegisters(vm.qtest, dimm_slots=vm.config.shape.slots)
        registers.switch_on()
        acpi = cls(vm, registers, script)
        with acpi._bell, acpi._ringer, ThreadPoolExecutor(1, thread_name_prefix="harness-acpi") as thread:
            acpi._run = thread.submit(acpi._answer)
            try:
                yield acpi
            finally:
                acpi._closing = True
                acpi._ring()

    def check(self) -> None:
        """Do nothing while it is at work, or has died as its script says.

        :raise BenchError: it has broken.
        """
        if self._run.done():
            self._run.result()

    def order(self, order: Order, *, deadline: Deadline) -> None:
        """Have something done to the registers, and wait until it is.

        :raise BenchError: it did not work, or there is nobody to do it any more.
        """
        done: Future[None] = Future()
        self._orders.put((order, done))
        self._ring()
        while not done.done():
            self.check()
            if self._run.done():
                raise GuestError("the guest is dead, as its script says, and does nothing any more")
            deadline.check("an order to the guest's ACPI")
            with suppress(FutureTimeoutError):
                done.result(deadline.sooner(_LOOK_S).remaining_s())
        done.result()

    def _ring(self) -> None:
        with suppress(OSError):
            self._ringer.send(b"!")

    def _answer(self) -> None:
        while not self._closing and not self._dead:
            self._await_something()
            self._obey()
            if self._registers.is_called and self._next.deaf and self._burst_of is None:
                self._dead = True
            elif self._registers.is_called or self._is_due():
                self._await_running()
                for place in self._registers.take_inserted() if self._registers.is_called else ():
                    self._begin(place)
                while self._is_due() and not self._dead:
                    due = heapq.heappop(self._due)
                    self._registers.answer(due.place, status=due.status)

    def _await_something(self) -> None:
        if self._registers.is_called:
            return
        wait_s = max(0.0, self._due[0].at_s - time.monotonic()) if self._due else None
        qtest, bell = self._registers.qtest, self._bell.fileno()
        ready, _, _ = select.select([qtest.fileno(), bell], [], [], wait_s)
        if bell in ready:
            self._bell.recv(4096)
        if qtest.fileno() in ready:
            qtest.receive()

    def _obey(self) -> None:
        with suppress(queue.Empty):
            while True:
                order, done = self._orders.get_nowait()
                try:
                    order(self._registers)
                    done.set_result(None)
                except BenchError as err:
                    done.set_exception(err)

    def _is_due(self) -> bool:
        return bool(self._due) and self._due[0].at_s <= time.monotonic()

    def _await_running(self) -> None:
        """Stand still as long as QEMU does, as a guest's processors would."""
        with self._vm.listen("RESUME") as resumed:
            while not self._closing and self._vm.execute("query-status")["status"] == "paused":
                with suppress(DeadlineExpiredError):
                    resumed.get(deadline=Deadline.after(_LOOK_S))

    def _begin(self, place: Place) -> None:
        """Do what the script says of the next device."""
        if self._dead:
            return
        self._registers.read_resources(place)
        behaviour = self._burst_of or self._take_behaviour()
        if behaviour.death is not None:
            self._dead = True
            _DEATHS[behaviour.death](self._registers)
            return
        self._burst_of = behaviour
        self._burst.append(place)
        if len(self._burst) == behaviour.burst:
            for waiting in reversed(self._burst):
                self._plan(waiting, behaviour.evaluations)
            self._burst.clear()
            self._burst_of = None

    def _take_behaviour(self) -> Behaviour:
        taken, self._next = self._next, next(self._behaviours)
        return taken

    def _plan(self, place: Place, evaluations: tuple[Evaluation, ...]) -> None:
        now_s = time.monotonic()
        for evaluation in evaluations:
            self._planned += 1
            due = _Due(now_s + evaluation.after_s, self._planned, place, evaluation.status)
            heapq.heappush(self._due, due)
