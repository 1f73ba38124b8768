# SPDX-License-Identifier: MIT
"""What a program says about itself, remembered for as long as it is the same file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.host.cache import cache_folder, content_key, write_whole
from harness.host.tools import find_tool, run_tool

SILENT_FOR_S = 60.0

_ELF = b"\x7fELF"

_failures: dict[str, tuple[HostError, Deadline]] = {}


def answer_of(program: str, *arguments: str, deadline: Deadline) -> str:
    """Return what a program prints on standard output, asked for nothing that depends on more than itself.

    Its answer is kept in the cache. A script is asked each time: what it runs may change without it. That it
    does not answer is kept for :data:`SILENT_FOR_S`, so that not every plan has to wait for that.

    :param program: its name on PATH, or its path.
    :raise HostError: it is not installed, fails, or does not answer in time.
    """
    path = Path(find_tool(program)).resolve()
    stat = path.stat()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    key = content_key([os.fspath(path), repr(identity), *arguments])
    kept = cache_folder() / "answers" / f"{key}.txt"
    with suppress(OSError, ValueError):
        return kept.read_text()
    failure = _failures.get(key)
    if failure is not None and not failure[1].expired():
        raise HostError(str(failure[0]))
    try:
        answer = run_tool([find_tool(program), *arguments], deadline=deadline)
    except HostError as err:
        _failures[key] = err, Deadline.after(SILENT_FOR_S)
        raise
    if _is_binary(path):
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, answer)
    return answer


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF
