# SPDX-License-Identifier: MIT
"""A driver of somebody's own: the example, built as a stranger builds it, right and wrong on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.errors import UsageError
from harness.guest.reference_kernel import LIST
from harness.host.cache import file_hash
from harness.host.tools import find_tool
from harness.run.session import Session
from tests.e2e.reference_kernel_list import reference_disk, written_list
from tests.e2e.test_command_line import HIL, PASSING, ROOT, call, write_plan
from tests.parallel.dask_cluster import start_cluster

EXAMPLE = ROOT / "examples/tinynotify"
PLANS = ("one-vcpu", "one-dimm", "driver-stopped", "unload-unregisters")
LONGEST_EXAMPLE_LINES = 199
TWO_STEPS = """\
steps:
  - {plug: {vcpus: 1}, expect: {driver: [processor]}}
  - {driver: stop, expect: {driver: [unload]}}
"""
REFUSING = """\
#include <ntddk.h>
DRIVER_INITIALIZE DriverEntry;
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(driver);
    UNREFERENCED_PARAMETER(path);
    return STATUS_UNSUCCESSFUL;
}
"""

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build the example with its own Makefile into a folder of its own."""

    def build(*variables: str, folder: Path = EXAMPLE) -> Path:
        target = tmp_path_factory.mktemp("driver")
        subprocess.run(
            [find_tool("make"), "-C", folder, f"BUILD={target}", *variables],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return target / "tinynotify.sys"

    return build


@pytest.fixture(scope="module")
def tinynotify(build: Build) -> Path:
    return build()


def results_of(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "results.json").read_text())["plans"])


def build_of(build: Build, source: str, *, folder: Path) -> Path:
    """Build a driver from another source in the place of the example's."""
    folder.mkdir()
    (folder / "tinynotify.c").write_text(source)
    (folder / "Makefile").write_bytes((EXAMPLE / "Makefile").read_bytes())
    return build(f"LOG_FORMAT={ROOT / 'guest-driver/hpnotify'}", folder=folder)


class TestTheExample:
    def test_is_short_and_stands_alone(self, build: Build, tinynotify: Path, tmp_path: Path) -> None:
        source = (EXAMPLE / "tinynotify.c").read_text()
        assert len(source.splitlines()) <= LONGEST_EXAMPLE_LINES
        # As whoever copies it would: the folder and the one header.
        copy = tmp_path / "mine"
        copy.mkdir()
        for path in (*EXAMPLE.glob("*.c"), EXAMPLE / "Makefile", ROOT / "guest-driver/hpnotify/log_format.h"):
            (copy / path.name).write_bytes(path.read_bytes())
        assert file_hash(build("LOG_FORMAT=.", folder=copy)) == file_hash(tinynotify)

    def test_passes_the_default_plans_and_every_report_names_it(
        self, tinynotify: Path, tmp_path: Path
    ) -> None:
        plans = [ROOT / f"testplans/{name}.yaml" for name in PLANS]
        done = call(*HIL, "run", *plans, "--driver", tinynotify, "-n", "2", "-r", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        digest = file_hash(tinynotify)
        assert f", tinynotify.sys {digest[:12]}\n" in done.stdout
        results = results_of(tmp_path / "out")
        assert {plan["plan"]: plan["outcome"] for plan in results} == dict.fromkeys(PLANS, "passed")
        for name, result in zip(PLANS, results, strict=True):
            verdict = json.loads((tmp_path / "out" / name / "verdict.json").read_text())
            for setting in (result["setting"], verdict["setting"]):
                assert (setting["driver_file"], setting["driver_sha256"]) == ("tinynotify.sys", digest)
            assert "driver=tinynotify/1 " in (tmp_path / "out" / name / "driver.log").read_text()
        for case in ElementTree.parse(tmp_path / "out/junit.xml").iter("testcase"):
            said = {item.get("name"): item.get("value") for item in case.iter("property")}
            assert (said["driver_file"], said["driver_sha256"]) == ("tinynotify.sys", digest)

    def test_runs_as_a_profile_says(self, tinynotify: Path, tmp_path: Path) -> None:
        profile = (ROOT / "testplans/guests/reference.yaml").read_text()
        home = "driver: {service: hpnotify,"
        assert home in profile
        guests = tmp_path / "testplans/guests"
        (guests / "build").mkdir(parents=True)
        (guests / "build/mine.sys").write_bytes(tinynotify.read_bytes())
        own = "driver: {file: build/mine.sys, service: tiny, parameters: {Level: 3},"
        (guests / "mine.yaml").write_text(profile.replace(home, own))
        write_plan(tmp_path / "testplans", "plan.yaml", f"guest: mine\n{PASSING}")
        done = call(*HIL, "run", "testplans/plan.yaml", "-r", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        [result] = results_of(tmp_path / "out")
        setting = result["setting"]
        assert (setting["guest"], setting["driver_file"]) == ("mine", "mine.sys")
        assert setting["driver_sha256"] == file_hash(tinynotify)

    def test_goes_to_the_workers_of_a_cluster(self, tinynotify: Path, tmp_path: Path) -> None:
        plan = write_plan(tmp_path, "plan.yaml", PASSING)
        with start_cluster(tmp_path / "cluster", "lab") as cluster:
            options = [*cluster.options(), "--driver", str(tinynotify), "-r", "out"]
            done = call(*HIL, "run", plan, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        [result] = results_of(tmp_path / "out")
        assert (result["worker"], result["setting"]["driver_file"]) == ("lab", "tinynotify.sys")
        assert result["setting"]["driver_sha256"] == file_hash(tinynotify)


class TestADriverThatIsWrong:
    def test_and_logs_an_arrival_twice_is_blamed(self, build: Build, tmp_path: Path) -> None:
        build("FLAGS=-DTWICE").rename(tmp_path / "twice.sys")
        plan = write_plan(tmp_path, "plan.yaml", PASSING)
        options = ["--hil-driver", "twice.sys", "--hil-results", "out"]
        done = call(sys.executable, "-m", "pytest", plan, *options, cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "plan failed: driver, step 1: the same arrival told again" in done.stdout
        assert "blame     driver " in done.stdout
        assert f"twice.sys {file_hash(tmp_path / 'twice.sys')[:12]}" in done.stdout

    @pytest.mark.parametrize("when", ["before-it-tells", "after-it-has-told"])
    def test_and_crashes_is_blamed_with_what_the_guest_said(
        self, build: Build, tmp_path: Path, when: str
    ) -> None:
        told = '    Record("notification", notification);\n'
        crash = "    *(volatile char *)NULL = 0;\n"
        source = (EXAMPLE / "tinynotify.c").read_text()
        changed = source.replace(told, crash + told if when == "before-it-tells" else told + crash, 1)
        driver = build_of(build, changed, folder=tmp_path / "crashing")
        # It may be that nothing is wrong with the step, and that the one after it is not begun.
        plan = write_plan(tmp_path, "plan.yaml", TWO_STEPS)
        done = call(*HIL, "run", plan, "--driver", driver, "-r", "out", cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "plan failed: driver, step 1: the driver crashed" in done.stdout
        assert "seen     Unhandled page fault on write access to 0000000000000000 at address" in done.stdout

    @pytest.mark.parametrize("when", ["while-it-starts", "in-its-callback", "when-it-is-unloaded"])
    def test_and_gives_back_what_is_not_registered_is_blamed(
        self, build: Build, tmp_path: Path, when: str
    ) -> None:
        source = (EXAMPLE / "tinynotify.c").read_text()
        before = {
            "while-it-starts": "    // As the guest's profile has it: driver_log.",
            "in-its-callback": '    Record("notification", notification);\n',
            "when-it-is-unloaded": "    if (state.writer != NULL)\n    {\n        state.stopping",
        }[when]
        assert before in source
        again = "    (void)IoUnregisterPlugPlayNotificationEx(&state);\n"
        driver = build_of(build, source.replace(before, again + before, 1), folder=tmp_path / "misusing")
        plan = write_plan(tmp_path, "plan.yaml", TWO_STEPS)
        done = call(*HIL, "run", plan, "--driver", driver, "-r", "out", cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        misused = "the driver misused the PnP manager"
        says = {
            "while-it-starts": "step 0: the driver did not start",
            "in-its-callback": f"step 1: {misused}",
            "when-it-is-unloaded": f"step 2: {misused}",
        }[when]
        assert f"plan failed: driver, {says}" in done.stdout
        assert "IoUnregisterPlugPlayNotificationEx of an entry that is not registered" in done.stdout

    def test_and_refuses_to_load_is_blamed_with_what_the_guest_said(
        self, build: Build, tmp_path: Path
    ) -> None:
        driver = build_of(build, REFUSING, folder=tmp_path / "refusing")
        plan = write_plan(tmp_path, "plan.yaml", PASSING)
        done = call(*HIL, "run", plan, "--driver", driver, "-r", "out", cwd=tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "plan failed: driver, step 0: the driver did not start" in done.stdout
        assert "blame     driver " in done.stdout
        assert "its DriverEntry failed and gave no reason (STATUS_UNSUCCESSFUL) (error 31)" in done.stdout


class TestAFileThatIsNoDriver:
    @pytest.fixture
    def program(self, tmp_path: Path) -> str:
        (tmp_path / "mine.sys").write_bytes(Path(sys.executable).resolve().read_bytes())
        write_plan(tmp_path, "plan.yaml", PASSING)
        return "mine.sys"

    def test_is_wrong_usage_and_nothing_is_run(self, program: str, tmp_path: Path) -> None:
        done = call(*HIL, "run", "plan.yaml", "--driver", program, "-r", "out", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        [line] = done.stderr.splitlines()
        assert line.startswith(f"hil: {tmp_path / program}: no Windows driver, nor any PE file: ")
        assert not (tmp_path / "out").exists()

    def test_is_found_by_check(self, program: str, tmp_path: Path) -> None:
        profile = (ROOT / "testplans/guests/reference.yaml").read_text()
        (tmp_path / "guests").mkdir()
        text = profile.replace("driver: {", f"driver: {{file: {tmp_path / program}, ")
        (tmp_path / "guests/mine.yaml").write_text(text)
        write_plan(tmp_path, "mine.yaml", f"guest: mine\n{PASSING}")
        for arguments in (["plan.yaml", "--driver", program], ["mine.yaml"]):
            done = call(*HIL, "check", *arguments, cwd=tmp_path)
            assert (done.returncode, done.stdout) == (2, "")
            [line] = done.stderr.splitlines()
            assert line.startswith(f"hil: {tmp_path / program}: no Windows driver, nor any PE file: ")

    def test_is_wrong_usage_under_pytest_too(self, program: str, tmp_path: Path) -> None:
        options = ["--hil-driver", program, "--hil-results", "out"]
        done = call(sys.executable, "-m", "pytest", "plan.yaml", *options, cwd=tmp_path)
        assert done.returncode == 2
        assert f"{tmp_path / program}: no Windows driver, nor any PE file: " in done.stdout
        assert not (tmp_path / "out").exists()

    def test_is_no_matter_to_a_guest_without_a_driver(self, program: str, tmp_path: Path) -> None:
        text = "guest: qtest\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]\n"
        plan = write_plan(tmp_path, "none.yaml", text)
        session = Session(results=tmp_path / "out", driver=tmp_path / program)
        assert session.bench(session.load(plan)).setting().driver_file == "none"


def test_check_says_what_a_guest_lacks_on_this_host_and_passes(tmp_path: Path) -> None:
    profile = (ROOT / "testplans/guests/reference.yaml").read_text()
    text = profile.replace("{build: reference}", "{disk: mine.qcow2}")
    firmware = "firmware: {code: code.fd, vars: vars.fd}"
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests/mine.yaml").write_text(text.replace("firmware: seabios", firmware))
    assert firmware in (tmp_path / "guests/mine.yaml").read_text()
    for name in "ab":
        write_plan(tmp_path, f"{name}.yaml", f"guest: mine\n{PASSING}")
    done = call(*HIL, "check", ".", cwd=tmp_path)
    assert done.returncode == 0
    disk = tmp_path / "guests/mine.qcow2"
    assert [line.removeprefix("hil: on this host, ") for line in done.stderr.splitlines()] == [
        f"the guest mine needs the disk image {disk}, which is not there",
        f"{disk} needs the private SSH key of its user beside it, in mine.user_key",
        f"{disk} needs its public SSH host key beside it, in mine.host_key.pub",
        f"the guest mine needs the firmware {disk.with_name('code.fd')}, which is not there",
        f"the guest mine needs the firmware's variables {disk.with_name('vars.fd')}, which is not there",
    ]


def test_the_option_goes_before_the_profile(tinynotify: Path, tmp_path: Path) -> None:
    profile = (ROOT / "testplans/guests/reference.yaml").read_text()
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests/mine.yaml").write_text(profile.replace("driver: {", "driver: {file: gone.sys, "))
    plan = write_plan(tmp_path, "plan.yaml", f"guest: mine\n{PASSING}")
    with pytest.raises(UsageError, match=rf"^{tmp_path}/guests/gone\.sys: no such file; "):
        Session(results=tmp_path / "out").load(plan)
    session = Session(results=tmp_path / "out", driver=tinynotify)
    assert session.bench(session.load(plan)).setting().driver_file == "tinynotify.sys"


def test_what_the_reference_guests_kernel_has_is_what_is_listed(tmp_path: Path) -> None:
    again = "to be made anew: python -m tests.e2e.reference_kernel_list"
    assert LIST.read_text() == written_list(reference_disk(), tmp_path), again
