# SPDX-License-Identifier: MIT
"""Ask for a built folder, as a process of its own: run by test_cache.py.

Its build writes half of the content, says ``building``, waits for a line on stdin and writes the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.host.cache import built_folder


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def build(scratch: Path) -> None:
    (scratch / "first").write_text("half")
    say("building")
    sys.stdin.readline()
    (scratch / "second").write_text("half")


say("asking")
folder = built_folder(Path(sys.argv[1]), build)
say(" ".join(sorted(path.name for path in folder.iterdir())))
