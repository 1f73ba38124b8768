# SPDX-License-Identifier: MIT
"""``import harness``: what it offers to other people's programs, and how little it costs them."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness import errors

ROOT = Path(__file__).resolve().parents[2]
FACE = ROOT / "harness/__init__.py"
HEAVY = {"paramiko", "pytest", "qemu", "yaml", "pydantic", "typer", "rich", "psutil", "asyncio"}

PROGRAM = """\
import harness

def passed(bench: harness.Bench, error: type[harness.HilError]) -> bool:
    try:
        plan: harness.Plan = harness.load_plan(Path("plan.yaml"))
        verdict: harness.Verdict = harness.run_plan(plan, bench=bench, folder=Path("out"))
    except harness.UsageError:
        return False
    return not verdict.mismatches
"""


def imported_for_types() -> dict[str, str]:
    """Return what the package imports for type checkers alone: names and the modules they come from."""
    [block] = [
        node
        for node in ast.parse(FACE.read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a new Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", harness.__all__)
def test_each_name_is_what_type_checkers_take_it_for(name: str) -> None:
    assert getattr(harness, name) is getattr(importlib.import_module(imported_for_types()[name]), name)
    assert getattr(harness, name).__doc__


def test_nothing_is_left_out_or_named_twice() -> None:
    assert len(harness.__all__) == len(set(harness.__all__))
    assert set(harness.__all__) == set(imported_for_types()) <= set(dir(harness))


def test_every_error_is_there_the_generic_before_the_explicit() -> None:
    raised = {
        name: error
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.HilError) and not name.startswith("_")
    }
    named = [name for name in harness.__all__ if name.endswith("Error")]
    assert set(named) == set(raised)
    depths = [len(set(raised[name].__mro__) & set(raised.values())) for name in named]
    assert depths == sorted(depths)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'run_plans'"):
        _ = harness.run_plans  # type: ignore[attr-defined]


def test_importing_it_loads_nothing_heavy() -> None:
    assert loaded_by("import harness") & HEAVY == set()
    assert {"qemu"} <= loaded_by("from harness import run_plan")


@pytest.mark.parametrize(
    ("change", "says"), [(("", ""), "Success"), (("run_plan(", "run_plans("), 'no attribute "run_plans"')]
)
def test_mypy_sees_what_is_there_and_what_is_not(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    program = tmp_path / "program.py"
    program.write_text("from pathlib import Path\n" + PROGRAM.replace(*change))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert says in done.stdout, done.stdout + done.stderr
