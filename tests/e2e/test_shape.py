# SPDX-License-Identifier: MIT
"""The shape a plan asks for is the one its guest sees, and a guest that could not be forked says so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.document.units import KIB, MIB
from harness.fork.open import BOOT_FILE
from harness.guest.ssh_guest import SshGuest
from harness.host.checkout import DEFAULT_PLANS
from harness.plan.plan import Plan
from harness.run.run import run_plan
from harness.run.session import Session
from tests.e2e.test_command_line import HIL, PASSING, ROOT, call, write_plan
from tests.opening import open_for

from .conftest import shell

Open = Callable[[str], Any]


@pytest.fixture
def open_plan(session: Session) -> Open:
    """Open the guest of one of the default plans."""

    @contextmanager
    def open_plan(name: str) -> Iterator[SshGuest]:
        plan = session.load(DEFAULT_PLANS / f"{name}.yaml")
        folder = session.evidence_folder(plan)
        with open_for(session.bench(plan), plan, folder=folder) as guest:
            yield guest

    return open_plan


def boot_of(guest: SshGuest) -> tuple[str, str | None]:
    """Return how the guest came to run, and why, by its evidence."""
    record = json.loads((guest.vm.folder / BOOT_FILE).read_text())
    return record["boot"], record["reason"]


def plug_all_vcpus(guest: SshGuest) -> None:
    free = [slot for slot in guest.vm.vcpu_slots() if slot.free]
    for number, slot in enumerate(free):
        guest.vm.plug_vcpu(slot, device_id=f"vcpu{number}")
    deadline = Deadline.after(60)
    while guest.probe.sample(deadline=deadline).active_processors <= len(free):
        deadline.check("the start of all vCPUs")


def of_processors(guest: SshGuest, script: str) -> list[str]:
    """Return what a script that has a processor's folder as ``$c`` prints of each."""
    return shell(guest, f"for c in /sys/devices/system/cpu/cpu[0-9]*; do {script}; done").split()


def node_bytes(guest: SshGuest, node: int) -> int:
    text = shell(guest, f"cat /sys/devices/system/node/node{node}/meminfo")
    return int(text.split("MemTotal:")[1].split()[0]) * KIB


def test_a_vm_that_qemu_does_not_start_keeps_no_other_plan_from_running(
    session: Session, load: Callable[[str], Plan]
) -> None:
    plan = load("vm: {machine: pc-q35-0.1}\nsteps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]")
    session.prepare([plan])
    verdict = run_plan(plan, bench=session.bench(plan), folder=session.evidence_folder(plan))
    assert verdict.outcome == "error"
    assert "unsupported machine type" in str(verdict.error)


def test_the_guest_sees_the_sockets(open_plan: Open) -> None:
    with open_plan("topology") as guest:
        assert boot_of(guest) == ("fork", None)
        machine = guest.vm.execute("qom-get", {"path": "/machine", "property": "type"})
        assert machine == "pc-q35-7.2-machine"
        plug_all_vcpus(guest)
        sockets = of_processors(guest, "cat $c/topology/physical_package_id")
        assert sorted(sockets) == ["0"] * 4 + ["1"] * 4


def test_the_guest_sees_the_nodes_and_what_is_plugged_on_them(open_plan: Open) -> None:
    with open_plan("numa-nodes") as guest:
        assert boot_of(guest) == ("fork", None)
        before = [node_bytes(guest, node) for node in (0, 1)]
        # The kernel does not count what it takes for itself.
        assert 512 * MIB < before[0] <= 768 * MIB
        assert 128 * MIB < before[1] <= 256 * MIB
        guest.vm.plug_dimm(128 * MIB, device_id="dimm", node=1)
        deadline = Deadline.after(60)
        while node_bytes(guest, 1) == before[1]:
            deadline.check("the memory on node 1")
        assert node_bytes(guest, 0) == before[0]
        plug_all_vcpus(guest)
        nodes = of_processors(guest, "basename $c/node*")
        assert sorted(nodes) == ["node0", "node0", "node1", "node1"]


def test_a_guest_whose_memory_cannot_be_forked_is_booted_and_says_why(open_plan: Open) -> None:
    with open_plan("memory-backend") as guest:
        how, why = boot_of(guest)
        assert how == "cold"
        assert why == "its memory is to be memfd, share, and a fork's is a private mapping of a file"
        [memory] = guest.vm.execute("query-memdev")
        assert memory["share"] is True


def test_arguments_of_a_profile_are_qemus_and_shown_in_every_report(tmp_path: Path) -> None:
    profile = (ROOT / "testplans/guests/reference.yaml").read_text()
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests/mine.yaml").write_text(f"{profile}\nqemu_args: [-device, 'i6300esb,id=dog']\n")
    plan = write_plan(tmp_path, "plan.yaml", f"guest: mine\n{PASSING}")
    done = call(*HIL, "run", plan, "-r", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"^on mine \(linux-wine\), QEMU \S+ \w+ -device i6300esb,id=dog, hpnotify", done.stdout, re.MULTILINE
    )
    folder = tmp_path / "out/plan"
    assert (folder / "qemu-command.txt").read_text().rstrip().endswith(" -device i6300esb,id=dog")
    boot = json.loads((folder / BOOT_FILE).read_text())
    assert (boot["boot"], boot["reason"]) == ("cold", "the guest's profile has qemu_args")
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["setting"]["qemu_args"] == ["-device", "i6300esb,id=dog"]
    assert 'name="qemu_args" value="-device i6300esb,id=dog"' in (tmp_path / "out/junit.xml").read_text()
