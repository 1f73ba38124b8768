# SPDX-License-Identifier: MIT
"""``hil check``: what plans would do, and what is still missing on this host, with nothing run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.document.printable import printable
from harness.guest.profile import Profile, SshProfile
from harness.plan.fit import profile_of, profiles_for
from harness.plan.plan import Plan, load_plan


class Check:
    """Looks at plans, and once at the guest and the driver of each.

    :param driver: the user's own; None for that of each guest's profile.
    """

    def __init__(self, driver: Path | None) -> None:
        self._driver = driver
        self._looked_at: set[Path] = set()

    def load(self, path: Path) -> tuple[Plan, list[str]]:
        """Read a plan, and return it and what running it would miss that no plan before it misses.

        :raise UsageError: it cannot be run, or its driver is none that its guest can load.
        """
        plan = load_plan(path)
        profile = profile_of(plan, *profiles_for(plan))
        if profile.source in self._looked_at:
            return plan, []
        self._looked_at.add(profile.source)
        return plan, list(self._missing(profile))

    def _missing(self, profile: Profile) -> Iterator[str]:
        if not isinstance(profile, SshProfile):
            return
        if self._driver is not None or profile.driver_path is not None:
            # Loading all that enters a guest takes longer than to check a plan.
            from harness.guest.kinds import kind_of

            kind_of(profile).own_driver(profile, self._driver)
        if profile.disk_path is not None or profile.firmware_path is not None:
            from harness.guest.images import missing_files

            yield from missing_files(profile)


def described(path: Path, plan: Plan) -> Iterator[str]:
    """Yield what a plan would do, line by line."""
    yield printable(f"{path}: {plan.description or plan.name}")
    for step in plan.unrolled():
        expected = ", ".join(step.expect.driver) or "no record"
        yield printable(f"  {step.number}. {step.title} -> {expected} within {step.within_s:g} s")
