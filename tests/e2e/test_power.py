# SPDX-License-Identifier: MIT
"""A forked guest whose power is cut, and one that powers off by itself: both come up again, whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.guest.driver_service import ServiceState
from harness.guest.kinds import kind_of
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan
from harness.run.session import Session
from tests.opening import open_for

from .conftest import background

UP_WITHIN_S = 300.0

ONE_VCPU = """
steps:
  - plug: {vcpus: 1}
    expect: {driver: [processor]}
"""


def cut_power(guest: SshGuest, deadline: Deadline) -> None:
    with guest.vm.watch.asked_for("RESET") as resets:
        guest.vm.execute("system_reset")
        resets.get(deadline=deadline)


def power_off_and_on(guest: SshGuest, deadline: Deadline) -> None:
    with guest.vm.watch.asked_for("SHUTDOWN", "STOP", "RESET") as heard:
        background(guest, "poweroff -f")
        heard.get(lambda event: event.name == "STOP", deadline=deadline)
        guest.vm.execute("system_reset")
        heard.get(lambda event: event.name == "RESET", deadline=deadline)
    guest.vm.resume()


@pytest.mark.parametrize("act", [cut_power, power_off_and_on])
def test_a_fork_comes_up_again_with_its_driver_and_log(
    session: Session, load: Callable[[str], Plan], tmp_path: Path, act: Callable[[SshGuest, Deadline], None]
) -> None:
    plan = load(ONE_VCPU)
    bench = session.bench(plan)
    deadline = Deadline.after(UP_WITHIN_S)
    with open_for(bench, plan, folder=tmp_path) as guest:
        boot_id = guest.probe.sample(deadline=deadline).boot_id
        guest.log.poll(deadline=deadline)
        with guest.vm.booting():
            act(guest, deadline)
            guest.ssh.close()
            with kind_of(bench.profile).enter(bench, guest.vm, deadline=deadline) as again:
                assert again.probe.sample(deadline=deadline).boot_id != boot_id
                assert again.driver.state(deadline=deadline) is ServiceState.STOPPED
                again.driver.start(deadline=deadline)
                again.log.poll(deadline=deadline)
                assert again.log.data.startswith(guest.log.data), "what was logged before is still there"
                assert again.log.data.count(b"record=load") == 2
        guest.vm.check()
