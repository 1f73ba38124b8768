# SPDX-License-Identifier: MIT
"""What kind a step or a device is, only ``steps/`` asks: all other places would change with each new kind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from harness.evidence.effect import DeviceKind
from harness.steps.actions import ACTIONS

PACKAGE = Path(__file__).resolve().parents[2] / "harness"
MODULES = {
    str(path.relative_to(PACKAGE)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE / "steps"
}
KEYS = {action.key for action in ACTIONS}
WORDS = {*KEYS, *get_args(DeviceKind)}
KIND_MODULES = {action.__module__ for action in ACTIONS}


def questions(source: str) -> list[str]:
    """Return every place of a module that asks what kind a step or a device is."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if _asks(node)]


def _asks(node: ast.AST) -> bool:
    match node:
        case ast.Import():
            return any(alias.name in KIND_MODULES for alias in node.names)
        case ast.ImportFrom():
            return not KIND_MODULES.isdisjoint(
                {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            )
        case ast.Attribute():
            return node.attr in KEYS and _name(node.value).endswith(("step", "planned", "action"))
        case ast.Compare():
            sides = [node.left, *node.comparators]
            return any(_is_kind(side) for side in sides) and _says_one(sides)
        case ast.Match():
            return _is_kind(node.subject) and _says_one(case.pattern for case in node.cases)
        case ast.Call(func=ast.Name(id="getattr"), args=[of, ast.Constant(value=word), *_]):
            return word in KEYS and _name(of).endswith(("step", "planned", "action"))
    return False


def _is_kind(node: ast.AST) -> bool:
    return _name(node) in ("kind", "key")


def _name(node: ast.AST) -> str:
    """Return the last word of a name such as ``self.step``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _says_one(nodes: Iterator[ast.AST] | list[ast.expr]) -> bool:
    """Return whether the word of a kind stands in any of these."""
    inside = (inner for node in nodes for inner in ast.walk(node))
    return any(isinstance(inner, ast.Constant) and inner.value in WORDS for inner in inside)


@pytest.mark.parametrize("module", MODULES)
def test_nobody_else_asks(module: str) -> None:
    assert questions(MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from harness.steps.plug import Plug",
        "import harness.steps.plug",
        "from harness.steps import announce",
        "if step.plug: pass",
        "if self.step.driver is not None: pass",
        "planned.qmp",
        "getattr(step, 'plug', None)",
        "step.action.key == 'plug'",
        "device.kind != 'dimm'",
        "kind in ('vcpu', 'other')",
        "'power' == evidence.key",
        "match device.kind:\n    case 'vcpu': pass",
        "match action.key:\n    case 'wait' | 'pause': pass",
    ],
)
def test_whoever_asks_is_found(source: str) -> None:
    assert questions(source)


@pytest.mark.parametrize(
    "source",
    [
        "from harness.steps.actions import ACTIONS",
        "plan.driver.interfaces",
        "guest.start_driver()",
        "record.kind == 'load'",
        "'driver' in missing",
        "step.action.perform(stage)",
        "match kind:\n    case 'located': pass",
    ],
)
def test_other_questions_may_be_asked(source: str) -> None:
    assert questions(source) == []
