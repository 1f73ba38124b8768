# SPDX-License-Identifier: MIT
"""Set up benches for many plans: whatever they share is built once, on first need."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from harness.accelerator import choose_accelerator
from harness.budget import has_room_for, host_amounts
from harness.cache import Progress, cache_folder, no_progress
from harness.errors import BenchError, DriverRefusedError
from harness.guest import Bench
from harness.guest_binaries import build_guest_binaries
from harness.images import find_image
from harness.plan import Plan, VmShape, load_plan
from harness.profile import Profile, profile_of
from harness.template import find_template

AcceleratorChoice = Literal["auto", "kvm", "tcg"]

#: Guest profiles lie in this folder beside the plans; those of the project serve plans elsewhere.
PROFILES_FOLDER = "guests"
PROJECT_PROFILES = Path(__file__).resolve().parent.parent / "testplans" / PROFILES_FOLDER


@dataclass(slots=True)
class Session:
    """The options of a whole run, and the benches made for it so far.

    :ivar results: the folder that gets one evidence folder per plan.
    :ivar profiles: the folder of the guest profiles, if not beside the plans.
    """

    results: Path
    accelerator: AcceleratorChoice = "auto"
    progress: Progress = no_progress
    profiles: Path | None = None
    _benches: dict[Path, Bench | BenchError] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _making: threading.Lock = field(default_factory=threading.Lock)

    def load(self, path: Path) -> Plan:
        """Read a plan and check that its guest is known and has what it asks for.

        :raise UsageError: it cannot be run, with the place of the first mistake.
        """
        plan = load_plan(path)
        self.profile(plan)
        return plan

    def bench(self, plan: Plan) -> Bench:
        """Return the bench for the plan's guest; driver, probe and image are built if they are missing.

        What could not be built is not tried again: every plan that needs it gets the same error.

        :raise BenchError: something could not be built.
        """
        profile = self.profile(plan)
        with self._making:
            made = self._benches.get(profile.source)
            if made is None:
                try:
                    made = self._make(profile)
                except BenchError as err:
                    made = err
                self._benches[profile.source] = made
        if isinstance(made, BenchError):
            raise made
        return made

    def prepare(self, plans: list[Plan]) -> None:
        """Build all that these plans need, so that running them does nothing but run them.

        Nothing is built for a plan that is too large for this host, or of a driver that does not start;
        running it will say so.

        :raise BenchError: something could not be built.
        """
        host = host_amounts(self.results)
        looked_at: set[tuple[Path, VmShape]] = set()
        for plan in plans:
            bench = self.bench(plan)
            wanted = (bench.profile.source, plan.vm)
            if plan.boot == "cold" or wanted in looked_at or not has_room_for(plan, host):
                continue
            looked_at.add(wanted)
            self.progress(f"booting a template of {bench.profile.name}", 0.0)
            with suppress(DriverRefusedError):
                find_template(bench, plan.vm, folder=self.results)
            self.progress("template ready", 1.0)

    def evidence_folder(self, plan: Plan) -> Path:
        """Return a folder of the results that no other plan of this session has."""
        name, number = plan.name, 1
        while name in self._names:
            number += 1
            name = f"{plan.name}-{number}"
        self._names.add(name)
        return self.results / name

    def profile(self, plan: Plan) -> Profile:
        """Return the profile of the plan's guest.

        :raise UsageError: it is unknown, does not load, or has not what the plan asks for.
        """
        beside = plan.source.parent / PROFILES_FOLDER
        return profile_of(plan, self.profiles or (beside if beside.is_dir() else PROJECT_PROFILES))

    def _make(self, profile: Profile) -> Bench:
        cache = cache_folder()
        self.progress("building the driver and the probe", 0.0)
        binaries = build_guest_binaries()
        image = find_image(profile, binaries=binaries, cache=cache, progress=self.progress)
        self.progress("choosing the accelerator", 0.0)
        accelerator = choose_accelerator(self.accelerator, cache_dir=cache, kernel=image.kernel)
        return Bench(
            profile=profile,
            image=image,
            accelerator=accelerator,
            driver=binaries.driver,
            probe=binaries.probe,
            cache=cache,
        )


def new_results_folder(parent: Path) -> Path:
    """Return a name for a new folder of results, by the time of day; it is made on first use."""
    return parent / datetime.now().strftime("%Y%m%d-%H%M%S")
