# SPDX-License-Identifier: MIT
"""What the tests of verify share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.words.perfect_run import PLAN, REFERENCE, Run, perfect_run, plan_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return perfect_run(plan_of(tmp_path, PLAN), REFERENCE)
