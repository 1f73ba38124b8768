# SPDX-License-Identifier: MIT
"""``hil init``: the first files of somebody's own plans, written from those in the folder ``starter``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from harness.host.tools import packages_for
from harness.version import __version__

STARTER = Path(__file__).with_name("starter")
#: What is written, in the order in which a person wants to look at it.
FILES = ("first.yaml", "guests/windows.yaml", "ci/ci.sh", "ci/github-actions.yaml")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write them; made if it is not there.")] = Path(
        "plans"
    ),
) -> None:
    """Write a first plan, a guest profile to fill in and a recipe for CI; existing files stay as they are."""
    targets = {name: folder / name for name in FILES}
    there = [str(path) for path in targets.values() if os.path.lexists(path)]
    if there:
        raise UsageError(f"{', '.join(there)}: there already; nothing was written")
    try:
        for name, path in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                file.write(_filled_in(name, folder))
    except OSError as err:
        raise UsageError(f"{err.filename}: cannot be written: {err.strerror}") from err
    typer.echo(f"wrote {', '.join(str(path) for path in targets.values())}")
    quoted = shlex.quote(str(targets["first.yaml"]))
    typer.echo(f"1. hil run {quoted}: run the plan; the first time builds a guest, which takes some minutes")
    typer.echo(
        f"2. change it to what your driver must do; hil check {shlex.quote(str(folder))} finds mistakes"
    )
    typer.echo(
        f"3. fill in {targets['guests/windows.yaml']} for a Windows of yours; {folder / 'ci'} is for CI"
    )


def _filled_in(name: str, folder: Path) -> str:
    text = (STARTER / name).read_text()
    # A recipe for CI begins in the top folder of a repository: here, as far as anybody can tell.
    inside = os.path.relpath(folder)
    values = {
        "@VERSION@": __version__,
        "@PACKAGES@": " \\\n    ".join(["python3-venv", *packages_for("run")]),
        "@FOLDER@": shlex.quote(inside if not inside.startswith("..") else folder.name),
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return text
