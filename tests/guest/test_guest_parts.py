# SPDX-License-Identifier: MIT
"""The reference guest's own program that says which of its parts are up, and what is made of its words."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import DriverCrashedError, GuestError
from harness.guest.guest_parts import PARTS, check_parts
from harness.wires.ssh import SshConnection
from tests.guest.sshd_server import start_sshd

SCRIPTS = Path(__file__).parents[2] / "harness" / "guest" / "reference_guest"


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The folder that guest-up leaves its notes in; nothing is noted yet."""
    folder = tmp_path / "parts"
    folder.mkdir()
    return folder


@pytest.fixture
def guest(tmp_path: Path, parts: Path) -> Iterator[SshConnection]:
    """A server with the guest's program, and with those notes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    shutil.copy(SCRIPTS / "guest-parts", programs)
    (programs / "guest-parts").chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HIL_PARTS": str(parts),
        "HIL_PROC": str(parts / "proc"),
    }
    server = start_sshd(tmp_path, environment=environment)
    try:
        with server.connect() as connection:
            yield connection
    finally:
        server.end()


@pytest.fixture
def processes(parts: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A process for each part, all noted as up."""
    running = {part: subprocess.Popen(["cat"], stdin=subprocess.PIPE) for part in PARTS}
    for part, process in running.items():
        (parts / f"{part}.pid").write_text(f"{process.pid}\n")
    (parts / "parts").write_text("".join(f"{part} ok\n" for part in PARTS))
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


def complaint(guest: SshConnection) -> str:
    with pytest.raises(GuestError) as caught:
        check_parts(guest, deadline=soon())
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith("; see serial.log")
    return text.removesuffix("; see serial.log")


@pytest.mark.usefixtures("processes")
def test_of_parts_that_are_up_nothing_is_said(guest: SshConnection) -> None:
    check_parts(guest, deadline=soon())


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("notes", "says"),
    [
        (
            "winepnp ok\nhpfeed failed: hpfeed: version `GLIBC_2.38' not found\n",
            "the guest's ACPI feeder hpfeed did not start: hpfeed: version `GLIBC_2.38' not found",
        ),
        (
            "winepnp ok\nhpfeed failed: [    5.556632] hpfeed: no reply within 60 s\n",
            "the guest's ACPI feeder hpfeed did not start: no reply within 60 s",
        ),
        (
            "winepnp failed: 0024:err:sc:wmain failed to start service 1055\nhpfeed failed: after that\n",
            "the guest's PnP manager winepnp did not start: 0024:err:sc:wmain failed to start service 1055",
        ),
        (
            "winepnp failed: \nhpfeed ok\n",
            "the guest's PnP manager winepnp did not start: it gave no reason",
        ),
        (
            "winepnp ok\n",
            "the guest does not say whether its ACPI feeder hpfeed is up: wineserver ok winepnp ok",
        ),
    ],
)
def test_the_part_that_did_not_come_up_is_named_with_the_guests_reason(
    guest: SshConnection, parts: Path, notes: str, says: str
) -> None:
    (parts / "parts").write_text(f"wineserver ok\n{notes}")
    assert complaint(guest) == says


def test_a_part_that_has_ended_since_is_named_with_its_last_words(
    guest: SshConnection, parts: Path, processes: dict[str, subprocess.Popen[bytes]]
) -> None:
    (parts / "hpfeed.log").write_text("[ 1.5] hpfeed: > system 1\n[ 9.5] hpfeed: the feed has ended\n")
    check_parts(guest, deadline=soon())
    # Not waited for: a process that is still listed has ended all the same.
    processes["hpfeed"].kill()
    processes["hpfeed"].stdin.close()  # type: ignore[union-attr]
    deadline = soon()
    while Path(f"/proc/{processes['hpfeed'].pid}/exe").exists():
        deadline.check("the end of a process")
    assert complaint(guest) == "the guest's ACPI feeder hpfeed has ended: the feed has ended"
    processes["winepnp"].kill()
    processes["winepnp"].wait()
    assert complaint(guest) == "the guest's PnP manager winepnp has ended: it gave no reason"


def test_a_process_that_is_stopped_is_named(
    guest: SshConnection, parts: Path, processes: dict[str, subprocess.Popen[bytes]]
) -> None:
    pid = processes["hpfeed"].pid
    (parts / "proc").mkdir()
    (parts / "proc" / str(pid)).symlink_to(f"/proc/{pid}")
    check_parts(guest, deadline=soon())
    processes["hpfeed"].send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    says = f"a process of the guest does not run: cat (process {pid}) was stopped by a signal"
    assert complaint(guest) == says


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(("state", "says"), [("t", ""), ("D", ""), ("S", ""), ("T", "cat) x (process 7)")])
def test_only_a_signal_stops_a_process_for_good(
    guest: SshConnection, parts: Path, state: str, says: str
) -> None:
    (parts / "proc" / "7").mkdir(parents=True)
    (parts / "proc" / "7" / "stat").write_text(f"7 (cat) x) {state} 1 7 7 0 -1 4194304 91 0\n")
    if not says:
        check_parts(guest, deadline=soon())
        return
    assert complaint(guest) == f"a process of the guest does not run: {says} was stopped by a signal"


@pytest.mark.usefixtures("processes")
def test_a_folder_without_room_for_the_log_is_named(guest: SshConnection, tmp_path: Path) -> None:
    check_parts(guest, log_folder=str(tmp_path), deadline=soon())
    assert not (tmp_path / "room.tmp").exists()
    with pytest.raises(GuestError, match=r"^the guest has no room for the driver's log: dd: .*No such file"):
        check_parts(guest, log_folder=str(tmp_path / "nowhere"), deadline=soon())


def test_a_crash_is_the_drivers_and_only_where_it_ended_the_kernel_mode(
    guest: SshConnection, processes: dict[str, subprocess.Popen[bytes]]
) -> None:
    crash = "Unhandled page fault on read access to 0000000000000000"
    check_parts(guest, crash=crash, deadline=soon())
    processes["winepnp"].kill()
    processes["winepnp"].wait()
    assert complaint(guest) == "the guest's PnP manager winepnp has ended: it gave no reason"
    with pytest.raises(DriverCrashedError, match=f"^{crash}$"):
        check_parts(guest, crash=crash, deadline=soon())


def test_a_part_noted_without_its_process_is_not_up(guest: SshConnection, parts: Path) -> None:
    (parts / "parts").write_text("wineserver ok\nwinepnp ok\nhpfeed ok\n")
    assert complaint(guest).startswith("the guest's Wine server wineserver has ended")


def test_a_guest_that_has_noted_nothing_is_not_ready(guest: SshConnection) -> None:
    assert complaint(guest).startswith("the guest does not say whether its Wine server wineserver is up: ")


def test_a_guest_without_the_program_is_not_ready(ssh: SshConnection) -> None:
    text = complaint(ssh)
    assert text.startswith("the guest does not say whether its Wine server wineserver is up: ")
    assert "guest-parts" in text
