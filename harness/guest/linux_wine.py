# SPDX-License-Identifier: MIT
"""The reference guest: Linux and Wine, built here, running the very same ``.sys``."""

from __future__ import annotations

from harness.deadline import Deadline
from harness.guest.dialect import Dialect
from harness.guest.guest_parts import CRASH, MISUSE, check_parts
from harness.guest.reference_kernel import imports_lacking
from harness.guest.ssh_kind import SshKind
from harness.wires.ssh import SshConnection


def _check_parts(ssh: SshConnection, *, log: str | None, crash: str | None, deadline: Deadline) -> None:
    # Drives are folders of the root.
    folder = None if log is None else f"/{log.replace(chr(92), '/')}".rpartition("/")[0]
    check_parts(ssh, log_folder=folder, crash=crash, deadline=deadline)


LINUX_WINE = SshKind(
    dialect=Dialect(
        restart=("reboot",),
        power_off=("poweroff",),
        check_parts=_check_parts,
        panic=r"Kernel panic - not syncing: .*",
        crash=CRASH,
        misuse=MISUSE,
    ),
    imports=imports_lacking,
)
