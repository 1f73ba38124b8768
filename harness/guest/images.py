# SPDX-License-Identifier: MIT
"""Guest images: where they lie, what belongs to one, and that one is whole before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import HostError, ImageError
from harness.guest.binaries import GuestBinaries
from harness.guest.buildable import check_buildable
from harness.guest.profile import SshProfile
from harness.guest.reference_image import KERNEL_APPEND, build_reference_image, recipe_key
from harness.host.cache import Progress, built_folder, content_key, file_hash, no_progress
from harness.host.hashes import RememberedHashes
from harness.vm.image_format import ImageFormat, image_format

MANIFEST_FORMAT = 1
_DISK, _KERNEL, _INITRD = "disk.img", "vmlinuz", "initrd.img"
_HASHES = "hashes.json"


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    key: str
    append: str
    packages: tuple[str, ...]
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A disk that boots into a guest with sshd, and what is needed to boot and enter it.

    :ivar key: changes with the image's content; templates and reports name it.
    :ivar kernel: booted directly when given, with ``initrd`` and ``append``.
    :ivar host_key: the guest's public SSH key, pinned.
    """

    key: str
    disk: Path
    disk_format: ImageFormat
    kernel: Path | None
    initrd: Path | None
    append: str
    user_key: Path
    host_key: str


def images_folder(cache: Path) -> Path:
    """Return where the images built here lie."""
    return cache / "images"


def find_image(
    profile: SshProfile, *, binaries: GuestBinaries, cache: Path, progress: Progress = no_progress
) -> GuestImage:
    """Return the profile's image, built first if it is one that the project builds.

    :raise ImageError: the image is missing, damaged or of another version, or the firmware is missing.
    :raise HostError: building it failed.
    """
    for missing in missing_files(profile):
        raise ImageError(missing)
    if profile.image.build == "reference":
        key = recipe_key(binaries)
        folder = built_folder(
            images_folder(cache) / f"reference-{key}",
            lambda scratch: _build(scratch, key=key, binaries=binaries, cache=cache, progress=progress),
            find_fault=lambda folder: _fault(folder, key=key),
        )
        return load_reference_image(folder, key=key)
    return _own_image(profile)


def load_reference_image(folder: Path, *, key: str) -> GuestImage:
    """Return the built image in the folder after checking that it is whole and the one asked for.

    :raise ImageError: when it is not.
    """
    try:
        manifest = _Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except OSError as err:
        raise ImageError(f"{folder} holds no guest image: {err.strerror}") from err
    except ValidationError as err:
        raise ImageError(f"{folder}/manifest.json is damaged") from err
    if manifest.format != MANIFEST_FORMAT or manifest.key != key:
        raise ImageError(
            f"{folder} is image {manifest.key} of format {manifest.format},"
            f" wanted {key} of format {MANIFEST_FORMAT}"
        )
    hashes = RememberedHashes(folder / _HASHES)
    for name, wanted in manifest.sha256.items():
        path = folder / name
        if not path.is_file():
            raise ImageError(f"{path} is missing")
        if hashes.hash_of(path) != wanted:
            raise ImageError(f"{path} is not what was built (its SHA-256 differs)")
    hashes.keep()
    return GuestImage(
        key=key,
        disk=folder / _DISK,
        disk_format="raw",
        kernel=folder / _KERNEL,
        initrd=folder / _INITRD,
        append=manifest.append,
        user_key=folder / "user_key",
        host_key=(folder / "host_key.pub").read_text().strip(),
    )


def _fault(folder: Path, *, key: str) -> str | None:
    try:
        load_reference_image(folder, key=key)
    except ImageError as err:
        return str(err)
    return None


def _build(scratch: Path, *, key: str, binaries: GuestBinaries, cache: Path, progress: Progress) -> None:
    packages = build_reference_image(scratch, binaries=binaries, cache=cache, progress=progress)
    manifest = _Manifest(
        format=MANIFEST_FORMAT,
        key=key,
        append=KERNEL_APPEND,
        packages=packages,
        sha256={
            path.name: file_hash(path) for path in sorted(scratch.iterdir()) if path.name != "manifest.json"
        },
    )
    (scratch / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n")


def _own_image(profile: SshProfile) -> GuestImage:
    disk = profile.disk_path
    assert disk is not None
    user_key, host_key = _keys_of(disk)
    stat = disk.stat()
    return GuestImage(
        # Hashing tens of gigabytes before every run would cost more than the run.
        key=content_key([str(disk.resolve()), repr((stat.st_size, stat.st_mtime_ns))]),
        disk=disk,
        disk_format=image_format(disk),
        kernel=None,
        initrd=None,
        append="",
        user_key=user_key,
        host_key=_text_of(host_key),
    )


def why_not_available(profile: SshProfile) -> str | None:
    """Return why this host has not, and cannot build, what the guest is made of; None if it can."""
    try:
        if profile.image.build is not None:
            check_buildable()
    except HostError as err:
        return str(err)
    return next(missing_files(profile), None)


def missing_files(profile: SshProfile) -> Iterator[str]:
    """Yield what is not there of the image and the firmware that the profile names, each as a sentence."""
    disk = profile.disk_path
    if disk is not None and not disk.is_file():
        yield f"the guest {profile.name} needs the disk image {disk}, which is not there"
    if disk is not None:
        purposes = "the private SSH key of its user", "its public SSH host key"
        for path, purpose in zip(_keys_of(disk), purposes, strict=True):
            if not path.is_file():
                yield f"{disk} needs {purpose} beside it, in {path.name}"
    for file, what in ((profile.firmware_path, "firmware"), (profile.variables_path, "firmware's variables")):
        if file is not None and not file.is_file():
            yield f"the guest {profile.name} needs the {what} {file}, which is not there"


def _keys_of(disk: Path) -> tuple[Path, Path]:
    return disk.with_suffix(".user_key"), disk.with_suffix(".host_key.pub")


def _text_of(host_key: Path) -> str:
    try:
        return host_key.read_text("utf-8").strip()
    except OSError as err:
        raise ImageError(f"{host_key} cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ImageError(f"{host_key} is no public SSH key: write it again as UTF-8 text") from err
