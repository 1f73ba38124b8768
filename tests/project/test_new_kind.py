# SPDX-License-Identifier: MIT
"""A step kind is one file and two lines in ``steps/actions.py``; all else follows: a throw-away one shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HICCUP = '''\
# SPDX-License-Identifier: MIT
"""``hiccup``: QEMU stops the vCPUs for a blink."""

from __future__ import annotations

from typing import ClassVar

from harness.deadline import Deadline
from harness.document.units import DurationSeconds, format_duration
from harness.evidence.effect import Effect
from harness.evidence.witness import Seen
from harness.steps.action import ScalarAction
from harness.steps.stage import Stage


class Hiccup(ScalarAction[DurationSeconds]):
    """QEMU stops the vCPUs for a blink."""

    key: ClassVar[str] = "hiccup"
    example: ClassVar[str] = """\\
hiccup: 100 ms
expect: {driver: []}
"""

    def title(self) -> str:
        """See :class:`Action`."""
        return f"hiccup {format_duration(self.root)}"

    def effect(self, before: Seen) -> Effect:
        """See :class:`Action`."""
        return Effect(clock="anew")

    def perform(self, stage: Stage, *, deadline: Deadline) -> None:
        """See :class:`Action`."""
        with stage.paused():
            pass
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one step kind more."""
    folder = tmp_path_factory.mktemp("project")
    not_made = shutil.ignore_patterns("__pycache__", "build")
    for name in ("harness", "docs", "testplans", "guest-driver"):
        shutil.copytree(ROOT / name, folder / name, ignore=not_made)
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    (folder / "harness/steps/hiccup.py").write_text(HICCUP)
    actions = folder / "harness/steps/actions.py"
    lines = actions.read_text().splitlines()
    lines.insert(
        lines.index("from harness.steps.action import Action"), "from harness.steps.hiccup import Hiccup"
    )
    lines.insert(lines.index(")", lines.index("ACTIONS: tuple[type[Action], ...] = (")), "    Hiccup,")
    actions.write_text("\n".join(lines) + "\n")
    (folder / "plan.yaml").write_text("steps: [{hiccup: 100 ms, expect: {driver: []}}]\n")
    return folder


def python(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), *_inherited()])}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _inherited() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def test_a_plan_may_have_it(project: Path) -> None:
    done = python(project, "-m", "harness", "check", "plan.yaml")
    assert done.stdout == "plan.yaml: plan\n  1. hiccup 100 ms -> no record within 30 s\n", done.stderr


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("{expect: {driver: []}}", "announce, wait and hiccup"),
        ("{hicup: 1 s, expect: {driver: []}}", "wait, hiccup (did you mean 'hiccup'?)"),
        ("{hiccup: 1, expect: {driver: []}}", "plan.yaml:1:18: hiccup: 1 has no unit"),
    ],
)
def test_an_error_names_it(project: Path, tmp_path: Path, step: str, error: str) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"steps: [{step}]\n")
    done = python(project, "-m", "harness", "check", str(plan))
    assert done.returncode == 2
    assert error in done.stderr


def test_the_schema_has_it(project: Path) -> None:
    schema = json.loads(python(project, "-m", "harness", "schema", "plan").stdout)
    assert schema["$defs"]["Hiccup"]["description"] == "QEMU stops the vCPUs for a blink."
    assert {"required": ["hiccup"]} in schema["$defs"]["PlannedStep"]["oneOf"]


def test_the_page_on_plans_gets_it(project: Path) -> None:
    done = python(project, "-m", "harness.plan.page")
    assert done.returncode == 0, done.stderr
    page = (project / "docs/plans.md").read_text()
    assert "### `hiccup`\n\nQEMU stops the vCPUs for a blink.\n" in page
    assert "```yaml\n- hiccup: 100 ms\n  expect: {driver: []}\n```\n" in page


def test_it_may_not_know_another_kind(project: Path) -> None:
    linted = ("-c", "from importlinter.cli import lint_imports_command as run; run()")
    done = python(project, *linted)
    assert "step kinds know nothing of each other KEPT" in done.stdout, done.stderr
    kind = project / "harness/steps/hiccup.py"
    kind.write_text(HICCUP.replace("from typing", "from harness.steps.pause import Pause\nfrom typing"))
    done = python(project, *linted)
    kind.write_text(HICCUP)
    assert "step kinds know nothing of each other BROKEN" in done.stdout, done.stderr
