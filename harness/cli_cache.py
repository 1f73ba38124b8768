# SPDX-License-Identifier: MIT
"""The commands on the cache: ``hil image list|remove|build`` and ``hil template list|remove``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cache import cache_folder
from harness.errors import ImageError, UsageError
from harness.guest_binaries import build_guest_binaries
from harness.images import find_image
from harness.plan import VmShape
from harness.profile import find_profile
from harness.session import PROJECT_PROFILES
from harness.template_store import Kind, Stored, find_fault, list_stored, read_manifest, remove, templates_of
from harness.units import GIB, MIB, did_you_mean, format_size

images = typer.Typer(no_args_is_help=True, help="Guest images in the cache.")
templates = typer.Typer(no_args_is_help=True, help="Booted guests in the cache, ready to be forked.")

_Keys = Annotated[list[str] | None, typer.Argument(help="Keys as listed, or their beginnings.")]
_All = Annotated[bool, typer.Option("--all", help="Remove all of them.")]


def add_commands(app: typer.Typer) -> None:
    """Add ``image`` and ``template`` to a command line."""
    app.add_typer(images, name="image")
    app.add_typer(templates, name="template")


@images.command("list")
def list_images() -> None:
    """List the images that were built here."""
    cache = cache_folder()
    rows = [
        [item.key, str(len(templates_of(item, cache))), *_times_and_size(item)]
        for item in list_stored(cache, "image")
    ]
    _print_table(["image", "templates", "age", "last use", "on disk", ""], rows, where=cache)


@images.command("remove")
def remove_images(keys: _Keys = None, every: _All = False) -> None:
    """Remove images and the templates made from them; refuses what is in use."""
    _remove("image", keys, every=every)


@images.command("build")
def build_image(
    guest: Annotated[str, typer.Option("--guest", help="The guest profile of the project.")] = "reference",
    profiles: Annotated[Path, typer.Option(help="Folder of guest profiles.")] = PROJECT_PROFILES,
) -> None:
    """Build a guest's image unless the cache has it, check it, and say where it is."""
    said = ""

    def progress(what: str, _fraction: float) -> None:
        nonlocal said
        if what != said:
            said = what
            typer.echo(f"hil: {what}", err=True)

    profile = find_profile(guest, profiles)
    progress("building the driver and the probe", 0.0)
    image = find_image(profile, binaries=build_guest_binaries(), cache=cache_folder(), progress=progress)
    typer.echo(f"{image.key}  {image.disk}")


@templates.command("list")
def list_templates(
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare memory and disk with what was saved, too.")
    ] = False,
) -> None:
    """List the templates; exit status 3 if --verify finds a damaged one."""
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


@templates.command("remove")
def remove_templates(keys: _Keys = None, every: _All = False) -> None:
    """Remove templates; refuses what is in use."""
    _remove("template", keys, every=every)


def _remove(kind: Kind, keys: Sequence[str] | None, *, every: bool) -> None:
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
