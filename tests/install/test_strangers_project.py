# SPDX-License-Identifier: MIT
"""pytest in somebody else's project, which has a conftest, settings and YAML of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 120
PLAN = "steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]\n"
TREE = {
    "pyproject.toml": """\
[tool.pytest.ini_options]
addopts = ["--strict-markers", "--strict-config"]
filterwarnings = ["error"]
""",
    "conftest.py": """\
import pytest

@pytest.fixture(autouse=True)
def own():
    yield

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.nodeid)
""",
    "mkdocs.yml": "site_name: a\nnav: [{b: c.md}]\n",
    "azure-pipelines.yml": "steps: [{script: make}]\n",
    ".pre-commit-config.yaml": "repos: []\n",
    "broken.yaml": "{{ a template }}: [\n",
    "tests/test_own.py": "def test_own(own):\n    pass\n",
    "tests/data.yaml": "services: {a: {image: b}}\n",
    "tests/steps.yaml": "steps: [{name: c, expected: 1}]\n",
    "plans/first.yaml": PLAN,
    "plans/second.yml": PLAN,
    "plans/guests/mine.yaml": "system: windows\n",
    "plans/ci/workflow.yaml": "jobs: {a: {steps: []}}\n",
    "nightly/testplans/third.yaml": PLAN,
}
OWN = "tests/test_own.py::test_own"
IN_PLANS = ["plans/first.yaml::first", "plans/second.yml::second"]
IN_TESTPLANS = "nightly/testplans/third.yaml::third"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S
    )


def collected(project: Path, *arguments: str) -> list[str]:
    """Return the ids of what is collected, which must be without an error."""
    done = run_pytest(project, "--collect-only", "--quiet", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(_ids(done.stdout))


def _ids(output: str) -> Iterator[str]:
    yield from (line for line in output.splitlines() if "::" in line)


@pytest.mark.parametrize(
    ("arguments", "finds"),
    [
        ((), [IN_TESTPLANS, OWN]),
        ((".",), [IN_TESTPLANS, OWN]),
        (("tests",), [OWN]),
        (("plans/",), IN_PLANS),
        (("plans", "tests"), [*IN_PLANS, OWN]),
        (("plans/second.yml",), IN_PLANS[1:]),
        (("nightly",), [IN_TESTPLANS]),
        (("-o", "testpaths=tests plans"), [*IN_PLANS, OWN]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_plans_are_found_where_they_are_named_and_nothing_else_is_taken_for_one(
    project: Path, arguments: tuple[str, ...], finds: list[str]
) -> None:
    assert collected(project, *arguments) == finds


def test_a_bare_pytest_leaves_even_plans_alone_outside_testplans(project: Path) -> None:
    (project / "one.yaml").write_text(PLAN)
    (project / "wrong.yaml").write_text("stepz: []\n")
    assert collected(project) == [IN_TESTPLANS, OWN]


def test_so_it_does_with_workers_of_xdist(project: Path) -> None:
    (project / "wrong.yaml").write_text(PLAN.replace("vcpus: 1", "vcpus: none"))
    done = run_pytest(project, "-n", "1", "-k", "own", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_plan_from_elsewhere_has_a_name_too(project: Path) -> None:
    elsewhere = project / "plans/second.yml"
    assert collected(project / "tests", "--rootdir", ".", os.fspath(elsewhere)) == IN_PLANS[1:]


def test_a_misspelt_plan_in_a_named_folder_is_an_error_and_not_overlooked(project: Path) -> None:
    (project / "plans/third.yaml").write_text("stepz: []\n")
    done = run_pytest(project, "--collect-only", "plans")
    assert done.returncode == 2, done.stdout
    assert "plans/third.yaml:1:1: unknown key 'stepz'" in done.stdout
