# SPDX-License-Identifier: MIT
"""Shows on standard error what is being built: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from harness.host.cache import Progress


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """Give what is to be told of progress while the block runs."""
    if not sys.stderr.isatty():
        yield _say_once()
        return
    # Half as much again to load as all of the command line, and of no use anywhere else.
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as ProgressBar

    bar = ProgressBar(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True, highlight=False, soft_wrap=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, fraction: bar.update(task, description=what, completed=fraction)


def _say_once() -> Progress:
    """Return progress for a log file: one line when something else begins."""
    said = ""

    def say(what: str, _fraction: float) -> None:
        nonlocal said
        if what != said:
            said = what
            typer.echo(f"hil: {what}", err=True)

    return say
