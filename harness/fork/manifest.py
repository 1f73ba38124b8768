# SPDX-License-Identifier: MIT
"""A template's manifest: what its files were when it was saved, and whether they still are that.

Before each use it is checked by what costs a millisecond: the manifest, of every file its size and when it
was last changed, and the content of the device state. Memory and disk are compared with what was saved when
they were changed since, when asked for, and before anybody is blamed for what a fork did.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import TemplateDamagedError
from harness.host.hashes import SETTLED_AFTER_S
from harness.vm.shape import VmShape

#: A template's files. Memory in several pieces is in ``ram1`` and so on, too; :data:`VARIABLES` are there for
#: firmware that keeps some.
RAM, STATE, DISK, VARIABLES, MANIFEST = "ram", "state", "disk.qcow2", "variables", "manifest.json"
FORMAT = 3

#: A note in a template that is not to be used again, with the reason.
DAMAGED = "damaged"

_CHUNK_BYTES = 1 << 20


class TemplateManifest(BaseModel):
    """What a template is of, and what its files were when it was saved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    key: str
    guest: str
    shape: VmShape
    accelerator: str
    qemu_version: str
    image_key: str
    driver_sha256: str
    built_at_s: float  #: seconds since 1970 UTC, when the guest was stopped
    size_bytes: dict[str, int]
    digests: dict[str, str]  #: see :func:`digest`
    changed_ns: dict[str, tuple[int, int]]  #: when content and inode of each file were last changed


def digest(path: Path) -> str:
    """Return a hash of a file's content in hexadecimal; holes and zeros cost next to nothing.

    It is BLAKE2b over each 1 MiB chunk that is not all zeros, headed by its number, and over the length.
    """
    hasher = hashlib.blake2b(digest_size=32)
    zeros = bytes(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        for number in _chunks_with_data(file.fileno(), length):
            chunk = os.pread(file.fileno(), _CHUNK_BYTES, number * _CHUNK_BYTES)
            if chunk != zeros[: len(chunk)]:
                hasher.update(number.to_bytes(8, "big"))
                hasher.update(chunk)
    hasher.update(length.to_bytes(8, "big"))
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Files:
    """What the files of a template are, by name; see :class:`TemplateManifest`."""

    size_bytes: dict[str, int]
    digests: dict[str, str]
    changed_ns: dict[str, tuple[int, int]]


def seal(folder: Path, describe: Callable[[Files], TemplateManifest], *, read_only_ram: bool) -> None:
    """Forbid to write to a template just saved, and write its manifest, given what its files are.

    All files in the folder are the template's. The memory stays writable for a QEMU that cannot do without
    (:mod:`harness.vm.qemu_facts`); it maps it privately all the same.
    """
    files = sorted(folder.iterdir())
    for path in files:
        is_ram = path.name.startswith(RAM)
        path.chmod(0o400 if read_only_ram or not is_ram else 0o600)
    manifest = describe(
        Files(
            size_bytes={path.name: path.stat().st_size for path in files},
            digests={path.name: digest(path) for path in files},
            changed_ns={path.name: _changed_ns(path) for path in files},
        )
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, indent=1) + "\n")


def read_manifest(folder: Path) -> TemplateManifest:
    """Return the manifest of a template.

    :raise ValueError: it is missing, damaged or of another format; the text is the reason.
    """
    try:
        manifest = TemplateManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as err:
        raise ValueError(f"{MANIFEST}: {err.strerror}") from err
    except ValidationError as err:
        raise ValueError(f"{MANIFEST} is no manifest of format {FORMAT}") from err
    if manifest.format != FORMAT:
        raise ValueError(f"it is of format {manifest.format}, not {FORMAT}")
    return manifest


def find_fault(folder: Path, *, thorough: bool = False) -> str | None:
    """Return what is wrong with a template, or None.

    Its memory and disk are read if they were changed since they were saved, or for a ``thorough`` look; its
    device state is each time.
    """
    try:
        note = folder / DAMAGED
        if note.exists():
            return note.read_text("utf-8")
        manifest = read_manifest(folder)
    except OSError as err:
        return f"{DAMAGED}: {err.strerror}"
    except ValueError as err:
        return str(err)
    if manifest.key != folder.name:
        return f"it is template {manifest.key}"
    for name in sorted({RAM, STATE, DISK, *manifest.size_bytes}):
        path = folder / name
        try:
            length = path.stat().st_size
            if length != manifest.size_bytes.get(name):
                return f"{name} has {length} bytes, not the {manifest.size_bytes.get(name)} that were saved"
            is_changed = _changed_ns(path) != manifest.changed_ns.get(name)
            # The state is small and goes into every fork whole, so no time of change is trusted with it.
            found = digest(path) if name == STATE else _digest_once(path) if thorough or is_changed else None
            if found not in (None, manifest.digests.get(name)):
                return f"{name} is not what was saved"
        except OSError as err:
            return f"{name}: {err.strerror}"
    return None


def check_template(folder: Path) -> None:
    """Do nothing if a template in use is what was saved, to the last byte; else it is not used again.

    Reads all of it once in the life of this process, and again if it is changed.

    :raise TemplateDamagedError: it is not, or it is gone.
    """
    fault = find_fault(folder, thorough=True)
    if fault is None:
        return
    if folder.is_dir():
        with suppress(OSError):  # a full disk: it is found again then
            (folder / DAMAGED).write_text(fault, "utf-8")
    raise TemplateDamagedError(
        f"template {folder.name}, which the guest was forked from, is damaged ({fault}), so nobody can say"
        " whose fault it is; it is built again when next wanted, so run again"
    )


def _changed_ns(path: Path) -> tuple[int, int]:
    stat = path.stat()
    # The second is for what sets back the first.
    return stat.st_mtime_ns, stat.st_ctime_ns


_Identity = tuple[int, ...]
_digests: dict[Path, tuple[_Identity, str]] = {}
_changing = threading.Lock()


def _digest_once(path: Path) -> str:
    """Return the digest of a file, read again only if it was changed since it was last asked for."""
    stat, now_ns = path.stat(), time.time_ns()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, *_changed_ns(path))
    with _changing:
        known = _digests.get(path)
    if known is not None and known[0] == identity:
        return known[1]
    found = digest(path)
    # What was changed just now may be changed again without its times showing it.
    if now_ns - stat.st_ctime_ns > SETTLED_AFTER_S * 1e9:
        with _changing:
            _digests[path] = identity, found
    return found


def _chunks_with_data(fd: int, length: int) -> Iterator[int]:
    offset = 0
    while offset < length:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: nothing but a hole up to the end
        number = start // _CHUNK_BYTES
        yield number
        offset = (number + 1) * _CHUNK_BYTES
