# SPDX-License-Identifier: MIT
"""Hot-plug vCPUs and DIMMs with QEMU and judge the notification log of a driver in the guest.

What is meant for others stands in ``__all__``: :func:`load_plan` and :func:`run_plan` do the work, and every
error is a :class:`HilError`. Each is imported when first asked for, so that ``import harness`` costs nothing.
Start reading at :func:`harness.run.run.run_plan`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from harness.version import __version__ as __version__

if TYPE_CHECKING:
    from harness.errors import (
        BenchError,
        DeadlineExpiredError,
        DriverCrashedError,
        DriverLogError,
        DriverRefusedError,
        GuestCommandError,
        GuestError,
        GuestGoneError,
        GuestUnreachableError,
        HilError,
        HostError,
        ImageError,
        PlanError,
        ProfileError,
        QmpCommandError,
        QmpError,
        QmpLostError,
        QtestError,
        TemplateDamagedError,
        UsageError,
        VmDisturbedError,
        VmError,
        VmExitedError,
        VmStalledError,
    )
    from harness.evidence.effect import Effect
    from harness.evidence.mismatch import Mismatch
    from harness.evidence.verdict import Verdict
    from harness.guest.bench import Bench
    from harness.plan.plan import Plan, load_plan
    from harness.run.run import run_plan
    from harness.steps.action import Action

# From the most to the least important; errors from the most generic to the most explicit.
__all__ = [  # noqa: RUF022
    "load_plan",
    "run_plan",
    "Plan",
    "Verdict",
    "Mismatch",
    "Action",
    "Effect",
    "Bench",
    "HilError",
    "UsageError",
    "BenchError",
    "PlanError",
    "ProfileError",
    "DeadlineExpiredError",
    "HostError",
    "ImageError",
    "VmError",
    "QmpError",
    "QtestError",
    "GuestError",
    "GuestGoneError",
    "DriverLogError",
    "TemplateDamagedError",
    "VmExitedError",
    "VmStalledError",
    "VmDisturbedError",
    "QmpCommandError",
    "QmpLostError",
    "GuestUnreachableError",
    "GuestCommandError",
    "DriverCrashedError",
    "DriverRefusedError",
]

# Where those live that are not in harness.errors; what is imported above for type checkers says the same.
_HOMES = {
    "load_plan": "harness.plan.plan",
    "run_plan": "harness.run.run",
    "Plan": "harness.plan.plan",
    "Verdict": "harness.evidence.verdict",
    "Mismatch": "harness.evidence.mismatch",
    "Action": "harness.steps.action",
    "Effect": "harness.evidence.effect",
    "Bench": "harness.guest.bench",
}

if not TYPE_CHECKING:  # mypy would take any name for one that is there

    def __getattr__(name: str) -> object:
        """Import what is asked for (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(_HOMES.get(name, "harness.errors")), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """Return what is there, with what is imported only when asked for."""
        return sorted({*globals(), *__all__})
