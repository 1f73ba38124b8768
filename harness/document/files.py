# SPDX-License-Identifier: MIT
"""Which files are read as plans and guest profiles: one rule for all that look for them."""

from __future__ import annotations

from pathlib import Path

#: What the name of such a file ends in, in small or capital letters.
YAML_SUFFIXES = (".yaml", ".yml")
#: The rule, for people.
RULE = "whose name ends in .yaml or .yml and begins with no dot"


def is_yaml_file(path: Path) -> bool:
    """Say whether a file that is there, or a link to nowhere, is read as YAML.

    Hidden ones are not: an editor keeps its locks and copies there. A link to nowhere is, so that it is told.
    """
    if path.name.startswith(".") or path.suffix.lower() not in YAML_SUFFIXES:
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files right in a folder, in order; none if the folder is not there.

    :raise OSError: it is there and cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if is_yaml_file(path))
    except FileNotFoundError:
        return []
