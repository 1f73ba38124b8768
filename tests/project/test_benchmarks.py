# SPDX-License-Identifier: MIT
"""The benchmarks run and say what they promise; how fast anything is, no test judges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Figure, median_of, ratio_of, table

ROOT = Path(__file__).resolve().parents[2]
FIGURE_KEYS = {"name", "value", "unit", "samples", "bound", "target", "holds"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def figures_of(output: Path, benchmark: str) -> list[dict[str, Any]]:
    """Return the figures of a benchmark that ran alone, after a look at all that stands beside them."""
    found = json.loads(output.read_text())
    assert set(found) == {"format", "command", "quick", "host", "setting", "benchmarks"}
    assert found["format"] == 1
    assert found["quick"] is True
    assert set(found["host"]) == {"processors", "model", "load_at_start", "python"}
    assert set(found["benchmarks"]) == {benchmark}
    assert found["benchmarks"][benchmark]["seconds"] >= 0
    figures: list[dict[str, Any]] = found["benchmarks"][benchmark]["figures"]
    for figure in figures:
        assert set(figure) == FIGURE_KEYS
        assert figure["value"] > 0
    return figures


def test_parsing_needs_no_guest(tmp_path: Path) -> None:
    done = run("parsing", "--quick", "--output", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    [figure] = figures_of(tmp_path / "out.json", "parsing")
    assert (figure["name"], figure["unit"]) == ("parsed", "records/s")
    assert "parsed" in done.stdout


def test_a_plan_is_taken_apart(tmp_path: Path) -> None:
    done = run("plan", "--quick", "--output", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    total, *phases = figures_of(tmp_path / "out.json", "plan")
    assert sum(phase["value"] for phase in phases) == pytest.approx(total["value"], rel=0.05)
    setting = json.loads((tmp_path / "out.json").read_text())["setting"]
    assert {"guest", "accelerator", "qemu_version", "driver_sha256"} <= set(setting)


def test_whole_commands_are_timed(tmp_path: Path) -> None:
    done = run("commands", "--quick", "--output", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    check, whole, own = figures_of(tmp_path / "out.json", "commands")
    assert (check["name"], check["unit"]) == ("hil check, whole command", "s")
    assert whole["name"] == "one plan, whole command, warm cache"
    # The plan's own time is within the command's, and checking a plan is less than running one.
    assert check["value"] < own["value"] < whole["value"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    done = run("plam")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("plam", "parsing"))


def test_the_page_shows_every_benchmark() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    assert [name for name in BENCHMARKS if f"`{name}`" not in page] == []


def test_a_target_holds_or_is_missed() -> None:
    figure = median_of("time", [3.0, 1.0, 2.0])
    assert (figure.value, figure.holds) == (2.0, None)
    assert (figure.at_most(2).holds, figure.at_most(1.9).holds) == (True, False)
    assert (figure.at_least(2).holds, figure.at_least(2.1).holds) == (True, False)
    missed, kept = table("some", [figure.at_most(1), figure.at_least(1)])[1:]
    assert "MISSED" in missed
    assert "holds" in kept


def test_a_ratio_is_of_the_medians() -> None:
    two, four = (Figure(name="n", value=value, unit="s") for value in (2.0, 4.0))
    assert (ratio_of("r", four, two).value, ratio_of("r", four, two).unit) == (2.0, "x")


def test_no_sample_is_no_figure() -> None:
    with pytest.raises(ValueError, match="time"):
        median_of("time", [])
