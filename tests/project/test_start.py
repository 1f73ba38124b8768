# SPDX-License-Identifier: MIT
"""A command loads no library that it has no use for: checking a plan is to take a fifth of a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAN = ROOT / "testplans" / "one-dimm.yaml"

#: What only running a plan needs, by its top-level package.
FOR_RUNNING = {
    *("paramiko", "cryptography", "nacl", "bcrypt", "invoke"),
    *("qemu", "asyncio", "pytest", "_pytest", "pluggy", "psutil", "rich", "distributed", "dask"),
}


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a command loads, as Python itself tells."""
    command = [sys.executable, "-X", "importtime", "-m", "harness", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in told}


@pytest.mark.parametrize("arguments", [["check", str(PLAN)], ["schema", "plan"], ["schema", "guest"]])
def test_what_runs_no_plan_loads_nothing_for_running_one(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert {"harness.plan.plan", "harness.guest.profile", "pydantic"} <= loaded
    assert {name.partition(".")[0] for name in loaded} & FOR_RUNNING == set()
