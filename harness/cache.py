# SPDX-License-Identifier: MIT
"""The cache of built things: content keys, one builder at a time, nothing half-valid."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

Progress = Callable[[str, float], None]
"""Told what is being done and how much of it is done, from 0 to 1."""


def no_progress(_what: str, _fraction: float) -> None:
    """Swallow progress; for callers that show none."""


def cache_folder() -> Path:
    """Return where built things are kept: ``HIL_CACHE`` or the user's cache folder."""
    chosen = os.environ.get("HIL_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("hil-hotplug"))


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


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel frees it if the holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def built_folder(target: Path, build: Callable[[Path], None]) -> Path:
    """Return the target folder, building it first if it is not there.

    ``build`` fills an empty folder beside the target, which is then renamed: a build that was
    killed leaves nothing under the target's name. Two processes that ask at once build once.
    """
    if target.is_dir():
        return target
    with locked(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        for leftover in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            build(scratch)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target
