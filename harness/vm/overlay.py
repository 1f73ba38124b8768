# SPDX-License-Identifier: MIT
"""Make the overlay a VM writes its disk changes to: a file that never has a name.

QEMU's own ``snapshot=on`` names its overlay for some milliseconds while it starts, and a QEMU killed just
then leaves it behind.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, ImageError
from harness.host.tools import find_tool
from harness.vm.argv import Disk

logger = logging.getLogger(__name__)


def overlay_of(disk: Disk | None, *, folder: Path, deadline: Deadline) -> AbstractContextManager[int | None]:
    """Give the overlay that a disk with ``snapshot`` needs, and None for any other."""
    if disk is None or not disk.snapshot:
        return nullcontext()
    return nameless_overlay(disk.path, disk.format, folder=folder, deadline=deadline)


@contextmanager
def nameless_overlay(disk: Path, disk_format: str, *, folder: Path, deadline: Deadline) -> Iterator[int]:
    """Give the file descriptor of an empty qcow2 overlay over a disk, in the folder's file system.

    The overlay lives as long as a process has it open.

    :raise ImageError: if the disk is missing or no image of that format.
    """
    fd = _nameless_file(folder)
    try:
        target = f"/proc/self/fd/{fd}"
        command = [
            find_tool("qemu-img"), "create", "-q",
            "-f", "qcow2", "-F", disk_format, "-b", os.fspath(disk.absolute()),
            target,
        ]  # fmt: skip
        try:
            done = _run(command, fd=fd, deadline=deadline)
        except subprocess.TimeoutExpired as err:
            raise DeadlineExpiredError(f"qemu-img did not make an overlay over {disk} in time") from err
        if done.returncode != 0:
            words = " | ".join(done.stderr.decode(errors="replace").split("\n")).strip(" |")
            raise ImageError(f"{disk} is no usable {disk_format} image: {words}")
        yield fd
    finally:
        os.close(fd)


def _run(command: list[str], *, fd: int, deadline: Deadline) -> subprocess.CompletedProcess[bytes]:
    """Run a program that writes to the file descriptor."""
    try:
        return _run_once(command, fd=fd, deadline=deadline)
    except OSError as err:
        # Linux 6.18 said so of words that were as good as ever. Nothing was run, so nothing is done twice.
        if err.errno != errno.EFAULT:
            raise
        logger.warning("the host's kernel did not start %s: %s; it is asked once more", command[0], err)
        return _run_once(command, fd=fd, deadline=deadline)


def _run_once(command: list[str], *, fd: int, deadline: Deadline) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=[fd],
        timeout=deadline.remaining_s(),
        check=False,
    )


def _nameless_file(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):
        # Not every file system can: some stacked ones and network ones.
        fd, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        return fd
