# SPDX-License-Identifier: MIT
"""What lies in the cache: templates and images, and room for new ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import HostError, ImageError
from harness.fork.manifest import MANIFEST, find_fault, read_manifest
from harness.guest.images import GuestImage, images_folder
from harness.host.cache import built_folder_in_use, clear_leftovers, discard, lock_of, locked

logger = logging.getLogger(__name__)

Kind = Literal["template", "image"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A template or an image in the cache."""

    kind: Kind
    folder: Path
    disk_bytes: int  #: what it takes on disk, less than its files' lengths
    built_at_s: float  #: seconds since 1970 UTC, as is the next
    used_at_s: float
    in_use: bool

    @property
    def key(self) -> str:
        """The name it has on the command line."""
        return self.folder.name


def templates_folder(cache: Path) -> Path:
    """Return where the templates of a cache lie."""
    return cache / "templates"


def template_in_use(target: Path, build: Callable[[Path], None]) -> AbstractContextManager[Path]:
    """Give the template, built first if it is missing or damaged; nobody removes it before the block ends."""
    return built_folder_in_use(target, build, find_fault=find_fault)


@contextmanager
def image_in_use(image: GuestImage, cache: Path) -> Iterator[None]:
    """Keep an image of the cache from being removed before the block ends; a user's own is left alone.

    :raise ImageError: it was removed since it was found.
    """
    folder = image.disk.parent
    cached = folder.parent == images_folder(cache)
    with locked(lock_of(folder), shared=True) if cached else nullcontext():
        if not image.disk.is_file():
            raise ImageError(f"{image.disk} was removed meanwhile; run again")
        if cached:
            os.utime(lock_of(folder))
        yield


def list_stored(cache: Path, kind: Kind) -> list[Stored]:
    """Return the templates or images of a cache, the most recently used first."""
    parent = templates_folder(cache) if kind == "template" else images_folder(cache)
    folders = [path for path in parent.glob("[!.]*") if path.is_dir()]
    return sorted((_stored(kind, path) for path in folders), key=lambda item: -item.used_at_s)


def remove(stored: Stored, cache: Path) -> list[Stored]:
    """Remove a template, or an image with the templates made from it, and return all that was removed.

    :raise HostError: a VM uses it, or something is being built of it; nothing is removed then.
    """
    doomed = [stored]
    if stored.kind == "image":
        # A template is worth nothing without its image.
        doomed += templates_of(stored, cache)
    with ExitStack() as stack:
        for item in doomed:
            try:
                stack.enter_context(locked(lock_of(item.folder), wait=False))
            except BlockingIOError as err:
                raise HostError(
                    f"{item.kind} {item.key} is in use; end the runs that use it, then remove it"
                ) from err
        for item in reversed(doomed):
            if item.folder.is_dir():
                discard(item.folder)
            clear_leftovers(item.folder)
            lock_of(item.folder).unlink()
    return doomed


def templates_of(image: Stored, cache: Path) -> list[Stored]:
    """Return the templates that were made from an image."""
    return [item for item in list_stored(cache, "template") if _is_made_from(item, image)]


def evict(cache: Path, limit_bytes: int) -> list[Stored]:
    """Remove what was not used for longest until the cache is within the limit, and return what was removed.

    Nothing in use is removed, and no image that still has templates.
    """
    _sweep(cache)
    stored = list_stored(cache, "template") + list_stored(cache, "image")
    total_bytes = sum(item.disk_bytes for item in stored)
    removed: list[Stored] = []
    for item in sorted(stored, key=lambda item: (item.used_at_s, item.kind == "image")):
        if total_bytes <= limit_bytes:
            break
        if item.in_use or (item.kind == "image" and templates_of(item, cache)):
            continue
        try:
            remove(item, cache)
        except HostError:
            continue  # taken into use just now
        total_bytes -= item.disk_bytes
        removed.append(item)
        logger.info("removed the %s %s to keep the cache small", item.kind, item.key)
    return removed


def _stored(kind: Kind, folder: Path) -> Stored:
    files = [path.stat() for path in folder.iterdir()]
    manifest, lock = folder / MANIFEST, lock_of(folder)
    built_at_s = (manifest if manifest.exists() else folder).stat().st_mtime
    return Stored(
        kind=kind,
        folder=folder,
        disk_bytes=sum(file.st_blocks * 512 for file in files),
        built_at_s=built_at_s,
        used_at_s=max(built_at_s, lock.stat().st_mtime) if lock.exists() else built_at_s,
        in_use=_is_in_use(folder),
    )


def _is_in_use(folder: Path) -> bool:
    try:
        with locked(lock_of(folder), wait=False):
            return False
    except BlockingIOError:
        return True


def _is_made_from(template: Stored, image: Stored) -> bool:
    try:
        return image.key.endswith(f"-{read_manifest(template.folder).image_key}")
    except ValueError:
        return False


def _sweep(cache: Path) -> None:
    """Remove what killed builds and removals left behind, of whatever nobody has since built anew."""
    for parent in (templates_folder(cache), images_folder(cache)):
        for name in {path.name[1:].rpartition("-")[0] for path in parent.glob(".*-*") if path.is_dir()}:
            try:
                with locked(lock_of(parent / name), wait=False):
                    clear_leftovers(parent / name)
            except BlockingIOError:
                continue  # being built right now
