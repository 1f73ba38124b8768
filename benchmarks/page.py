# SPDX-License-Identifier: MIT
"""Fill the figures of ``docs/performance.md`` from a run: ``python -m benchmarks.page FILE``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, found: dict[str, Any]) -> str:
    """Return the page with the tables of this run; of benchmarks it did not run, those that are there."""

    def replace(place: re.Match[str]) -> str:
        before, name, after = place.groups()
        if name == "host":
            return f"{before}{_host(found)}\n{after}"
        if name not in found["benchmarks"]:
            return place[0]
        rows = [_row(figure) for figure in found["benchmarks"][name]["figures"]]
        head = ["| figure | value | lowest to highest | target |", "|---|--:|--:|---|"]
        return before + "\n".join([*head, *rows]) + f"\n{after}"

    return _PLACE.sub(replace, page)


def _host(found: dict[str, Any]) -> str:
    host, setting = found["host"], found["setting"]
    return (
        f"{host['processors']} processors ({host['model']}), load {host['load_at_start']:.1f} at the start;"
        f" QEMU {setting['qemu_version']} with {setting['accelerator']}; Python {host['python']}."
    )


def _row(figure: dict[str, Any]) -> str:
    samples, target = figure["samples"], ""
    spread = f"{_number(min(samples))} to {_number(max(samples))} of {len(samples)}" if samples else ""
    if figure["target"] is not None:
        target = (
            f"{figure['bound']} {_number(figure['target'])}: {'holds' if figure['holds'] else '**missed**'}"
        )
    name = figure["name"].strip()
    return f"| {name} | {_number(figure['value'])} {figure['unit']} | {spread} | {target} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), json.loads(Path(sys.argv[1]).read_text())))
