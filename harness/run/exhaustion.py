# SPDX-License-Identifier: MIT
"""What a host has run out of, by name: a full file system and its like are nothing that nobody foresaw."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.document.units import MIB
from harness.host.cache import cache_folder

#: A file system with less than this left is taken for the one that is full.
_FULL_BYTES = MIB


def exhausted(error: BaseException, *, folder: Path | None) -> str | None:
    """Return what the host has too little of and what to do, if that is what the error says.

    :param folder: where the results or the evidence go.
    """
    if isinstance(error, MemoryError):
        return "this process got no more memory; see ulimit -v and the limits of its control group"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "this process may start no more threads; see ulimit -u, and pids.max of its control group"
    if not isinstance(error, OSError):
        return None
    match error.errno:
        case errno.ENOSPC:
            return f"no space is left{_where(error, folder)}; make room there, or name another place"
        case errno.EDQUOT:
            return f"the disk quota is used up{_where(error, folder)}; make room there, or name another place"
        case errno.EFBIG:
            return f"a file may not become any larger{_where(error, folder)}; see ulimit -f"
        case errno.EROFS:
            return f"the file system is read-only{_where(error, folder)}"
        case errno.EMFILE:
            most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"this process has as many open files as it may, {most}; see ulimit -n"
        case errno.ENFILE:
            return "this host has as many open files as it may; see fs.file-max, sysctl(8)"
        case errno.ENOMEM:
            return "this host has no memory left; run fewer plans at once"
        case errno.EAGAIN:
            return "this user may start no more processes; see ulimit -u, and pids.max of its control group"
    return None


def _where(error: OSError, folder: Path | None) -> str:
    if error.filename is not None:
        return f" for {os.fsdecode(error.filename)}"
    full = next(_full(folder), None)
    return "" if full is None else f" in {full}"


def _full(folder: Path | None) -> Iterator[Path]:
    for place in (folder, cache_folder(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            if place is not None and shutil.disk_usage(place).free < _FULL_BYTES:
                yield place
