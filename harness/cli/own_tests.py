# SPDX-License-Identifier: MIT
"""The project's own tests, one gate after the other: ``hil test``. tox and pre-commit run the same gates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from harness.errors import UsageError
from harness.host.checkout import CHECKOUT

_PYTHON_FOLDERS = ("harness", "tests", "benchmarks")
_PYTEST = (sys.executable, "-m", "pytest")

#: Every gate, in the order in which they are run: the cheapest first.
GATES: dict[str, tuple[str, ...]] = {
    "lint": (sys.executable, "-m", "ruff", "check", *_PYTHON_FOLDERS),
    "format": (sys.executable, "-m", "ruff", "format", "--check", *_PYTHON_FOLDERS),
    "imports": (sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"),
    "types": (sys.executable, "-m", "mypy"),
    "c": ("make", "--silent", "--directory=guest-driver", "lint"),
    # Emulated guests take a core each; a file's tests stay together, as they share what they set up.
    "tests": (*_PYTEST, "--numprocesses", "logical", "--maxprocesses", "4", "--dist", "loadfile", "tests"),
}


def run_own_tests(arguments: Sequence[str], *, gate: str | None = None) -> int:
    """Run all gates, so that one failure does not hide another, or one of them.

    :param arguments: handed to pytest; when there are any, nothing but pytest is run.
    :return: an exit status, 0 when everything passed.
    :raise UsageError: there is no such gate, or no checkout here.
    """
    if CHECKOUT is None:
        raise UsageError("the project's own tests need a checkout: clone the project, then ./hil test")
    if gate is not None and gate not in GATES:
        raise UsageError(f"{gate}: no such gate; allowed: {', '.join(GATES)}")
    gates: list[tuple[str, ...]] = list(GATES.values())
    if gate is not None:
        gates = [GATES[gate]]
    elif arguments:
        gates = [(*_PYTEST, *arguments)]
    failed = []
    for command in gates:
        name = " ".join(command).replace(sys.executable, os.path.basename(sys.executable))  # noqa: PTH119
        print(f"== {name}", flush=True)  # noqa: T201
        if subprocess.run(command, cwd=CHECKOUT, check=False).returncode != 0:
            failed.append(name)
    for name in failed:
        print(f"failed: {name}", flush=True)  # noqa: T201
    return 1 if failed else 0
