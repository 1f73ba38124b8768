# SPDX-License-Identifier: MIT
"""What the commands on the cache do: list, build and remove images and templates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer

from harness.cli.progress import showing_progress
from harness.document.units import GIB, MIB, did_you_mean, format_size
from harness.errors import ImageError, UsageError
from harness.fork.manifest import find_fault, read_manifest
from harness.fork.store import Kind, Stored, list_stored, remove, templates_of
from harness.guest.binaries import build_guest_binaries
from harness.guest.kinds import kind_of
from harness.guest.profile import Profile, SshProfile, find_profile
from harness.guest.reference_image import recipe_key
from harness.guest.reference_packages import refresh_packages
from harness.host.cache import cache_folder
from harness.host.checkout import PROJECT_PROFILES
from harness.vm.shape import VmShape


def print_images() -> None:
    """Print a table of the images that were built here."""
    cache = cache_folder()
    rows = [
        [item.key, str(len(templates_of(item, cache))), *_times_and_size(item)]
        for item in list_stored(cache, "image")
    ]
    _print_table(["image", "templates", "age", "last use", "on disk", ""], rows, where=cache)


def build_image(guest: str, profiles: Path | None, *, refresh: bool) -> None:
    """Build a guest's image unless the cache has it, check it, and print its key and disk.

    :param refresh: build it of the packages there are today, though the cache has it.
    :raise HostError: it is to be built anew, and in use.
    """
    with showing_progress() as progress:
        profile = find_profile(guest, *([profiles] if profiles else []), PROJECT_PROFILES)
        if refresh:
            _forget(profile)
            refresh_packages(cache_folder(), progress=progress)
        image = kind_of(profile).image(profile, cache=cache_folder(), progress=progress)
    typer.echo(f"{image.key}  {image.disk}")


def _forget(profile: Profile) -> None:
    if not isinstance(profile, SshProfile) or profile.image.build is None:
        raise UsageError(f"the guest {profile.name} has no image that is built here")
    key = f"{profile.image.build}-{recipe_key(build_guest_binaries())}"
    cache = cache_folder()
    for item in list_stored(cache, "image"):
        if item.key == key:
            remove(item, cache)


def print_templates(*, verify: bool) -> None:
    """Print a table of the templates, their memory and disk compared with what was saved if so asked.

    :raise ImageError: after the table, when one of them was compared and is damaged.
    """
    cache = cache_folder()
    rows, damaged = [], 0
    for item in list_stored(cache, "template"):
        fault = find_fault(item.folder, thorough=verify)
        damaged += fault is not None
        rows.append([item.key, *_content(item), *_times_and_size(item, fault=fault)])
    head = ["template", "guest", "vCPUs", "memory", "DIMMs", "runs on", "age", "last use", "on disk", ""]
    _print_table(head, rows, where=cache)
    if verify and damaged:
        raise ImageError(f"{damaged} of {len(rows)} templates damaged; hil template remove takes them away")


def remove_stored(kind: Kind, keys: Sequence[str] | None, *, every: bool) -> None:
    """Remove what the keys name, or every one, and say so.

    :raise UsageError: a key names none or several; nothing is removed for it.
    :raise HostError: it is in use.
    """
    if bool(keys) == every:
        raise UsageError(f"hil {kind} remove: name {kind}s by their keys, or say --all")
    cache = cache_folder()
    stored = list_stored(cache, kind)
    for item in stored if every else [_find(key, kind, stored) for key in keys or ()]:
        for removed in remove(item, cache):
            typer.echo(f"removed {removed.kind} {removed.key}, {_rounded(removed.disk_bytes)}")


def _find(key: str, kind: Kind, stored: Sequence[Stored]) -> Stored:
    # The name of the guest before an image's key need not be typed.
    found = [item for item in stored if item.key.startswith(key) or item.key.endswith(f"-{key}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{key}: begins {len(found)} {kind}s; give more of the key")
    hint = did_you_mean(key, [item.key for item in stored])
    raise UsageError(f"{key}: no such {kind}{hint}; hil {kind} list shows them")


def _content(item: Stored) -> list[str]:
    try:
        manifest = read_manifest(item.folder)
    except ValueError:
        return ["?", "?", "?", "?", "?"]
    return [manifest.guest, *_shape(manifest.shape), f"QEMU {manifest.qemu_version} {manifest.accelerator}"]


def _shape(shape: VmShape) -> list[str]:
    dimms = f"{shape.slots} up to {format_size(shape.max_memory_bytes)}" if shape.slots else "none"
    return [f"{shape.vcpus} of {shape.max_vcpus}", format_size(shape.memory_bytes), dimms]


def _times_and_size(item: Stored, *, fault: str | None = None) -> list[str]:
    now_s = time.time()
    state = "in use" if item.in_use else ""
    return [
        _age(now_s - item.built_at_s),
        _age(now_s - item.used_at_s),
        _rounded(item.disk_bytes),
        state if fault is None else f"damaged: {fault}",
    ]


def _age(seconds: float) -> str:
    for unit, unit_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _rounded(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"


def _print_table(head: list[str], rows: list[list[str]], *, where: Path) -> None:
    if not rows:
        typer.echo(f"no {head[0]}s in {where}")
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
