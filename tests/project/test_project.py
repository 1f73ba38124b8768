# SPDX-License-Identifier: MIT
"""What the project promises of itself: versions, pages, default plans, scripts; what code may not do."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import harness
from harness.errors import UsageError
from harness.plan import page as plans_page
from harness.plan.plan import load_plan
from harness.run.session import Session
from harness.steps.actions import ACTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PLANS = sorted((ROOT / "testplans").glob("*.yaml"))
GUEST_FILES = sorted((ROOT / "harness/guest/reference_guest").iterdir())


def name(path: Path) -> str:
    return os.fspath(path.relative_to(ROOT))


def broken_links(page: Path, text: str) -> list[str]:
    """Return every link of a page to a file or a heading that is not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_blocks(text)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, heading = target.partition("#")
        path = page.parent / place
        there = not place or path.exists()
        if not there or (heading and heading not in _headings(path.read_text() if place else text)):
            broken.append(target)
    return broken


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _headings(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", _without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def written_plans() -> dict[str, str]:
    """Return the plans on the pages, by page and number: YAML blocks that say they are one."""
    return {
        f"{name(page)}-{number}": block
        for page in PAGES
        for number, block in enumerate(
            re.findall(r"^```yaml\n(# a plan\n.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL), start=1
        )
    }


def shell_scripts() -> list[Path]:
    """Return the launcher, what CI runs with sh, and what the reference guest's shell runs or sources."""
    scripts = [path for path in GUEST_FILES if path.suffix == ".env" or _runs_in_shell(path)]
    return [ROOT / "hil", ROOT / ".ci/debian13", *scripts]


def _runs_in_shell(path: Path) -> bool:
    first_line = path.read_text().partition("\n")[0]
    return first_line.startswith("#!") and first_line.endswith("sh")


class TestPackage:
    def test_says_that_it_is_typed(self) -> None:
        assert (ROOT / "harness/py.typed").is_file()

    def test_has_one_version(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
        assert newest is not None
        assert project["version"] == harness.__version__ == newest[1]


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=name)
    def test_have_no_broken_link(self, page: Path) -> None:
        assert broken_links(page, page.read_text()) == []

    def test_a_broken_link_is_found(self) -> None:
        text = "# A title, short\n[a](gone.md) [b](#a-title-short) [c](#other) [d](../LICENSE) [e](https://x.org)\n"
        assert broken_links(ROOT / "docs/page.md", text) == ["gone.md", "#other"]
        assert broken_links(ROOT / "docs/page.md", f"```\n{text}```\n") == []

    @pytest.mark.parametrize("text", written_plans().values(), ids=written_plans())
    def test_show_plans_that_load_and_fit(self, text: str, tmp_path: Path) -> None:
        plan = tmp_path / "plan.yaml"
        plan.write_text(text)
        assert Session(results=tmp_path).load(plan).steps

    def test_show_plans_where_a_newcomer_looks(self) -> None:
        pages = {place.rpartition("-")[0] for place in written_plans()}
        assert pages >= {"README.md", "docs/plans.md"}


class TestPageOnPlans:
    def test_says_of_steps_what_their_kinds_say(self) -> None:
        page = plans_page.PAGE.read_text()
        assert plans_page.with_steps(page) == page, "to be made anew: python -m harness.plan.page"

    def test_shows_a_step_of_each_kind_that_loads(self, tmp_path: Path) -> None:
        _, made = plans_page.PAGE.read_text().split(plans_page.BEGIN)
        steps = re.findall(r"^```yaml\n(- .*?)^```$", made, re.MULTILINE | re.DOTALL)
        assert len(steps) == len(ACTIONS)
        for step in steps:
            plan = tmp_path / "plan.yaml"
            plan.write_text(f"steps:\n{step}")
            assert Session(results=tmp_path).load(plan).steps

    def test_needs_its_two_marks(self) -> None:
        with pytest.raises(ValueError, match="needs a line '<!-- from here"):
            plans_page.with_steps(f"{plans_page.END} {plans_page.BEGIN}")


class TestDefaultPlans:
    @pytest.mark.parametrize("path", PLANS, ids=name)
    def test_loads_fits_its_guest_and_says_what_it_is_for(self, path: Path, tmp_path: Path) -> None:
        plan = Session(results=tmp_path).load(path)
        assert plan.description
        assert plan.unrolled()

    def test_no_two_are_for_the_same(self) -> None:
        descriptions = [load_plan(path).description for path in PLANS]
        assert len(set(descriptions)) == len(PLANS) > 0

    def test_one_that_does_not_fit_is_found(self, tmp_path: Path) -> None:
        plan = tmp_path / "plan.yaml"
        plan.write_text("steps: [{plug: {dimms: [100 MiB]}, expect: {driver: [memory]}}]\n")
        with pytest.raises(UsageError, match="multiples of 128 MiB"):
            Session(results=tmp_path).load(plan)


class TestScripts:
    @pytest.mark.parametrize("path", shell_scripts(), ids=name)
    def test_is_what_sh_can_read(self, path: Path) -> None:
        done = subprocess.run(["sh", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_all_are_looked_at(self) -> None:
        names = {path.name for path in shell_scripts()}
        assert names >= {"hil", "debian13", "guest-up", "initramfs-init", "wine.env"}

    @pytest.mark.parametrize("path", ["hil", ".ci/run", ".ci/debian13"])
    def test_can_be_run(self, path: str) -> None:
        assert os.access(ROOT / path, os.X_OK)
