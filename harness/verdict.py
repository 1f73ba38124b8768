# SPDX-License-Identifier: MIT
"""What became of one plan, as a value that reports are made from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.evidence import StepBegun, StepEvidence
from harness.mismatch import Mismatch

Outcome = Literal["passed", "failed", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a plan ran and what was under test: no verdict is comparable without it."""

    guest: str
    system: str
    accelerator: str
    accelerator_reason: str
    tcg_thread: str | None  #: how emulated vCPUs share the host's threads; None under KVM
    qemu_version: str
    image_key: str
    driver_file: str
    driver_sha256: str
    harness_version: str

    def properties(self) -> list[tuple[str, object]]:
        """Return all of it as names and values, for JUnit."""
        return list(dataclasses.asdict(self).items())

    def __str__(self) -> str:
        return (
            f"{self.guest} ({self.system}), QEMU {self.qemu_version} {self.accelerator},"
            f" {self.driver_file} {self.driver_sha256[:12]}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Passed, failed (the product is wrong) or error (the bench broke, nothing said about the driver)."""

    plan: str
    description: str
    outcome: Outcome
    setting: Setting
    steps: tuple[StepEvidence, ...]
    unfinished: StepBegun | None = None  #: the step that the bench broke in
    mismatches: tuple[Mismatch, ...]
    error: str | None
    started_s: float  #: host time.monotonic()
    duration_s: float
    evidence: Path
    worker: str | None = None  #: of a cluster, that ran the plan
    lost_workers: tuple[str, ...] = ()  #: that had begun it and were lost, so that it was run again

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as dicts, lists, texts and numbers."""
        return {**dataclasses.asdict(self), "evidence": str(self.evidence)}
