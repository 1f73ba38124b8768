# SPDX-License-Identifier: MIT
"""The wheel is all that another project needs: what it holds, and what it does once installed there."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.cluster.resources import sources_key
from harness.host.cache import file_hash
from harness.host.tools import install_line, packages_for
from tests.install.conftest import ROOT, Installed, build_wheel

Hil = Callable[..., subprocess.CompletedProcess[str]]
PLAN = "steps: [{plug: {dimms: [128 MiB]}, within: 10 s, expect: {driver: [memory]}}]\n"
SHIPPED = {
    "harness": "harness",
    "guest-driver": "harness/data/guest-driver",
    "testplans": "harness/data/testplans",
}


def files_to_ship() -> set[str]:
    """Return the names in the wheel of all files that the project keeps in the shipped folders."""
    # What git would keep: a file that was just added counts, what was built here does not.
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SHIPPED]
    if not (ROOT / ".git").exists():
        command = [
            "find",
            *SHIPPED,
            "-type",
            "f",
            "-not",
            "-path",
            "*/__pycache__/*",
            "-not",
            "-path",
            "*/build/*",
        ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = set()
    for line in done.stdout.splitlines():
        folder, _, rest = line.partition("/")
        if (ROOT / line).is_file():
            names.add(f"{SHIPPED[folder]}/{rest}")
    return names


class TestTheWheel:
    def test_holds_the_package_with_sources_plans_and_profiles_and_nothing_built(self, wheel: Path) -> None:
        held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        assert held == files_to_ship()
        assert {"harness/data/guest-driver/Makefile", "harness/data/testplans/guests/reference.yaml"} <= held

    def test_from_an_sdist_is_the_same(self, wheel: Path, sdist: Path, tmp_path: Path) -> None:
        assert file_hash(build_wheel(sdist, tmp_path)) == file_hash(wheel)


class TestInstalled:
    def test_it_is_not_the_checkout_that_is_tested(self, installed: Installed, tmp_path: Path) -> None:
        code = "import harness, harness.run.run; print(*harness.__path__)"
        assert installed.run("python", "-c", code, cwd=tmp_path).stdout == f"{installed.package}\n"

    def test_says_its_version(self, hil: Hil) -> None:
        assert hil("--version").stdout == f"hil {harness.__version__}\n"

    def test_check_and_schema_work_anywhere(self, hil: Hil, tmp_path: Path) -> None:
        (tmp_path / "plan.yaml").write_text(PLAN)
        done = hil("check", "plan.yaml")
        assert (done.returncode, done.stderr) == (0, "")
        assert "plug DIMM 128 MiB -> memory within 10 s" in done.stdout
        assert json.loads(hil("schema", "plan").stdout)["properties"]["steps"]

    def test_the_projects_own_tests_need_a_checkout(self, hil: Hil) -> None:
        done = hil("test")
        assert (done.returncode, done.stdout) == (2, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("hil: the project's own tests need a checkout")

    def test_the_programs_are_built_in_the_cache_and_nothing_beside_their_sources(
        self, installed: Installed, tmp_path: Path
    ) -> None:
        before = _states(installed.package / "data")
        code = "from harness.guest.binaries import build_guest_binaries as b; print(b().folder)"
        # A relative folder, which is the harness's and not that of make.
        done = installed.run("python", "-c", code, cwd=tmp_path, HIL_CACHE="cache")
        assert done.returncode == 0, done.stderr
        folder = tmp_path / done.stdout.strip()
        assert folder.parent == tmp_path / "cache/binaries"
        assert (folder / "hpnotify.sys").is_file()
        assert _states(installed.package / "data") == before
        assert {path.name for path in tmp_path.iterdir()} == {"cache"}

    def test_a_cache_that_make_cannot_build_into_is_one_line(self, hil: Hil, tmp_path: Path) -> None:
        done = hil("image", "build", HIL_CACHE=str(tmp_path / "my cache"))
        assert done.returncode == 3
        assert "make builds into no folder with a space in its name; set HIL_CACHE" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_missing_program_is_one_line_with_the_command_that_installs_it(
        self, hil: Hil, tmp_path: Path
    ) -> None:
        (tmp_path / "plan.yaml").write_text(PLAN)
        done = hil("image", "build", PATH=str(tmp_path), HIL_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 3
        wanted = f"make is not installed on this host; as root: {install_line(packages_for('run'))}"
        assert done.stderr.splitlines()[-1] == f"hil: {wanted}"

    def test_it_has_the_same_key_for_a_cluster_as_the_checkout(
        self, installed: Installed, tmp_path: Path
    ) -> None:
        code = "from harness.cluster.resources import sources_key; print(sources_key())"
        assert installed.run("python", "-c", code, cwd=tmp_path).stdout.strip() == sources_key()

    def test_an_unknown_guest_is_told_of_the_installed_profiles(
        self, installed: Installed, hil: Hil, tmp_path: Path
    ) -> None:
        (tmp_path / "plan.yaml").write_text(f"guest: mine\n{PLAN}")
        done = hil("check", "plan.yaml")
        assert done.returncode == 2
        looked_in = f"guests and {installed.package}/data/testplans/guests"
        assert done.stderr.endswith(
            f"unknown guest 'mine'; known: qtest, reference; looked for in {looked_in}\n"
        )


class TestWhatItWrites:
    @pytest.fixture(autouse=True)
    def _written(self, hil: Hil) -> None:
        assert hil("init").returncode == 0

    def test_hil_check(self, hil: Hil) -> None:
        done = hil("check", "plans")
        assert (done.returncode, done.stderr) == (0, "")

    def test_hil_run(self, hil: Hil, tmp_path: Path) -> None:
        done = hil("run", "plans/first.yaml", "--results", "out")
        assert done.returncode == 0, done.stdout + done.stderr
        [plan] = json.loads((tmp_path / "out/results.json").read_text())["plans"]
        assert (plan["plan"], plan["outcome"]) == ("first", "passed")

    def test_pytest(self, installed: Installed, tmp_path: Path) -> None:
        done = installed.run("python", "-m", "pytest", "plans/", "--hil-results", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout
        verdict = json.loads((tmp_path / "out/first/verdict.json").read_text())
        assert verdict["outcome"] == "passed"


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of all below a folder."""
    states = {}
    for path in [folder, *folder.rglob("*")]:
        stat = path.stat()
        states[os.fspath(path)] = (stat.st_size, stat.st_mtime_ns)
    return states
