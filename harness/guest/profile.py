# SPDX-License-Identifier: MIT
"""A guest profile: one kind of guest, how to reach it, what it can do, and which witnesses it must convince.

A user adds a guest by writing one file, ``guests/<name>.yaml`` beside the plans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    StrictInt,
    StrictStr,
    TypeAdapter,
    model_validator,
)

from harness.document.files import yaml_files
from harness.document.model import NotEmpty, ShortForm, Text, YamlModel, error_at
from harness.document.source import Source, load_model
from harness.document.units import DurationSeconds, SizeBytes, did_you_mean
from harness.errors import ProfileError, UsageError
from harness.evidence.effect import Effect
from harness.evidence.witness import WITNESSES, Witness
from harness.guest.ability import System
from harness.guest.driver_home import DriverHome, WindowsPath
from harness.guest.qemu_args import QemuArgs
from harness.guest.qtest_script import ACCEPT, Script, script_field
from harness.vm.shape import DIMM_MULTIPLE_BYTES


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def _q35(machine: str) -> str:
    if not re.match(r"(pc-)?q35\b", machine):
        raise ValueError(
            f"{machine!r} has other ACPI registers; allowed: q35, or a version of it such as pc-q35-7.2"
        )
    return machine


Pattern = Annotated[Text, AfterValidator(_regular_expression)]


class Image(YamlModel):
    """The guest's disk: built here, or a file of the user's."""

    build: Literal["reference"] | None = None
    disk: Text | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.build is None and "disk" in self.model_fields_set and self.disk is None:
            raise error_at("disk: left blank; allowed: the path of a disk image", "disk")
        if (self.build is None) == (self.disk is None):
            raise error_at("image: allowed: one of build: reference and disk: <path>")
        return self


class Firmware(ShortForm):
    """Firmware of the user's; the path of its code alone stands for one that keeps no variables."""

    short_key: ClassVar[str] = "code"

    code: Text = Field(description="a pflash image, relative to the profile's folder")
    variables: Text | None = Field(
        default=None,
        alias="vars",
        description="what its variables begin as, a pflash image; each guest writes to a copy of its own",
    )


def _firmware(value: object) -> object:
    return None if value == "seabios" else value


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


class Deadlines(YamlModel):
    """How long the bench waits for the guest before it gives up."""

    boot_s: DurationSeconds = Field(default=180.0, alias="boot")
    command_s: DurationSeconds = Field(default=60.0, alias="command")
    #: How long to go on looking after the last expected record, for one record too many.
    settle_s: DurationSeconds = Field(default=1.0, alias="settle")
    #: How long to look on for records that are overdue: too late is another defect than never.
    late_s: DurationSeconds = Field(default=5.0, alias="late")


class Links(YamlModel):
    """What a symbolic link of each interface class must look like: the whole of it, in any letter case."""

    processor: Pattern
    memory: Pattern


class Profile(YamlModel):
    """What every guest profile has; which keys come on top depends on ``system``."""

    description: StrictStr | None = None
    system: System
    machine: Text = "q35"
    cpu_model: CpuModel = CpuModel()
    tcg_thread: Literal["single", "multi"] = Field(
        default="multi", description="whether emulated vCPUs take turns on one thread of the host or not"
    )
    limits: Limits = Limits()
    require: Annotated[tuple[Witness, ...], NotEmpty] = WITNESSES
    ost: Literal["required", "recorded"] | None = Field(
        default=None,
        description="whether the guest's ACPI must answer by _OST, or only may; unless given, it may on "
        "windows and must elsewhere",
    )
    told: Literal["required", "recorded"] | None = Field(
        default=None,
        description="whether programs must be told of each interface, too; unless given, they need not be on "
        "windows and must be elsewhere",
    )
    deadlines: Deadlines = Deadlines()

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

    def ask(self, effect: Effect) -> Effect:
        """Return the effect of a step as far as it must be seen on this guest."""
        return effect.asking(answers=self.must_answer, told=self._must(self.told))

    @property
    def must_answer(self) -> bool:
        """Whether the guest's ACPI must answer by ``_OST``; no source says that Windows does on a plug."""
        return self._must(self.ost)

    def _must(self, said: Literal["required", "recorded"] | None) -> bool:
        return said == "required" if said else self.system != "windows"

    @property
    def disk_path(self) -> Path | None:
        """The user's disk image; None for a guest without one of its own."""
        return None

    @property
    def link_patterns(self) -> Mapping[str, str]:
        """What a symbolic link must look like, by interface class; none for a guest without a driver."""
        return {}


class SshProfile(Profile):
    """The profile of a guest with an operating system, which is entered over SSH."""

    system: Literal["windows", "linux-wine"]
    image: Image
    firmware: Annotated[Firmware | None, BeforeValidator(_firmware)] = Field(
        default=None, description="seabios, QEMU's own, unless given"
    )
    network_device: Text
    disk_device: Text
    ssh: Ssh
    driver: DriverHome
    driver_log: WindowsPath
    probe: Text
    links: Links
    qemu_args: QemuArgs = Field(
        default=(), description="more arguments for QEMU, for what has no key; such a guest is never forked"
    )

    @property
    def disk_path(self) -> Path | None:
        """The user's disk image, relative to the profile's folder; None for an image built here."""
        return None if self.image.disk is None else self._path(self.image.disk)

    @property
    def driver_path(self) -> Path | None:
        """The user's driver, absolute, or relative to the profile's folder; None for the sample driver."""
        return None if self.driver.file is None else self._path(self.driver.file).absolute()

    @property
    def firmware_path(self) -> Path | None:
        """The firmware's code, relative to the profile's folder; None for SeaBIOS."""
        return None if self.firmware is None else self._path(self.firmware.code)

    @property
    def variables_path(self) -> Path | None:
        """What the firmware's variables begin as, relative to the profile's folder; None if it keeps none."""
        if self.firmware is None or self.firmware.variables is None:
            return None
        return self._path(self.firmware.variables)

    def _path(self, written: str) -> Path:
        # QEMU looks for a disk's backing file beside the overlay, not where the harness was started.
        return (self.source.parent / Path(written).expanduser()).absolute()

    @property
    def link_patterns(self) -> Mapping[str, str]:
        """See :class:`Profile`."""
        return self.links.model_dump()


class QtestProfile(Profile):
    """The profile of a guest without an operating system: the harness answers in its place, by a script."""

    system: Literal["qtest"]
    machine: Annotated[Text, AfterValidator(_q35)] = "q35"
    cpu_model: CpuModel = CpuModel(tcg="qemu64")
    require: Annotated[tuple[Literal["vm", "ospm"], ...], NotEmpty] = ("vm", "ospm")
    acpi: Script = script_field((ACCEPT,))


class _AnySystem(BaseModel):
    system: System


def load_profile(path: Path) -> Profile:
    """Read a guest profile.

    :raise ProfileError: the file cannot be read or is no profile.
    """
    system = load_model(path, _AnySystem, ProfileError).model.system
    loaded = load_model(path, QtestProfile if system == "qtest" else SshProfile, ProfileError)
    loaded.model._source = loaded.source
    return loaded.model


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema of guest profiles, of whatever system."""
    return TypeAdapter(SshProfile | QtestProfile).json_schema()


def find_profile(name: str, *directories: Path) -> Profile:
    """Read the profile of that name from the first of the folders that has one.

    :raise UsageError: there is none of that name.
    :raise ProfileError: it does not load.
    """
    path = profiles_in(*directories).get(name)
    if path is None:
        raise UsageError(unknown_guest(name, *directories))
    return load_profile(path)


def profiles_in(*directories: Path) -> dict[str, Path]:
    """Return the profiles of these folders by name; of two that have the same name, the first one's."""
    found = {path.stem: path for folder in reversed(directories) for path in yaml_files(folder)}
    return dict(sorted(found.items()))


def unknown_guest(name: str, *directories: Path) -> str:
    """Return what to say of a guest that has no profile in any of these folders."""
    known = profiles_in(*directories)
    looked_in = {folder.resolve(): str(folder) for folder in directories}
    return (
        f"unknown guest '{name}'; known: {', '.join(known) or 'none'}{did_you_mean(name, known)};"
        f" looked for in {' and '.join(looked_in.values())}"
    )
