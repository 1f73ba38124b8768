# SPDX-License-Identifier: MIT
"""What an action may touch while it is performed, and where it says what it did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.errors import DriverRefusedError
from harness.evidence.witness import Announced, AnsweredCommand, PluggedDevice, Seen

if TYPE_CHECKING:
    from harness.guest.guest import Guest
    from harness.vm.vm import Vm


@dataclass(slots=True)
class Acts:
    """What an action did so far; kept as evidence also when the bench breaks in the middle of it."""

    devices: list[PluggedDevice] = field(default_factory=list)
    refused: str | None = None  #: what the guest said when the driver did not start or stop
    answered: AnsweredCommand | None = None
    announced: list[Announced] = field(default_factory=list)
    due_from_s: float | None = None  #: from when ``within`` counts, if not from the act


@dataclass(frozen=True, slots=True)
class Stage:
    """The VM, the ways into its guest, and the acts of one step.

    :ivar before: how everything was before the step.
    :ivar command_s: how long the guest may take to carry out one request.
    :ivar boot_s: how long it may take to boot.
    :ivar watch: looks at the driver's log for so many seconds.
    """

    guest: Guest
    before: Seen
    acts: Acts
    command_s: float
    boot_s: float
    watch: Callable[[float], None]

    @property
    def vm(self) -> Vm:
        """The VM that the guest is in."""
        return self.guest.vm

    def boot_deadline(self) -> Deadline:
        """Return by when a guest that boots now must be up."""
        return Deadline.after(self.boot_s)

    def command_deadline(self) -> Deadline:
        """Return by when the guest must have carried out a request made now."""
        return Deadline.after(self.command_s)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the VM's vCPUs for the block, and let them run again; those not yet started stay so."""
        if self.before.vm.run_state == "prelaunch":
            yield
            return
        self.vm.pause()
        try:
            yield
        finally:
            self.vm.resume()

    def reboot(self, act: Callable[[], None]) -> None:
        """Do what makes the guest boot again, and enter it anew; the driver is started if it ran before.

        :raise GuestError: it restarts again and again.
        :raise DeadlineExpiredError: it does not restart, or does not come up.
        """
        deadline = self.boot_deadline()
        # The firmware may reset the machine once more by itself on the way.
        with self.vm.booting() as check:
            with self.vm.watch.asked_for("RESET") as resets:
                act()
                resets.get(deadline=deadline)
            self.guest.reconnect(check=check, deadline=deadline)
        try:
            self.guest.prepare_again(
                start_driver=self.before.driver_runs, ready=self._is_due, deadline=deadline
            )
        except DriverRefusedError as err:
            self.acts.refused = str(err)

    def _is_due(self) -> None:
        self.acts.due_from_s = time.monotonic()
