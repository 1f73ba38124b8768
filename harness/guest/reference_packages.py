# SPDX-License-Identifier: MIT
"""The Debian packages that the reference guest is made of: fetched, and of their files those it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from harness.document.units import MIB
from harness.errors import HostError
from harness.guest.buildable import KEYRING, check_buildable
from harness.host.cache import Progress, built_folder, content_key, rebuilt_folder
from harness.host.room import check_room
from harness.host.tools import failure, find_tool

SUITE = "bookworm"
PACKAGES = ("busybox-static", "linux-image-cloud-amd64", "openssh-server", "wine64")

_END_WITHIN_S = 20.0
#: What an image takes in the cache, and unpacking all packages in the temporary folder, both measured.
_IMAGE_BYTES = 300 * MIB
_UNPACKED_BYTES = 2200 * MIB
_OTHER_CACHE = "make room there, or have HIL_CACHE name another folder"


def find_packages(cache: Path, *, recipe: dict[str, bytes], progress: Progress) -> Path:
    """Return the folder of the guest's files from packages, fetched first if the cache does not have it.

    :raise HostError: if a tool or room for the image is missing, or a step fails.
    """
    _check(cache)
    return built_folder(
        _packages_folder(cache, recipe),
        lambda scratch: _unpack_packages(scratch, recipe=recipe, progress=progress),
    )


def refresh_packages(cache: Path, *, progress: Progress) -> None:
    """Fetch the packages anew, for the next image that is built; those in the cache stay if that fails.

    :raise HostError: as :func:`find_packages`.
    """
    _check(cache)
    recipe = recipe_files()
    rebuilt_folder(
        _packages_folder(cache, recipe),
        lambda scratch: _unpack_packages(scratch, recipe=recipe, progress=progress),
    )


def recipe_files() -> dict[str, bytes]:
    """Return what the guest is made by, by name."""
    folder = resources.files("harness.guest") / "reference_guest"
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir(), key=lambda item: item.name)}


def _check(cache: Path) -> None:
    check_buildable()
    check_room(cache, _IMAGE_BYTES, purpose="building the guest's image", remedy=_OTHER_CACHE)


def _packages_folder(cache: Path, recipe: dict[str, bytes]) -> Path:
    key = content_key([SUITE, *PACKAGES, recipe["files.txt"], recipe["make-prefix"]])
    return cache / "packages" / key


def _unpack_packages(tree: Path, *, recipe: dict[str, bytes], progress: Progress) -> None:
    temporary = Path(tempfile.gettempdir())
    check_room(temporary, _UNPACKED_BYTES, purpose="unpacking packages", remedy="TMPDIR names another folder")
    lines = recipe["files.txt"].decode().splitlines()
    listing = "".join(f"./{line}\n" for line in lines if line and not line.startswith("#"))
    fetch = [
        find_tool("mmdebstrap"),
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=extract",
        "--format=tar",
        f"--keyring={KEYRING}",
        f"--include={','.join(PACKAGES)}",
        # The image says what it was made of; "extract" leaves no package database behind.
        '--extract-hook=cd "$1" && mkdir -p etc && ls var/cache/apt/archives/*.deb > etc/hil-packages',
        # It mounts /proc there only if the folder exists, which none of the packages brings; Wine needs it.
        '--setup-hook=mkdir "$1/proc"',
        # As text: root of a user namespace need not be able to read this user's files.
        f"--extract-hook={recipe['make-prefix'].decode()}",
        SUITE,
        "-",
        *filter(None, [os.environ.get("HIL_MIRROR")]),
    ]
    unpack = [find_tool("tar"), "--extract", "--no-same-owner", "--wildcards", f"--directory={tree}"]
    progress("fetching Debian packages", 0.0)
    with _temporary_folder() as own, tempfile.TemporaryFile() as list_file:
        list_file.write(listing.encode())
        list_file.seek(0)
        with (
            _ended(
                subprocess.Popen(
                    fetch,
                    env={**os.environ, "TMPDIR": own},
                    process_group=0,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            ) as fetching,
            _ended(
                subprocess.Popen(
                    [*unpack, f"--files-from=/dev/fd/{list_file.fileno()}"],
                    process_group=0,
                    stdin=fetching.stdout,
                    stderr=subprocess.PIPE,
                    pass_fds=[list_file.fileno()],
                )
            ) as unpacking,
        ):
            words = _follow(fetching, progress)
            _, unpack_words = unpacking.communicate()
    if fetching.returncode != 0:
        # After a hook's own words mmdebstrap repeats the whole hook.
        of_hook = [line for line in words.splitlines() if line.startswith(b"make-prefix: ")]
        raise HostError(failure(fetch[:1], fetching.returncode, b"\n".join(of_hook) or words))
    if unpacking.returncode != 0:
        raise HostError(failure(unpack, unpacking.returncode, unpack_words))


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Give a folder for what mmdebstrap leaves behind when it is ended."""
    with tempfile.TemporaryDirectory(prefix="hil-packages-", ignore_cleanup_errors=True) as folder:
        # Root of a user namespace is somebody else here.
        Path(folder).chmod(0o755)
        yield folder


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Give the process, and end it if the block does not come to its end; it clears up after itself."""
    with process:
        try:
            yield process
        except BaseException:
            # It minds no signal but one to all that it has started.
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(_END_WITHIN_S)
            raise


def _follow(fetching: subprocess.Popen[bytes], progress: Progress) -> bytes:
    """Turn mmdebstrap's messages into progress and return them all."""
    stages = {
        b"I: running apt-get update": 0.05,
        b"I: downloading": 0.1,
        b"I: extracting": 0.3,
        b"I: making the Wine prefix": 0.5,
        b"I: creating tarball": 0.6,
    }
    words = b""
    assert fetching.stderr is not None
    assert fetching.stdout is not None
    # The reader at the other end must be the only one, or its death would not be noticed.
    fetching.stdout.close()
    for line in fetching.stderr:
        words += line
        for stage, fraction in stages.items():
            if line.startswith(stage):
                progress(line.decode(errors="replace").removeprefix("I: ").strip(" .\n"), fraction)
    return words
