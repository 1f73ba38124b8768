# SPDX-License-Identifier: MIT
"""Hashes of large files, remembered for as long as nothing says that the file is another or has changed.

A file is hashed in full again when its device, inode, size, time of change or time of status change is not
what it was, and when the host has been restarted. Who writes to a file changes these, and the last of them
cannot be set by hand (inode(7)); damage below the file system shows after a restart at the latest.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.host.cache import file_hash, write_whole

#: A file changed so short before it was hashed may change again without its times showing it: kernels count
#: them in steps of up to 10 ms, some network file systems in seconds.
SETTLED_AFTER_S = 2.5


class RememberedHashes:
    """Hashes of files, kept in a small file of their owner's; when that is missing or damaged, it costs time.

    :param memory: where they are kept.
    :param settled_after_s: how long before it is hashed a file must have changed last to be remembered.
    """

    def __init__(self, memory: Path, *, settled_after_s: float = SETTLED_AFTER_S) -> None:
        self._memory = memory
        self._settled_after_ns = settled_after_s * 1e9
        self._known = _read(memory)
        self._now: dict[str, Any] = {}

    def hash_of(self, path: Path) -> str:
        """Return the SHA-256 of a file in hexadecimal, as :func:`harness.host.cache.file_hash` does."""
        name, identity = os.fspath(path.absolute()), _identity(path)
        known = self._known.get(name)
        if isinstance(known, dict) and known.get("identity") == identity:
            found = str(known.get("sha256"))
        else:
            began_ns = time.time_ns()
            found = file_hash(path)
            if began_ns - path.stat().st_ctime_ns < self._settled_after_ns or _identity(path) != identity:
                return found
        self._now[name] = {"identity": identity, "sha256": found}
        return found

    def keep(self) -> None:
        """Write down the hashes asked for, and no others; where that cannot be, they are not remembered."""
        if self._now == self._known:
            return
        # The cache may be one that others made and that is only read here.
        with suppress(OSError):
            write_whole(self._memory, json.dumps(self._now, indent=1) + "\n")


def _identity(path: Path) -> list[object]:
    stat = path.stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot_id, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(memory: Path) -> dict[str, Any]:
    try:
        found = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
