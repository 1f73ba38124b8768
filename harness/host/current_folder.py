# SPDX-License-Identifier: MIT
"""The folder that the program was started in: somebody may remove it."""

from __future__ import annotations

from pathlib import Path


def current_folder() -> Path | None:
    """Return it, or None if it is gone."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
