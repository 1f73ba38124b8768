# SPDX-License-Identifier: MIT
"""What became of one plan, as a value that reports are made from."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.evidence.mismatch import Mismatch
from harness.evidence.witness import ObservedRecord, StepBegun, StepEvidence

#: Stands for the image and the driver of a guest that has neither.
NONE = "none"

Outcome = Literal["passed", "failed", "error", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a plan ran and what was under test: no verdict is comparable without it."""

    guest: str
    system: str
    accelerator: str
    accelerator_reason: str
    tcg_thread: str | None  #: how emulated vCPUs share the host's threads; None under KVM
    qemu_version: str
    image_key: str  #: as the driver's file and hash, :data:`NONE` for a guest without an operating system
    driver_file: str
    driver_sha256: str
    harness_version: str
    qemu_args: tuple[str, ...] = ()  #: the guest profile's own

    def properties(self) -> list[tuple[str, object]]:
        """Return all of it as names and values, for JUnit."""
        return list({**dataclasses.asdict(self), "qemu_args": shlex.join(self.qemu_args)}.items())

    def __str__(self) -> str:
        has_driver = self.driver_file != NONE
        driver = f"{self.driver_file} {self.driver_sha256[:12]}" if has_driver else "no driver"
        qemu = " ".join([f"QEMU {self.qemu_version} {self.accelerator}", shlex.join(self.qemu_args)]).strip()
        return f"{self.guest} ({self.system}), {qemu}, {driver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Passed, failed (the product is wrong), error (the bench broke: nothing about the driver) or skipped."""

    plan: str
    description: str
    outcome: Outcome
    setting: Setting
    earlier: tuple[ObservedRecord, ...] = ()  #: what the driver had written before the first step
    steps: tuple[StepEvidence, ...]
    unfinished: StepBegun | None = None  #: the step that the bench broke in
    mismatches: tuple[Mismatch, ...]
    error: str | None
    skipped: str | None = None  #: why it was not run at all
    started_s: float  #: host time.monotonic()
    duration_s: float
    evidence: Path
    worker: str | None = None  #: of a cluster, that ran the plan
    lost_workers: tuple[str, ...] = ()  #: that had begun it and were lost, so that it was run again

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as dicts, lists, texts and numbers."""
        return {**dataclasses.asdict(self), "evidence": str(self.evidence)}
