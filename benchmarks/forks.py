# SPDX-License-Identifier: MIT
"""How soon a guest is ready, forked and booted; what one more of them takes; what logging in costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from benchmarks.figures import Figure, median_of, ratio_of
from benchmarks.workplace import ONE_VCPU_ONE_DIMM, Workplace
from harness.deadline import Deadline
from harness.guest.bench import SshBench
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan
from harness.wires import login
from harness.wires.ssh import SshConnection

FORKS, COLD_BOOTS, FORKS_AT_ONCE, LOGINS = 9, 2, 5, 7
ANSWER_WITHIN_S = 60.0
MB = 1_000_000

KEY_EXCHANGES = ("ecdh-sha2-nistp256", "curve25519-sha256@libssh.org", "diffie-hellman-group14-sha256")


def fork_and_boot(place: Workplace) -> list[Figure]:
    """Time a guest until its probe has answered and the driver's log is read, forked and cold-booted."""
    plan = place.plan(ONE_VCPU_ONE_DIMM)
    cold = place.plan(f"boot: cold\n{ONE_VCPU_ONE_DIMM}")
    fork = median_of("fork to driver answering", (_ready_s(place, plan) for _ in place.times(FORKS)))
    boot = median_of(
        "cold boot to driver answering", (_ready_s(place, cold) for _ in place.times(COLD_BOOTS))
    )
    return [fork.at_most(1.2), boot, ratio_of("cold boot / fork", boot, fork).at_least(15)]


def memory(place: Workplace) -> list[Figure]:
    """Measure the memory of forks that run at once, each with a vCPU and a DIMM plugged."""
    plan = place.plan(ONE_VCPU_ONE_DIMM)
    proportional_mb: list[float] = []
    with ExitStack() as stack:
        guests: list[SshGuest] = []
        for _ in range(2 if place.quick else FORKS_AT_ONCE):
            guest = stack.enter_context(place.open(plan))
            guests.append(guest)
            _plug_both(guest)
            proportional_mb.append(sum(_memory_mb(guest, "Pss") for guest in guests))
        resident = median_of("resident, each fork", (_memory_mb(guest, "Rss") for guest in guests), "MB")
        own = median_of("of it shared with no other", map(_private_mb, guests), "MB")
    steps = [after - before for before, after in pairwise(proportional_mb)]
    first = Figure(name="PSS of the first fork", value=proportional_mb[0], unit="MB")
    return [resident.at_most(200), own, first, median_of("PSS for one more fork", steps, "MB")]


def logging_in(place: Workplace) -> list[Figure]:
    """Time a login by key exchange, in a guest whose sshd has served one connection before."""
    plan = place.plan(ONE_VCPU_ONE_DIMM)
    bench = place.bench(plan)
    figures = []
    with place.open(plan) as guest:
        for name in KEY_EXCHANGES:
            with _only_key_exchange(name):
                samples = [_login_s(bench, guest) for _ in place.times(LOGINS)]
            figures.append(median_of(f"login with {name.partition('@')[0]}", samples))
        figures += _round_trips(place, guest)
    return figures


def _ready_s(place: Workplace, plan: Plan) -> float:
    began_s = time.monotonic()
    with place.open(plan) as guest:
        guest.probe.sample(deadline=_soon())
        if not guest.log.poll(deadline=_soon()):
            raise ValueError("the driver's log is empty")
        return time.monotonic() - began_s


def _plug_both(guest: SshGuest) -> None:
    with guest.vm.listen("ACPI_DEVICE_OST") as ost:
        guest.vm.plug_vcpu(next(slot for slot in guest.vm.vcpu_slots() if slot.free), device_id="vcpu0")
        guest.vm.plug_dimm(128 << 20, device_id="dimm0")
        ost.wait(lambda events: len(events) >= 2, deadline=_soon())


def _memory_mb(guest: SshGuest, *keys: str) -> float:
    """Return what the kernel says of QEMU's memory (Linux Documentation/filesystems/proc.rst)."""
    lines = Path(f"/proc/{guest.vm.pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return sum(sizes[key] for key in keys) / MB


def _private_mb(guest: SshGuest) -> float:
    return _memory_mb(guest, "Private_Clean", "Private_Dirty")


def _login_s(bench: SshBench, guest: SshGuest) -> float:
    port = guest.vm.ssh_port()
    began_s = time.monotonic()
    with SshConnection.connect(
        "127.0.0.1",
        port,
        user=bench.profile.ssh.user,
        key_file=bench.image.user_key,
        host_key=bench.image.host_key,
        deadline=_soon(),
    ):
        return time.monotonic() - began_s


def _round_trips(place: Workplace, guest: SshGuest) -> Sequence[Figure]:
    def timed(ask: object) -> float:
        assert callable(ask)
        began_s = time.monotonic()
        ask(deadline=_soon())
        return time.monotonic() - began_s

    rounds = place.times(3 * LOGINS)
    return [
        median_of("question to the probe", (timed(guest.probe.sample) for _ in rounds)),
        median_of("look at the log, nothing new", (timed(guest.log.poll) for _ in rounds)),
    ]


@contextmanager
def _only_key_exchange(name: str) -> Iterator[None]:
    preferred = login._KEX
    login._KEX = (name,)  # type: ignore[assignment]
    try:
        yield
    finally:
        login._KEX = preferred


def _soon() -> Deadline:
    return Deadline.after(ANSWER_WITHIN_S)
