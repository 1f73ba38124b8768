# SPDX-License-Identifier: MIT
"""The cache of built things: content keys, one builder at a time, nothing half-valid, nothing removed in use.

Beside each built folder lies its lock, an empty file: held alone by who builds or removes the folder, shared
by those who use it. The lock's time of change is when the folder was last used.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from harness.document.units import GIB, parse_size
from harness.errors import HostError, UsageError

logger = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 20 * GIB
#: How often a folder may vanish between being built and being used before that is no bad luck any more.
_MOST_BUILDS = 5

Progress = Callable[[str, float], None]
"""Told what is being done and how much of it is done, from 0 to 1."""


def no_progress(_what: str, _fraction: float) -> None:
    """Swallow progress; for callers that show none."""


def cache_folder() -> Path:
    """Return where built things are kept: ``HIL_CACHE`` or the user's cache folder, as an absolute path."""
    chosen = os.environ.get("HIL_CACHE")
    # QEMU and make look for what they are given from folders of their own.
    return Path(chosen or platformdirs.user_cache_dir("hil-hotplug")).expanduser().absolute()


def make_folder(folder: Path) -> None:
    """Make a folder of the cache and those above it, unless it is there.

    :raise HostError: it cannot be made, or is something else than a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise _no_folder(folder, err) from err


def cache_limit_bytes() -> int:
    """Return how much images and templates may take on disk: ``HIL_CACHE_LIMIT`` or 20 GiB.

    :raise UsageError: it is set to something that is no size.
    """
    chosen = os.environ.get("HIL_CACHE_LIMIT")
    if not chosen:
        return DEFAULT_LIMIT_BYTES
    try:
        return parse_size(chosen)
    except ValueError as err:
        raise UsageError(f"HIL_CACHE_LIMIT: {err}") from err


def content_key(parts: Iterable[bytes | str]) -> str:
    """Return a short key that changes whenever one of the parts does."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner may read; whoever reads it finds it whole, as it was or as it is now.

    :raise OSError: it cannot be written; it is as it was.
    """
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def lock_of(folder: Path) -> Path:
    """Return the lock of a built folder."""
    return folder.with_name(folder.name + ".lock")


@contextmanager
def locked(lock: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes, alone or shared; the kernel frees it if the holder dies.

    :raise BlockingIOError: somebody else holds it, and this one is not to ``wait``.
    :raise HostError: its folder cannot be made.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    make_folder(lock.parent)
    while True:
        # For reading too: over NFS a shared lock needs that.
        with lock.open("a+") as file:
            fcntl.flock(file, operation)
            # Who removes a folder removes its lock; one that has no name any more keeps nobody out.
            if _is_at(lock, file.fileno()):
                yield
                return


def _no_fault(_folder: Path) -> None:
    return None


def built_folder(
    target: Path, build: Callable[[Path], None], *, find_fault: Callable[[Path], str | None] = _no_fault
) -> Path:
    """Return the target folder, building it first if it is not there or ``find_fault`` says something of it.

    ``build`` fills an empty folder beside the target, which is then renamed: a build that was
    killed leaves nothing under the target's name. Two processes that ask at once build once.
    """
    if not target.is_dir() or find_fault(target) is not None:
        _build(target, build, find_fault)
    return target


def rebuilt_folder(target: Path, build: Callable[[Path], None]) -> None:
    """Build the target folder anew; what is there stays until that has succeeded."""
    with locked(lock_of(target)):
        clear_leftovers(target)
        with _scratch(target) as scratch:
            build(scratch)
            if target.is_dir():
                discard(target)
            scratch.rename(target)


@contextmanager
def built_folder_in_use(
    target: Path, build: Callable[[Path], None], *, find_fault: Callable[[Path], str | None]
) -> Iterator[Path]:
    """Give the target folder as :func:`built_folder` does; nobody removes it before the block ends.

    A folder that ``find_fault`` says something of is built again once nobody uses it, and a warning says so.

    :raise HostError: others remove it again and again before it is used.
    """
    for _ in range(_MOST_BUILDS):
        with locked(lock_of(target), shared=True):
            if target.is_dir() and find_fault(target) is None:
                os.utime(lock_of(target))
                yield target
                return
        _build(target, build, find_fault)
    raise HostError(f"{target} is gone again right after it was built; is HIL_CACHE_LIMIT too small?")


def discard(folder: Path) -> None:
    """Remove a built folder whose lock the caller holds alone; killed meanwhile, it leaves no half of it."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    folder.rename(hidden)
    shutil.rmtree(hidden)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed builds and removals left beside a folder whose lock the caller holds alone."""
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _build(target: Path, build: Callable[[Path], None], find_fault: Callable[[Path], str | None]) -> None:
    with locked(lock_of(target)):
        if target.is_dir():
            fault = find_fault(target)
            if fault is None:
                return
            logger.warning("%s is damaged (%s); building it again", target, fault)
            discard(target)
        clear_leftovers(target)
        with _scratch(target) as scratch:
            build(scratch)
            scratch.rename(target)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as err:
        raise _no_folder(target, err) from err
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _no_folder(folder: Path, error: OSError) -> HostError:
    return HostError(f"{folder}: cannot be made: {error.strerror}; HIL_CACHE names another cache folder")


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
