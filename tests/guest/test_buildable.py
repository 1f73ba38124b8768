# SPDX-License-Identifier: MIT
"""What building the reference guest takes is looked for first: programs, keys and user namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cluster.worker import available_guests
from harness.errors import HostError
from harness.guest import buildable
from harness.guest.buildable import check_buildable
from harness.host.checkout import PROJECT_PROFILES
from harness.host.tools import find_tool

#: Run as root of a user namespace, below which there may be no more.
WITHOUT = """
from pathlib import Path
from harness.errors import HostError
from harness.guest.buildable import check_namespaces
Path("/proc/sys/user/max_user_namespaces").write_text("0")
try:
    check_namespaces()
except HostError as err:
    print(err)
"""


def test_this_host_can(tmp_path: Path) -> None:
    check_buildable()
    assert "reference" in available_guests(PROJECT_PROFILES)


def test_a_missing_program_is_told_and_the_guest_not_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find(name: str) -> str:
        if name == "mmdebstrap":
            raise HostError(f"{name} is not installed on this host")
        return find_tool(name)

    monkeypatch.setattr(buildable, "find_tool", find)
    with pytest.raises(HostError, match="mmdebstrap is not installed"):
        check_buildable()
    # What needs no image is.
    assert list(available_guests(PROJECT_PROFILES)) == ["qtest"]
    assert "the guest reference is not announced: mmdebstrap is not installed" in caplog.text


def test_missing_keys_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildable, "KEYRING", tmp_path / "gone.gpg")
    with pytest.raises(HostError, match=r"gone\.gpg is missing; ./hil installs it"):
        check_buildable()


def test_a_user_without_namespaces_is_told_what_root_can_do() -> None:
    as_root = [find_tool("unshare"), "--user", "--map-root-user"]
    # In a chroot nobody may have one in any case (user_namespaces(7)), and no switch helps.
    may = subprocess.run([*as_root, "true"], capture_output=True, check=False, timeout=60).returncode == 0
    program = WITHOUT if may else WITHOUT.replace('.write_text("0")', "")
    argv = [*(as_root if may else []), sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("this user may have no user namespace, which building the guest takes (")
    assert may is ("sysctl -w user.max_user_namespaces=10000" in done.stdout)
    assert done.stdout.endswith("; or run this as root\n")


@pytest.mark.parametrize(
    ("files", "remedies"),
    [
        ({"kernel/unprivileged_userns_clone": "0"}, ["sysctl -w kernel.unprivileged_userns_clone=1"]),
        ({"kernel/unprivileged_userns_clone": "1"}, []),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "96364"},
            ["sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"],
        ),
        ({"user/max_user_namespaces": "0"}, ["sysctl -w user.max_user_namespaces=10000"]),
        ({}, []),
    ],
)
def test_a_remedy_is_what_this_host_has_a_switch_for(
    tmp_path: Path, files: dict[str, str], remedies: list[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert list(buildable._remedies(tmp_path)) == remedies


@pytest.mark.parametrize(
    ("subuid", "nsswitch", "has"),
    [
        ("somebody:100000:65536\n", "passwd: files\n", False),
        ("{user}:100000:65536\n", "passwd: files\n", True),
        ("{uid}:100000:65536\n", None, True),
        (None, None, False),
        (None, "subid: sss\n", True),
    ],
)
def test_subordinate_ids_are_looked_up(
    tmp_path: Path, subuid: str | None, nsswitch: str | None, has: bool
) -> None:
    if subuid is not None:
        text = subuid.format(user=buildable._user(), uid=os.geteuid())
        (tmp_path / "subuid").write_text(text)
    if nsswitch is not None:
        (tmp_path / "nsswitch.conf").write_text(nsswitch)
    assert buildable._has_more_ids(tmp_path) is has
