# SPDX-License-Identifier: MIT
"""``hil init``: what it writes works at once, overwrites nothing, and says what is left to fill in."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from harness.cli.init import FILES, STARTER
from harness.guest.profile import SshProfile, load_profile
from harness.host.tools import install_line, packages_for
from harness.version import __version__
from tests.install.conftest import ROOT
from tests.install.test_strangers_project import collected

PLAN = "steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]\n"


def hil(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the checkout's command in a folder."""
    command = [sys.executable, "-m", "harness", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    """The folder that ``hil init`` makes when it is told nothing."""
    done = hil("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    return tmp_path / "plans"


def files_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def keys_of(model: type[BaseModel]) -> set[str]:
    """Return the keys of a model and of the models in it, without what is chosen between."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys_of(field.annotation)
    return found


def keys_in(values: dict[str, Any]) -> set[str]:
    inner = (keys_in(value) for value in values.values() if isinstance(value, dict))
    return set(values).union(*inner)


def test_it_writes_what_the_package_holds_and_says_what_to_do_next(tmp_path: Path) -> None:
    assert set(files_below(STARTER)) == set(FILES)
    done = hil("init", "here", cwd=tmp_path)
    assert done.returncode == 0
    first, *next_steps = done.stdout.splitlines()
    assert first == f"wrote {', '.join(f'here/{name}' for name in FILES)}"
    assert [line[:3] for line in next_steps] == ["1. ", "2. ", "3. "]
    assert set(files_below(tmp_path)) == {f"here/{name}" for name in FILES}
    assert not re.search(r"@[A-Z]+@", "".join(files_below(tmp_path).values()))


def test_the_commands_it_names_work(tmp_path: Path) -> None:
    done = hil("init", "my plans", cwd=tmp_path)
    checks = re.findall(r"hil (check .*?) finds", done.stdout)
    runs = re.findall(r"hil run (.*?): ", done.stdout)
    assert [shlex.split(run) for run in runs] == [["my plans/first.yaml"]]
    assert hil(*shlex.split(checks[0]), cwd=tmp_path).returncode == 0


def test_it_overwrites_nothing(plans: Path) -> None:
    (plans / "first.yaml").unlink()
    (plans / "ci/ci.sh").unlink()
    (plans / "ci/ci.sh").symlink_to("nowhere")
    before = files_below(plans)
    done = hil("init", cwd=plans.parent)
    assert (done.returncode, done.stdout) == (2, "")
    there = ", ".join(f"plans/{name}" for name in FILES[1:])
    assert done.stderr == f"hil: {there}: there already; nothing was written\n"
    assert files_below(plans) == before


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = hil("init", "file", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hil: file")
    assert len(done.stderr.splitlines()) == 1


def test_pytest_collects_the_plan_and_takes_nothing_else_for_one(plans: Path) -> None:
    assert collected(plans.parent, "plans") == ["plans/first.yaml::first"]


class TestTheProfile:
    def test_names_its_blanks_one_after_the_other_and_loads_once_they_are_filled(self, plans: Path) -> None:
        (plans / "mine.yaml").write_text(f"guest: windows\n{PLAN}")
        profile = plans / "guests/windows.yaml"
        for blank, filled in (("disk", "../disks/w.qcow2"), ("user", "Administrator")):
            done = hil("check", "plans", cwd=plans.parent)
            assert done.returncode == 2
            assert re.search(rf"windows\.yaml:\d+:\d+: {blank}: left blank; allowed: ", done.stderr)
            assert len(done.stderr.splitlines()) == 1
            text, count = re.subn(
                rf"^(  {blank}:)$", rf"\1 {filled}", profile.read_text(), flags=re.MULTILINE
            )
            assert count == 1
            profile.write_text(text)
        done = hil("check", "plans", cwd=plans.parent)
        assert done.returncode == 0
        ends = [line.rpartition(" ")[2] for line in done.stderr.splitlines()]
        assert ends == ["there", "w.user_key", "w.host_key.pub"], done.stderr
        assert load_profile(profile).disk_path == plans / "guests/../disks/w.qcow2"

    def test_shows_every_key_that_a_profile_of_such_a_guest_can_have(self) -> None:
        shown = keys_in(yaml.safe_load((STARTER / "guests/windows.yaml").read_text()))
        # `build` is for images that the project builds.
        assert shown == keys_of(SshProfile) - {"build"}

    def test_has_a_comment_on_every_paragraph(self) -> None:
        _, *paragraphs = (STARTER / "guests/windows.yaml").read_text().split("\n\n")
        assert paragraphs
        without = [text for text in paragraphs if "# " not in text]
        assert [text.partition(":")[0] for text in without] == ["description"]


class TestTheRecipeForCi:
    def test_is_what_sh_can_read(self, plans: Path) -> None:
        subprocess.run(["sh", "-n", plans / "ci/ci.sh"], check=True)

    def test_installs_what_is_needed_and_this_version(self, plans: Path) -> None:
        script = (plans / "ci/ci.sh").read_text().replace("\\\n", " ")
        assert " ".join(install_line(["python3-venv", *packages_for("run")]).split()[2:]) in " ".join(
            script.split()
        )
        assert f"hil-hotplug=={__version__}" in script

    def test_installs_then_runs_all_plans_and_ends_as_they_do(self, plans: Path, tmp_path: Path) -> None:
        """The programs it calls are replaced by one that notes how it was called."""
        own, venv = tmp_path / "bin", tmp_path / ".hil-venv/bin"
        for folder, name in ((own, "apt-get"), (own, "sudo"), (own, "python3"), (venv, "pip"), (venv, "hil")):
            folder.mkdir(parents=True, exist_ok=True)
            ends = 3 if name == "hil" else 0
            (folder / name).write_text(f'#!/bin/sh\necho "${{0##*/}} $*, $HIL_CACHE" >>called\nexit {ends}\n')
            (folder / name).chmod(0o755)
        environment = {"PATH": f"{own}:{os.defpath}", "HIL_INSTALL": "a.whl"}
        done = subprocess.run(["sh", "plans/ci/ci.sh"], cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 3
        *_, venv_made, installed, ran = (tmp_path / "called").read_text().splitlines()
        cache = tmp_path / ".hil-cache"
        assert venv_made == f"python3 -m venv .hil-venv, {cache}"
        assert installed == f"pip install --quiet a.whl, {cache}"
        assert ran == f"hil run -n auto --results hil-results plans/ci/.., {cache}"

    def test_the_workflow_calls_the_script_where_it_was_written(self, tmp_path: Path) -> None:
        hil("init", "tests/hot plug", cwd=tmp_path)
        workflow = yaml.safe_load((tmp_path / "tests/hot plug/ci/github-actions.yaml").read_text())
        [command] = [step["run"] for step in workflow["jobs"]["plans"]["steps"] if "run" in step]
        assert shlex.split(command) == ["sh", "tests/hot plug/ci/ci.sh"]
