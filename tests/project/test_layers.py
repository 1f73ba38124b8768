# SPDX-License-Identifier: MIT
"""The package's shape, as far as import-linter and ruff (``hil test --gate imports``) do not hold it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "harness"
MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
LONGEST_MODULE_LINES = 300


def contracts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
        "importlinter"
    ]["contracts"]
    return found


def floors() -> list[str]:
    """Return the packages and modules of the layers contract, from the top down."""
    [layers] = [contract["layers"] for contract in contracts() if contract["type"] == "layers"]
    return [name.strip() for layer in layers for name in layer.split("|")]


def test_the_architecture_page_shows_the_same_floors_in_the_same_order() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    table = re.search(r"^\| floor .*?\n\n", page, re.MULTILINE | re.DOTALL)
    assert table is not None
    shown = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table[0].strip().splitlines()[2:]))
    assert shown == floors()


def test_every_floor_is_there() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert set(floors()) <= there


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_and_says_its_licence_and_its_job(module: str) -> None:
    source = MODULES[module].read_text()
    lines = source.splitlines()
    assert len(lines) <= LONGEST_MODULE_LINES
    assert lines[0] == "# SPDX-License-Identifier: MIT"
    assert ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nt.sleep(1)",
        "from time import sleep",
        "import paramiko\nparamiko.AutoAddPolicy()",
        "import yaml\nyaml.load('')",
    ],
)
def test_a_forbidden_name_is_found(code: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", "--output-format", "concise"]
    bans = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    names = ", ".join(f'"{name}".msg = "no"' for name in bans["banned-api"])
    (tmp_path / "bad.py").write_text(code + "\n")
    configured = ["--select", "TID251", "--config", f"lint.flake8-tidy-imports.banned-api = {{{names}}}"]
    done = subprocess.run([*command, *configured, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "TID251" in done.stdout
