# SPDX-License-Identifier: MIT
"""Whether this host has what building the reference guest takes, told before minutes are spent on it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.host.tools import find_tool, run_tool

#: Debian package debian-archive-keyring; the apt of a host that is not Debian does not trust its keys.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_PROGRAMS = ("mmdebstrap", "tar", "cpio", "mkfs.ext4", "ssh-keygen", "make", "gcc", "x86_64-w64-mingw32-gcc")
_TRY_WITHIN_S = 10.0
#: What keeps a user from namespaces, and as what it does not: Debian's own, and Ubuntu's.
_SWITCHES = {
    "kernel/unprivileged_userns_clone": "1",
    "kernel/apparmor_restrict_unprivileged_userns": "0",
}
#: See namespaces(7).
_MOST = "user/max_user_namespaces"


def check_buildable() -> None:
    """Do nothing if the reference guest can be built here, as far as that can be seen beforehand.

    :raise HostError: a program, Debian's keys or, for another user than root, user namespaces are missing.
    """
    for program in _PROGRAMS:
        find_tool(program)
    if not KEYRING.is_file():
        raise HostError(f"{KEYRING} is missing; ./hil installs it (Debian package debian-archive-keyring)")
    if os.geteuid() != 0:
        check_namespaces()


def check_namespaces() -> None:
    """Do nothing if this user may be root in a user namespace of its own.

    :raise HostError: it may not, with what root could do about that.
    """
    try:
        run_tool([find_tool("unshare"), "--map-root-user", "true"], deadline=Deadline.after(_TRY_WITHIN_S))
    except HostError as err:
        remedies = " and ".join(_remedies(Path("/proc/sys"))) or "allow them, as a container's settings can"
        raise HostError(
            f"this user may have no user namespace, which building the guest takes"
            f" ({str(err).rpartition(': ')[2]}); as root: {remedies}; or run this as root"
        ) from err
    if not _has_more_ids(Path("/etc")):
        user = _user()
        raise HostError(
            f"{user} has no subordinate user ids in /etc/subuid, which building the guest takes; as root:"
            f" usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}; or run this as root"
        )


def _remedies(sysctls: Path) -> Iterator[str]:
    for name, wanted in _SWITCHES.items():
        with suppress(OSError):
            if (sysctls / name).read_text().strip() != wanted:
                yield f"sysctl -w {name.replace('/', '.')}={wanted}"
    with suppress(OSError):
        if (sysctls / _MOST).read_text().strip() == "0":
            yield f"sysctl -w {_MOST.replace('/', '.')}=10000"


def _has_more_ids(etc: Path) -> bool:
    """Say whether this user has subordinate ids, or they are kept where this cannot look; subuid(5)."""
    with suppress(OSError):
        if any(line.startswith("subid:") for line in (etc / "nsswitch.conf").read_text().splitlines()):
            return True
    try:
        lines = (etc / "subuid").read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in (_user(), str(os.geteuid())) for line in lines)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a number that nobody is
        return str(os.geteuid())
