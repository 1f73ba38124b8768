# SPDX-License-Identifier: MIT
"""Which QEMU runs the guests: the one asked for, after a look whether it is one, or this host's."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import HostError, UsageError
from harness.host.tools import find_tool
from harness.vm.accelerator import DEFAULT_QEMU, find_qemu_version

VARIABLE = "HIL_QEMU"


def chosen_qemu(asked_for: str | None = None, *, option: str = VARIABLE) -> str:
    """Return the QEMU asked for, else that of ``HIL_QEMU``, else this host's: a name on PATH or a full path.

    This host's is not looked at, for who only loads plans does without.

    :param option: what asked for it, to be named in an error.
    :raise UsageError: there is no such program, or it does not say on ``--version`` that it is QEMU.
    """
    if asked_for is None:
        asked_for, option = os.environ.get(VARIABLE) or None, VARIABLE
    if asked_for is None:
        return DEFAULT_QEMU
    # A name stays one: it goes into the keys of templates, and the default is a name.
    program = str(Path(asked_for).absolute()) if os.sep in asked_for else asked_for
    try:
        find_tool(program)
    except HostError as err:
        raise UsageError(f"{option} {asked_for}: no such program") from err
    try:
        find_qemu_version(program)
    except HostError as err:
        raise UsageError(f"{option} {asked_for}: not a QEMU: {err}") from err
    return program
