# SPDX-License-Identifier: MIT
"""Which guest a plan is for, and whether that guest has what the plan asks for."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import PydanticCustomError

from harness.evidence.driver_rules import DriverRules
from harness.evidence.witness import WITNESSES, Witness
from harness.guest.ability import ABILITIES, WITNESSES_OF
from harness.guest.driver_setup import DriverSetup
from harness.guest.profile import (
    Profile,
    QtestProfile,
    SshProfile,
    load_profile,
    profiles_in,
    unknown_guest,
)
from harness.host.checkout import PROFILES_FOLDER, PROJECT_PROFILES, SAMPLE_DRIVER
from harness.plan.plan import Plan


def profiles_for(plan: Plan) -> tuple[Path, ...]:
    """Return the folders of guest profiles in which to look for the plan's: the one beside it comes first."""
    return plan.source.parent / PROFILES_FOLDER, PROJECT_PROFILES


def profile_of(plan: Plan, *directories: Path) -> Profile:
    """Read the profile of the plan's guest from the first folder that has it, and check that the plan fits.

    :raise PlanError: the guest is unknown, or the plan asks for more than it has.
    :raise ProfileError: the profile does not load.
    """
    path = profiles_in(*directories).get(plan.guest)
    if path is None:
        raise plan.error(unknown_guest(plan.guest, *directories), "guest")
    profile = load_profile(path)
    check_plan_fits(plan, profile)
    return profile


def check_plan_fits(plan: Plan, profile: Profile) -> None:
    """Do nothing when the guest has what the plan asks for.

    :raise PlanError: it has not, pointing at what is too much.
    """
    for key, wanted, limit in (
        ("max_vcpus", plan.vm.max_vcpus, profile.limits.max_vcpus),
        ("slots", plan.vm.slots, profile.limits.slots),
    ):
        if wanted > limit:
            raise plan.error(f"{key}: {wanted}; the guest {profile.name} allows up to {limit}", "vm", key)
    if plan.vm.start == "paused" and isinstance(profile, SshProfile):
        message = f"start: paused; the guest {profile.name} has a system to boot; allowed for it: running"
        raise plan.error(message, "vm", "start")
    _check_witnesses(plan, profile)
    if plan.acpi is not None and not isinstance(profile, QtestProfile):
        message = f"acpi: the guest {profile.name} answers for itself; allowed: for a guest of system qtest"
        raise plan.error(message, "acpi")
    for number, step in enumerate(plan.steps):
        for action in step.actions():
            try:
                action.check_fits(profile.limits)
            except PydanticCustomError as error:
                context = error.context or {}
                message = str(context["message"]).replace(
                    "the guest allows", f"the guest {profile.name} allows"
                )
                raise plan.error(message, "steps", number, action.key, *context["at"]) from None


def _check_witnesses(plan: Plan, profile: Profile) -> None:
    there = [witness for witness in WITNESSES if witness in WITNESSES_OF[profile.system]]
    for number, witness in enumerate(plan.require or ()):
        if witness not in there:
            allowed = f"allowed: {', '.join(there)}"
            raise plan.error(
                f"require: the guest {profile.name} has no witness {witness}; {allowed}", "require", number
            )
    # A plan that is skipped is not read any further: it is for a guest that can do more.
    if "driver" in there or unmet_needs(plan, profile) is not None:
        return
    if plan.driver != DriverSetup():
        raise plan.error(f"driver: the guest {profile.name} has no driver; allowed: leave it out", "driver")
    for number, step in enumerate(plan.steps):
        if step.expect.driver:
            raise plan.error(
                f"driver: the guest {profile.name} has no driver; allowed: []",
                *("steps", number, "expect", "driver"),
            )


def profile_for(plan: Plan, profile: Profile) -> Profile:
    """Return the guest's profile as the plan wants it."""
    return profile if plan.acpi is None else profile.model_copy(update={"acpi": plan.acpi})


def unmet_needs(plan: Plan, profile: Profile) -> str | None:
    """Return why this guest cannot do what the plan's steps need of it, or None."""
    able = ABILITIES[profile.system]
    for step in plan.unrolled():
        lacking = sorted(step.action.needs - able)
        if lacking:
            what = " and ".join(lacking)
            return (
                f"step {step.number} ({step.title}) needs a guest that can do {what}; {profile.name} cannot"
            )
    return None


def driver_rules(plan: Plan, profile: Profile, *, file: Path | None) -> DriverRules:
    """Return what the driver's log is judged by, beside the steps.

    :param file: the driver; None for a guest that has none.
    """
    # A driver that users bring says its own name, whatever its file and its service are called here.
    is_sample = file is not None and file.stem.lower() == SAMPLE_DRIVER
    return DriverRules(
        interfaces=plan.driver.interfaces,
        synchronous=plan.driver.synchronous,
        existing=plan.driver.existing,
        names=(SAMPLE_DRIVER,) if is_sample else (),
        boot_memory_bytes=plan.vm.memory_bytes,
        max_processors=plan.vm.max_vcpus,
    )


def required_witnesses(plan: Plan, profile: Profile) -> tuple[Witness, ...]:
    """Return the witnesses that must confirm the plan, in the order of blame."""
    required = plan.require or profile.require
    there = WITNESSES_OF[profile.system]
    return tuple(witness for witness in WITNESSES if witness in required and witness in there)
