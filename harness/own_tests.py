# SPDX-License-Identifier: MIT
"""The project's own tests, one gate after the other: ``hil test``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_FOLDERS = ("harness", "tests", "benchmarks")


def run_own_tests(arguments: Sequence[str]) -> int:
    """Run lint, types and pytest; all of them, so that one failure does not hide another.

    :param arguments: handed to pytest; when there are any, nothing but pytest is run.
    :return: an exit status, 0 when everything passed.
    """
    pytest = [sys.executable, "-m", "pytest"]
    gates: list[list[str]] = [
        [sys.executable, "-m", "ruff", "check", *PYTHON_FOLDERS],
        [sys.executable, "-m", "ruff", "format", "--check", *PYTHON_FOLDERS],
        [sys.executable, "-m", "mypy"],
        ["make", "--silent", "--directory=guest-driver", "lint"],
        # Emulated guests take a core each; a file's tests stay together, as they share what they set up.
        [*pytest, "--numprocesses", "logical", "--maxprocesses", "4", "--dist", "loadfile", "tests"],
    ]
    if arguments:
        gates = [[*pytest, *arguments]]
    failed = []
    for gate in gates:
        name = " ".join(gate).replace(sys.executable, os.path.basename(sys.executable))  # noqa: PTH119
        print(f"== {name}", flush=True)  # noqa: T201
        if subprocess.run(gate, cwd=ROOT, check=False).returncode != 0:
            failed.append(name)
    for name in failed:
        print(f"failed: {name}", flush=True)  # noqa: T201
    return 1 if failed else 0
