# SPDX-License-Identifier: MIT
"""Run the benchmarks: ``python -m benchmarks [NAME ...] [--output FILE]``."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.commands import commands
from benchmarks.figures import FORMAT, Figure, table
from benchmarks.forks import fork_and_boot, logging_in, memory
from benchmarks.parsing import parsing
from benchmarks.plans import dimms, full_plan, steps, throughput
from benchmarks.workplace import Workplace
from harness.errors import BenchError, UsageError

BENCHMARKS: dict[str, Callable[[Workplace], list[Figure]]] = {
    "parsing": parsing,
    "commands": commands,
    "fork": fork_and_boot,
    "plan": full_plan,
    "steps": steps,
    "login": logging_in,
    "memory": memory,
    "throughput": throughput,
    "dimms": dimms,
}
#: These need no VM.
WITHOUT_GUEST = {"parsing"}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all when none is named.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
    quick: Annotated[bool, typer.Option(help="Do everything once: shows that it works, no more.")] = False,
) -> None:
    """Measure what the harness costs. Templates and images are built first and not counted."""
    chosen = names or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        raise typer.BadParameter(f"no benchmark '{unknown[0]}'; there are {', '.join(BENCHMARKS)}")
    with tempfile.TemporaryDirectory(prefix="hil-benchmarks-") as folder:
        place = Workplace(Path(folder), quick)
        found: dict[str, Any] = {
            "format": FORMAT,
            "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
            "quick": quick,
            "host": _host(),
            "setting": {} if WITHOUT_GUEST.issuperset(chosen) else place.setting(),
            "benchmarks": {},
        }
        for name in chosen:
            began_s = time.monotonic()
            figures = BENCHMARKS[name](place)
            found["benchmarks"][name] = {
                "seconds": round(time.monotonic() - began_s, 1),
                "figures": [figure.to_json() for figure in figures],
            }
            typer.echo("\n".join(table(name, figures)))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n")


def _host() -> dict[str, Any]:
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "processors": os.cpu_count(),
        "model": models[0].partition(":")[2].strip() if models else platform.machine(),
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    try:
        typer.run(main)
    except (BenchError, UsageError) as err:
        typer.echo(f"benchmarks: {err}", err=True)
        sys.exit(1)
