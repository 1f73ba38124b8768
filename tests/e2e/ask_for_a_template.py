# SPDX-License-Identifier: MIT
"""Ask for the template of a plan in a cache of its own, as a process of its own: run by test_fork.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from harness.fork.template import find_template
from harness.run.session import Session

plan_path, cache, results = map(Path, sys.argv[1:])
session = Session(results=results)
plan = session.load(plan_path)
# The image is the one that all tests share; only templates go to the cache given.
bench = replace(session.bench(plan), cache=cache)
sys.stdout.write(f"{find_template(bench, plan.vm, folder=results)}\n")
