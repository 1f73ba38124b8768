# SPDX-License-Identifier: MIT
"""A guest profile: one kind of guest, how to reach it, what it can do, and which witnesses it must convince.

A user adds a guest by writing one file, ``testplans/guests/<name>.yaml``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StrictInt,
    StrictStr,
    model_validator,
)

from harness.errors import ProfileError, UsageError
from harness.evidence import WITNESSES, Witness
from harness.plan import DIMM_MULTIPLE_BYTES, Plan
from harness.units import DurationSeconds, SizeBytes, did_you_mean, format_size
from harness.yaml_model import NotEmpty, YamlModel, error_at
from harness.yaml_source import Source, load_model


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Text = Annotated[StrictStr, Field(min_length=1)]
Pattern = Annotated[Text, AfterValidator(_regular_expression)]


class Image(YamlModel):
    """The guest's disk: built here, or a file of the user's."""

    build: Literal["reference"] | None = None
    disk: Text | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.build is None) == (self.disk is None):
            raise error_at("image: allowed: one of build: reference and disk: <path>")
        return self


class CpuModel(YamlModel):
    """QEMU's ``-cpu`` value by accelerator."""

    tcg: Text = "max"
    kvm: Text = "host"


class Limits(YamlModel):
    """The most that this guest, its machine and its operating system take."""

    max_vcpus: StrictInt = Field(default=64, ge=1)
    slots: StrictInt = Field(default=256, ge=0, le=256)
    dimm_multiple_bytes: SizeBytes = Field(default=DIMM_MULTIPLE_BYTES, alias="dimm_multiple")


class Ssh(YamlModel):
    """Who logs in over SSH, and how the login shell wants its arguments quoted."""

    user: Text
    shell: Literal["posix", "cmd"]


class DriverHome(YamlModel):
    """The driver as a service of the guest, and the folder its files are put into."""

    service: Text = "hpnotify"
    load_order_group: Text | None = None
    directory: Text


class Deadlines(YamlModel):
    """How long the bench waits for the guest before it gives up."""

    boot_s: DurationSeconds = Field(default=180.0, alias="boot")
    command_s: DurationSeconds = Field(default=60.0, alias="command")
    #: How long to go on looking after the last expected record, for one record too many.
    settle_s: DurationSeconds = Field(default=1.0, alias="settle")


class Links(YamlModel):
    """What a symbolic link of each interface class must look like: the whole of it, in any letter case."""

    processor: Pattern
    memory: Pattern


class Profile(YamlModel):
    """A guest profile as written."""

    description: StrictStr | None = None
    system: Literal["windows", "linux-wine"]
    image: Image
    machine: Text = "q35"
    firmware: Text = Field(default="seabios", description="seabios, or the path of a pflash image")
    cpu_model: CpuModel = CpuModel()
    tcg_thread: Literal["single", "multi"] = Field(
        default="multi", description="whether emulated vCPUs take turns on one thread of the host or not"
    )
    limits: Limits = Limits()
    network_device: Text
    disk_device: Text
    ssh: Ssh
    driver: DriverHome
    driver_log: Text
    probe: Text
    require: Annotated[tuple[Witness, ...], NotEmpty] = WITNESSES
    deadlines: Deadlines = Deadlines()
    links: Links

    _source: Source[ProfileError] | None = PrivateAttr(default=None)

    @property
    def source(self) -> Path:
        """The file the profile was loaded from."""
        if self._source is None:
            raise ValueError("this profile was not loaded from a file")
        return self._source.path

    @property
    def name(self) -> str:
        """The name of that file without its ending."""
        return self.source.stem

    @property
    def disk_path(self) -> Path | None:
        """The user's disk image, relative to the profile's folder; None for an image built here."""
        return None if self.image.disk is None else self.source.parent / Path(self.image.disk).expanduser()


def load_profile(path: Path) -> Profile:
    """Read a guest profile.

    :raise ProfileError: the file cannot be read or is no profile.
    """
    loaded = load_model(path, Profile, ProfileError)
    loaded.model._source = loaded.source
    return loaded.model


def find_profile(name: str, directory: Path) -> Profile:
    """Read the profile of that name from a folder of profiles.

    :raise UsageError: there is none of that name.
    :raise ProfileError: it does not load.
    """
    path = _profiles(directory).get(name)
    if path is None:
        raise UsageError(_unknown_guest(name, directory))
    return load_profile(path)


def profile_of(plan: Plan, directory: Path) -> Profile:
    """Read the profile of the guest a plan names, and check that the plan fits it.

    :raise PlanError: the guest is unknown, or the plan asks for more than it has.
    :raise ProfileError: the profile does not load.
    """
    path = _profiles(directory).get(plan.guest)
    if path is None:
        raise plan.error(_unknown_guest(plan.guest, directory), "guest")
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
    multiple_bytes = profile.limits.dimm_multiple_bytes
    for number, step in enumerate(plan.steps):
        for index, size_bytes in enumerate(step.plug.dimms_bytes if step.plug else ()):
            if size_bytes % multiple_bytes:
                size, multiple = format_size(size_bytes), format_size(multiple_bytes)
                message = f"DIMM of {size}; the guest {profile.name} allows multiples of {multiple}"
                raise plan.error(message, "steps", number, "plug", "dimms", index)


def required_witnesses(plan: Plan, profile: Profile) -> tuple[Witness, ...]:
    """Return the witnesses that must confirm the plan, in the order of blame."""
    required = plan.require or profile.require
    return tuple(witness for witness in WITNESSES if witness in required)


def _profiles(directory: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))}


def _unknown_guest(name: str, directory: Path) -> str:
    known = _profiles(directory)
    return f"unknown guest '{name}'; known: {', '.join(known) or 'none'}{did_you_mean(name, known)}"
