# SPDX-License-Identifier: MIT
"""Which files are plans, and which folders hold some."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.document.files import RULE, is_yaml_file, yaml_files
from harness.errors import UsageError

# Misspelt in one plan, they are right in another; and a file with both is hardly anything else.
_KEYS_OF_A_PLAN = tuple(re.compile(rb"\b%s[\"']?\s*:" % key) for key in (b"steps", b"expect"))


def plan_files(paths: Iterable[Path]) -> list[Path]:
    """Return the plans that somebody named: files, and all those right in folders. Each is there once.

    :raise UsageError: a path is no plan and no folder with one.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _plans_at(path):
            # One file named in two ways is one plan; two links to one file are two, each with its own folder.
            found.setdefault(file.parent.resolve() / file.name, file)
    return list(found.values())


def _plans_at(path: Path) -> list[Path]:
    if path.is_dir():
        try:
            inside = yaml_files(path)
        except OSError as err:
            raise UsageError(f"{path}: cannot be read: {err.strerror}") from err
        if not inside:
            raise UsageError(f"{path}: no plan in this folder; a plan is a file {RULE}")
        return inside
    if is_yaml_file(path):
        return [path]
    if path.exists():
        raise UsageError(f"{path}: not a plan; a plan is a file {RULE}")
    raise UsageError(f"{path}: no such plan or folder of plans")


def holds_plans(folder: Path) -> bool:
    """Say whether a file right in the folder is written like a plan; if one is, they all should be.

    Asked where a tree is somebody else's and may hold any YAML. The plan need not load: one that does not is
    to be reported, and not to be taken for something else.
    """
    return any(map(_is_like_a_plan, yaml_files(folder)))


def _is_like_a_plan(path: Path) -> bool:
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return all(key.search(text) for key in _KEYS_OF_A_PLAN)
