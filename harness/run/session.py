# SPDX-License-Identifier: MIT
"""Set up benches for many plans: whatever they share is built once, on first need."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import BenchError
from harness.fork.open import why_booted
from harness.fork.template import find_template
from harness.guest.bench import Bench, with_system
from harness.guest.kinds import kind_of
from harness.guest.profile import Profile
from harness.host.budget import host_amounts
from harness.host.cache import Progress, cache_folder, cache_limit_bytes, no_progress
from harness.plan.fit import profile_of, profiles_for
from harness.plan.need import has_room_for
from harness.plan.plan import Plan, load_plan
from harness.run.results_folder import RESERVED, ResultsFolder, make_evidence_folder, own_folder
from harness.run.unexpected import told
from harness.vm.argv import AcceleratorChoice
from harness.vm.qemu_choice import chosen_qemu
from harness.vm.shape import VmShape

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Session:
    """The options of a whole run, and the benches made for it so far.

    :ivar results: the folder that gets one evidence folder per plan.
    :ivar results_are_new: that is a new folder; if somebody has made it by then, another name is found.
    :ivar qemu: the QEMU that runs the guests; see :func:`harness.vm.qemu_choice.chosen_qemu`.
    :ivar driver: the user's own driver, an absolute path, in place of that of a guest's profile.
    :ivar profiles: the one folder of guest profiles; None for the one beside each plan and the project's.
    """

    results: Path
    accelerator: AcceleratorChoice = "auto"
    progress: Progress = no_progress
    driver: Path | None = None
    profiles: Path | None = None
    qemu: str = field(default_factory=chosen_qemu)
    results_are_new: bool = False
    _benches: dict[Path, Bench | BenchError] = field(default_factory=dict)
    _profiles: dict[Path, Profile] = field(default_factory=dict)
    _drivers: dict[Path, Path | None] = field(default_factory=dict)
    _folder: ResultsFolder | None = None
    _names: set[str] = field(default_factory=lambda: set(RESERVED))
    _making: threading.Lock = field(default_factory=threading.Lock)

    def load(self, path: Path) -> Plan:
        """Read a plan and check that its guest is known and has what it asks for, and can load the driver.

        :raise UsageError: it cannot be run, with the place of the mistake, or HIL_CACHE_LIMIT is no size.
        """
        cache_limit_bytes()
        plan = load_plan(path)
        self._profiles.pop(plan.source, None)  # it may be for another guest than when it was last read
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
                except Exception as err:  # noqa: BLE001 - the other plans are to run
                    made = BenchError(told(err, folder=self.results))
                    made.__cause__ = err
                self._benches[profile.source] = made
        if isinstance(made, BenchError):
            raise made
        return made

    def prepare(self, plans: list[Plan]) -> None:
        """Build all that these plans need, so that running them does nothing but run them.

        Nothing is built for a plan that is too large for this host, and what cannot be built is remembered:
        running the plans that need it says so.
        """
        host = host_amounts(self.results)
        looked_at: set[tuple[Path, VmShape]] = set()
        for plan in plans:
            try:
                bench = self.bench(plan)
                wanted = (bench.profile.source, plan.vm)
                boots = why_booted(bench, plan.vm, plan.boot) is not None
                if boots or wanted in looked_at or not has_room_for(plan, host):
                    continue
                looked_at.add(wanted)
                self.progress(f"preparing a template of {bench.profile.name} for {plan.name}", 0.0)
                find_template(with_system(bench), plan.vm, folder=self.results)
                self.progress("template ready", 1.0)
            except Exception as err:  # noqa: BLE001 - running the plan meets it again, and says so
                logger.debug("%s cannot be prepared: %s", plan.name, err)

    def own_results(self) -> None:
        """Make the folder of results this run's own: make it, keep others out, remove the reports in it.

        :raise UsageError: it cannot be made or written to, or another run writes to it now.
        """
        if self._folder is None:
            self._folder = own_folder(self.results, another_name=self.results_are_new)
            self.results = self._folder.path

    def evidence_folder(self, plan: Plan) -> Path:
        """Make and return an empty folder of the results that no other plan has.

        What an earlier run left there of a plan of this name is removed as a whole. If something else is
        there, the folder gets a number.

        :raise BenchError: it cannot be made.
        """
        name, number = plan.name, 1
        while not self._take(name):
            number += 1
            name = f"{plan.name}-{number}"
        return self.results / name

    def _take(self, name: str) -> bool:
        if name in self._names:
            return False
        self._names.add(name)
        return make_evidence_folder(self.results / name, replace=self._folder is not None)

    def profile(self, plan: Plan) -> Profile:
        """Return the profile of the plan's guest.

        :raise UsageError: it is unknown, does not load, or has not what the plan asks for; or the user's own
            driver is none for this guest.
        """
        if plan.source not in self._profiles:
            folders = profiles_for(plan) if self.profiles is None else (self.profiles,)
            profile = profile_of(plan, *folders)
            if profile.source not in self._drivers:
                self._drivers[profile.source] = kind_of(profile).own_driver(profile, self.driver)
            self._profiles[plan.source] = profile
        return self._profiles[plan.source]

    def own_driver(self, profile: Profile) -> Path | None:
        """Return the user's own driver, or None, for the guest of a plan that was loaded and so checked."""
        return self._drivers[profile.source]

    def _make(self, profile: Profile) -> Bench:
        return kind_of(profile).bench(
            profile,
            driver=self.own_driver(profile),
            accelerator=self.accelerator,
            qemu=self.qemu,
            cache=cache_folder(),
            progress=self.progress,
        )
