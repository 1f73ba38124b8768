# SPDX-License-Identifier: MIT
"""The folder of a run's results: one run's own, and nothing in it that an earlier run reported."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.errors import BenchError, UsageError
from harness.run.unexpected import ERROR_FILE

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
JUNIT_FILE = "junit.xml"
_REPORTS = (RESULTS_FILE, JUNIT_FILE, ERROR_FILE)
_PLAN_FILE = "plan.yaml"
_TEMPLATE_FOLDER = "template"

#: What is the run's own in its folder, so that no plan's evidence may be called so.
RESERVED = (*_REPORTS, _TEMPLATE_FOLDER)

# What may lie in an evidence folder: a name that is not here shows that the folder is not ours to remove.
_EVIDENCE = {
    *(_PLAN_FILE, "qemu-command.txt", "qmp.jsonl", "serial.log", "qemu-stderr.log"),
    *("qemu-trace.log", "driver.log"),
    *("harness.log", "timeline.jsonl", "verdict.json", "boot.json", _TEMPLATE_FOLDER, ERROR_FILE),
}


@dataclass(frozen=True, slots=True)
class ResultsFolder:
    """A folder that is this process's until it ends; ``lock_fd`` holds the lock."""

    path: Path
    lock_fd: int


def new_results_folder(parent: Path) -> Path:
    """Return a name for a new folder of results, by the time of day; :func:`own_folder` makes it."""
    return parent / datetime.now().strftime("%Y%m%d-%H%M%S")


def own_folder(folder: Path, *, another_name: bool) -> ResultsFolder:
    """Make a folder, keep other runs out of it until this process ends, and remove the reports in it.

    :param another_name: it must be new, and gets a number if somebody else has made it.
    :raise UsageError: it cannot be made or written to, or another run writes to it now.
    """
    try:
        path = _made(folder, another_name=another_name)
        owned = ResultsFolder(path, _locked(path))
    except BlockingIOError as err:
        raise UsageError(f"{folder}: another run writes its results here; name another folder") from err
    except OSError as err:
        raise _no_results(folder, err) from err
    remove_reports(path)
    return owned


def remove_reports(folder: Path) -> None:
    """Remove the reports that an earlier run left in a folder of results, if there is one.

    :raise UsageError: they cannot be removed, or there is something else than a folder.
    """
    try:
        for name in _REPORTS:
            (folder / name).unlink(missing_ok=True)
    except OSError as err:
        raise _no_results(folder, err) from err


def make_evidence_folder(folder: Path, *, replace: bool) -> bool:
    """Make a folder for a plan's evidence and return whether that could be done: not if something is there.

    :param replace: what an earlier run left there as evidence, and nothing else, is removed first.
    :raise BenchError: it cannot be made.
    """
    try:
        if replace and _is_evidence(folder):
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        return False
    except OSError as err:
        raise BenchError(f"{folder}: cannot be made for evidence: {err.strerror}") from err
    return True


def _made(folder: Path, *, another_name: bool) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, wanted = 1, folder
    while True:
        try:
            wanted.mkdir(exist_ok=not another_name)
        except FileExistsError:
            if not another_name:
                raise
            number += 1
            wanted = folder.with_name(f"{folder.name}-{number}")
        else:
            return wanted


def _locked(folder: Path) -> int:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    except OSError as err:
        # Some network file systems have no locks for folders.
        logger.debug("%s cannot be locked: %s", folder, err)
    return fd


def _is_evidence(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (_PLAN_FILE in names and names <= _EVIDENCE)


def _no_results(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder}: no folder for results: {error.strerror}; name another one")
