# SPDX-License-Identifier: MIT
"""A guest without an operating system as a kind of guest: what it takes, leaves and cannot do."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from subprocess import run as run_program

import pytest

from harness.deadline import Deadline
from harness.document.units import MIB
from harness.errors import BenchError, GuestError, QtestError, UsageError
from harness.evidence.effect import Announcement
from harness.fork.open import open_guest, why_booted
from harness.guest.bench import Bench, SshBench, with_system
from harness.guest.driver_setup import DriverSetup
from harness.guest.kinds import kind_of
from harness.guest.profile import find_profile
from harness.guest.qtest import QtestGuest
from harness.host.cache import no_progress
from harness.host.tools import find_tool
from harness.run.run import run_plan
from harness.run.session import Session
from harness.vm.shape import VmShape
from tests.qtest.conftest import load

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 20.0
PLAN = "steps: [{plug: {vcpus: 1, dimms: [128 MiB]}, expect: {driver: []}}]\n"


@pytest.fixture
def bench(session: Session, tmp_path: Path) -> Bench:
    return session.bench(load(session, tmp_path, PLAN))


def soon() -> Deadline:
    return Deadline.after(SOON_S)


def test_it_is_run_with_qemu_and_nothing_else(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("qemu-system-x86_64", "setpriv", "sh"):
        (tools / name).symlink_to(find_tool(name))
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"guest: qtest\n{PLAN}")
    command = [sys.executable, "-m", "harness", "run", plan, "--results", tmp_path / "out"]
    cache = tmp_path / "cache"
    environment = {"PATH": str(tools), "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    done = run_program(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "qtest (qtest)" in done.stdout
    # What QEMU has said of itself is kept; nothing was built.
    assert {path.parent.name for path in cache.rglob("*") if path.is_file()} <= {"answers"}


def test_its_bench_has_neither_image_nor_driver(bench: Bench) -> None:
    assert not isinstance(bench, SshBench)
    setting = bench.setting()
    assert (setting.image_key, setting.driver_file, setting.driver_sha256) == ("none", "none", "none")
    assert (setting.system, setting.accelerator, setting.accelerator_reason) == (
        *("qtest", "tcg"),
        "its vCPUs run nothing",
    )
    assert str(setting).endswith("tcg, no driver")
    with pytest.raises(ValueError, match="the guest qtest has no operating system"):
        with_system(bench)


def test_it_has_no_image_to_be_built(tmp_path: Path) -> None:
    profile = find_profile("qtest", ROOT / "testplans/guests")
    with pytest.raises(UsageError, match="the guest qtest has no operating system and no image"):
        kind_of(profile).image(profile, cache=tmp_path, progress=no_progress)


@pytest.mark.parametrize(
    ("boot", "reason"), [("fork", "there is no boot to save"), ("cold", "the plan asks for it")]
)
def test_it_is_booted_and_the_evidence_says_why(
    session: Session, tmp_path: Path, boot: str, reason: str
) -> None:
    plan = load(session, tmp_path, f"boot: {boot}\n{PLAN}")
    bench = session.bench(plan)
    assert why_booted(bench, plan.vm, plan.boot) is not None
    session.prepare([plan])
    verdict = run_plan(plan, bench=bench, folder=tmp_path / "evidence")
    assert verdict.outcome == "passed"
    record = json.loads((verdict.evidence / "boot.json").read_text())
    assert (record["boot"], record["boot_id"], record["clock_ahead_s"]) == ("cold", None, None)
    assert record["reason"].endswith(reason)
    assert (verdict.steps[0].guest_before, verdict.steps[0].guest_after) == (None, None)


def test_nothing_of_it_is_left(session: Session, tmp_path: Path) -> None:
    plan = load(session, tmp_path, PLAN)
    held = []
    # The first run starts what all share from then on.
    for number in range(2):
        verdict = run_plan(plan, bench=session.bench(plan), folder=tmp_path / f"evidence{number}")
        assert verdict.outcome == "passed"
        assert {path.name for path in verdict.evidence.iterdir()} == {
            *("plan.yaml", "boot.json", "verdict.json", "timeline.jsonl", "driver.log", "harness.log"),
            *("qemu-command.txt", "qemu-stderr.log", "qemu-trace.log", "qmp.jsonl", "serial.log"),
        }
        held.append((threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))))
    assert held[0] == held[1]


class TestGuest:
    @pytest.fixture
    def guest(self, bench: Bench, tmp_path: Path):
        folder = tmp_path / "evidence"
        folder.mkdir()
        opened = open_guest(bench, shape=VmShape(), boot="cold", driver=DriverSetup(), folder=folder)
        with opened as guest:
            assert isinstance(guest, QtestGuest)
            yield guest

    def test_notices_what_is_plugged_whoever_plugs_it(self, guest: QtestGuest) -> None:
        with guest.vm.listen("ACPI_DEVICE_OST") as ost:
            guest.vm.plug_dimm(128 * MIB, device_id="mine")
            told = ost.get(deadline=soon()).data["info"]
        assert (told["device"], told["source"], told["status"]) == ("mine", 1, 0)

    def test_is_not_told_again_of_what_was_there_when_it_restarts(self, guest: QtestGuest) -> None:
        with guest.vm.listen("ACPI_DEVICE_OST") as ost:
            guest.vm.plug_dimm(128 * MIB, device_id="before")
            ost.get(deadline=soon())
            with guest.vm.watch.asked_for("RESET") as resets:
                guest.restart(deadline=soon())
                resets.get(deadline=soon())
            guest.reconnect(check=guest.vm.check, deadline=soon())
            guest.prepare_again(start_driver=False, ready=lambda: None, deadline=soon())
            guest.vm.plug_dimm(128 * MIB, device_id="after")
            assert ost.get(deadline=soon()).data["info"]["device"] == "after"
            assert len(ost.events) == 2

    def test_has_no_driver_and_no_pnp_manager(self, guest: QtestGuest) -> None:
        announcement = Announcement(interface_class="memory", event="arrival", name="announced1")
        with pytest.raises(GuestError, match="cannot start a driver"):
            guest.start_driver(deadline=soon())
        with pytest.raises(GuestError, match="cannot stop a driver"):
            guest.stop_driver(deadline=soon())
        with pytest.raises(GuestError, match="cannot announce an interface"):
            guest.announce(announcement, deadline=soon())
        assert guest.new_records(deadline=soon()) == ()
        assert guest.log_data == b""

    def test_that_lost_its_qemu_says_so(self, guest: QtestGuest) -> None:
        guest.check_parts(deadline=soon())
        os.kill(guest.vm.pid, signal.SIGKILL)
        with pytest.raises(QtestError):
            guest.restart(deadline=soon())
        with pytest.raises(QtestError):
            guest.power_off(deadline=soon())

    def test_that_is_dead_by_its_script_obeys_nobody(self, session: Session, tmp_path: Path) -> None:
        plan = load(session, tmp_path, f"acpi: [panic]\n{PLAN}")
        errors: list[BenchError] = []

        def plug_and_order(_step: object, guest: QtestGuest) -> None:
            panicked = threading.Event()
            with guest.vm.watch.when_incident(lambda _incident: panicked.set()):
                guest.vm.plug_dimm(128 * MIB, device_id="deadly")
                assert panicked.wait(SOON_S)
            try:
                guest.restart(deadline=soon())
            except BenchError as err:
                errors.append(err)

        verdict = run_plan(
            plan, bench=session.bench(plan), folder=tmp_path / "evidence", before_step=plug_and_order
        )
        assert verdict.outcome == "failed"
        assert [str(error) for error in errors] == [
            "the guest is dead, as its script says, and does nothing any more"
        ]
