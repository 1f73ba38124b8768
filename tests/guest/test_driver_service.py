# SPDX-License-Identifier: MIT
"""The real driver, installed, configured, started and stopped over SSH with Wine's own sc.exe and reg.exe."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExpiredError, GuestCommandError, GuestError
from harness.guest.driver_log_tail import DriverLogTail
from harness.guest.driver_service import DriverService, ServiceState
from harness.guest.profile import Profile, load_profile
from harness.wires.ssh import SshConnection
from tests.guest.sshd_server import start_sshd
from tests.guest.wine_guest import WineGuest, connect, start_wine_sshd

Interfaces = Literal["both", "processor", "memory"]
# A value as reg.exe prints it.
VALUE = re.compile(r"^ {4}(\S.*?) {4}(REG_\w+) {4}(.*?)\r?$", re.MULTILINE)
PROFILE = Path(__file__).parents[2] / "testplans" / "guests" / "reference.yaml"


def soon() -> Deadline:
    return Deadline.after(60)


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(PROFILE)


@pytest.fixture(scope="session")
def image(build_dir: Path) -> bytes:
    return (build_dir / "hpnotify.sys").read_bytes()


@pytest.fixture
def service(wine_guest: WineGuest, profile: Profile) -> Iterator[DriverService]:
    """The driver's service, not installed before and after a test."""
    service = DriverService(wine_guest, profile)
    service.uninstall(deadline=soon())
    log = wine_guest.wine.host_path(profile.driver_log)
    log.unlink(missing_ok=True)
    yield service
    service.uninstall(deadline=soon())


def test_the_life_of_a_driver(
    service: DriverService, wine_guest: WineGuest, profile: Profile, image: bytes
) -> None:
    tail = DriverLogTail(wine_guest, profile.driver_log)

    def words() -> list[str]:
        return [seen.record.word for seen in tail.poll(deadline=soon())]

    assert service.state(deadline=soon()) is ServiceState.ABSENT
    service.install(image, deadline=soon())
    assert service.state(deadline=soon()) is ServiceState.STOPPED
    assert words() == []
    for _ in range(2):
        service.start(deadline=soon())
        assert service.state(deadline=soon()) is ServiceState.RUNNING
        service.stop(deadline=soon())
        assert service.state(deadline=soon()) is ServiceState.STOPPED
        assert words() == ["load", "baseline", "unload"]


@pytest.mark.parametrize(
    ("interfaces", "synchronous", "existing"),
    [("processor", False, True), ("memory", True, False), ("both", True, True), ("both", False, False)],
)
def test_the_driver_does_as_configured(
    service: DriverService,
    wine_guest: WineGuest,
    profile: Profile,
    image: bytes,
    interfaces: Interfaces,
    synchronous: bool,
    existing: bool,
) -> None:
    service.install(image, deadline=soon())
    service.configure(interfaces=interfaces, synchronous=synchronous, existing=existing, deadline=soon())
    service.start(deadline=soon())
    service.stop(deadline=soon())
    load = DriverLogTail(wine_guest, profile.driver_log).poll(deadline=soon())[0].record
    said = [load.fields[key] for key in ("interfaces", "synchronous", "existing")]
    assert said == [interfaces, str(int(synchronous)), str(int(existing))]


def test_the_log_goes_where_the_profile_says(wine_guest: WineGuest, profile: Profile, image: bytes) -> None:
    elsewhere = profile.model_copy(update={"driver_log": r"C:\hil\other folder\other.log"})
    service = DriverService(wine_guest, elsewhere)
    try:
        service.install(image, deadline=soon())
        service.configure(interfaces="both", synchronous=False, deadline=soon())
        service.start(deadline=soon())
    finally:
        service.uninstall(deadline=soon())
    tail = DriverLogTail(wine_guest, elsewhere.driver_log)
    assert [seen.record.word for seen in tail.poll(deadline=soon())] == ["load", "baseline", "unload"]


def test_what_the_profile_has_for_the_driver_is_in_the_registry(
    wine_guest: WineGuest, profile: Profile, image: bytes
) -> None:
    values = {"Level": 0xFFFFFFFF, "Zero": 0, "Two words": r'C:\a "quoted" path', "Empty": ""}
    home = profile.driver.model_copy(update={"service": "mine", "parameters": values})
    service = DriverService(wine_guest, profile.model_copy(update={"driver": home}))
    try:
        service.install(image, deadline=soon())
        service.configure(interfaces="processor", synchronous=False, deadline=soon())
        key = r"HKLM\SYSTEM\CurrentControlSet\Services\mine\Parameters"
        said = wine_guest.run(["reg.exe", "query", key], deadline=soon()).check().text
        # The driver starts with them there.
        service.start(deadline=soon())
    finally:
        service.uninstall(deadline=soon())
    found = {name: (kind, value) for name, kind, value in VALUE.findall(said)}
    assert found == {
        "Interfaces": ("REG_DWORD", "0x1"),
        "Synchronous": ("REG_DWORD", "0x0"),
        "IncludeExisting": ("REG_DWORD", "0x0"),
        "LogPath": ("REG_SZ", rf"\??\{profile.driver_log}"),
        "Level": ("REG_DWORD", "0xffffffff"),
        "Zero": ("REG_DWORD", "0x0"),
        "Two words": ("REG_SZ", r'C:\a "quoted" path'),
        "Empty": ("REG_SZ", ""),
    }


def test_a_running_driver_is_replaced(service: DriverService, image: bytes) -> None:
    service.install(image, deadline=soon())
    service.start(deadline=soon())
    service.install(image, deadline=soon())
    assert service.state(deadline=soon()) is ServiceState.STOPPED


def test_a_driver_that_runs_already_is_not_started_again(service: DriverService, image: bytes) -> None:
    service.install(image, deadline=soon())
    service.start(deadline=soon())
    with pytest.raises(
        GuestCommandError, match=r"sc\.exe start hpnotify failed .*running already \(error 1056\)"
    ):
        service.start(deadline=soon())


def test_a_stopped_driver_cannot_be_stopped(service: DriverService, image: bytes) -> None:
    service.install(image, deadline=soon())
    with pytest.raises(GuestCommandError, match=r"not running \(error 1062\)"):
        service.stop(deadline=soon())


def test_a_driver_that_is_not_installed_cannot_be_started(service: DriverService) -> None:
    with pytest.raises(GuestCommandError, match=r"not installed \(error 1060\)"):
        service.start(deadline=soon())


def test_a_file_that_is_no_driver_does_not_start(service: DriverService) -> None:
    service.install(b"not a driver", deadline=soon())
    with pytest.raises(GuestCommandError, match=r"sc\.exe start hpnotify failed in the guest: .*error \d+"):
        service.start(deadline=soon())


def test_a_guest_that_cannot_start_sc_exe_says_nothing_of_the_driver(
    wine_guest: WineGuest, profile: Profile, tmp_path: Path
) -> None:
    server = start_wine_sshd(tmp_path, wine_guest.wine, programs={"sc.exe": "nosuch.exe"})
    try:
        with connect(server, wine_guest.wine) as guest:
            service = DriverService(guest, profile)
            for act in (service.start, service.stop, service.state):
                with pytest.raises(GuestError, match=r"did not start sc\.exe .*: File not found") as caught:
                    act(deadline=soon())
                assert not isinstance(caught.value, GuestCommandError)
    finally:
        server.end()


@pytest.mark.parametrize("starts", [2, 3, 4])
def test_what_wine_does_not_start_at_once_is_started_again_and_that_is_told(
    tmp_path: Path, profile: Profile, starts: int, caplog: pytest.LogCaptureFixture
) -> None:
    counted, script = tmp_path / "counted", tmp_path / "sc.exe"
    script.write_text(
        f"""#!/bin/sh
        echo >>{counted}
        [ "$(wc -l <{counted})" -ge {starts} ] || {{ echo "ShellExecuteEx failed: Internal error."; exit 1; }}
        echo "        STATE              : 4  RUNNING"
        """
    )
    script.chmod(0o755)
    server = start_sshd(tmp_path, environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    try:
        with server.connect() as guest:
            service = DriverService(guest, profile)
            if starts > 3:
                with pytest.raises(
                    GuestError, match=r"^Wine in the guest did not start sc\.exe query: Internal"
                ):
                    service.state(deadline=soon())
            else:
                assert service.state(deadline=soon()) == "running"
    finally:
        server.end()
    warned = [one.getMessage() for one in caplog.records if "Wine in the guest did not start" in one.message]
    assert len(warned) == min(starts - 1, 3)


@pytest.mark.parametrize(
    ("end", "says"), [("exit 1", "exit status 1 without a word"), ("kill -SEGV $$", "exit")]
)
def test_an_sc_exe_that_dies_says_nothing_of_the_driver(
    tmp_path: Path, profile: Profile, end: str, says: str
) -> None:
    script = tmp_path / "sc.exe"
    script.write_text(f"#!/bin/sh\n{end}\n")
    script.chmod(0o755)
    server = start_sshd(tmp_path, environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    try:
        with server.connect() as guest:
            service = DriverService(guest, profile)
            for act in (service.start, service.stop, service.state):
                with pytest.raises(GuestError, match=says) as caught:
                    act(deadline=soon())
                assert not isinstance(caught.value, GuestCommandError)
    finally:
        server.end()


def test_a_guest_without_sc_exe_says_nothing_of_the_driver(ssh: SshConnection, profile: Profile) -> None:
    service = DriverService(ssh, profile)
    for act in (service.start, service.stop, service.state):
        with pytest.raises(GuestError, match=r"shell did not run sc\.exe \w+: .*not found") as caught:
            act(deadline=soon())
        assert not isinstance(caught.value, GuestCommandError)


@pytest.mark.parametrize(
    ("exit_status", "names"), [(1, "query_service failed to open service"), (36, "wmain x")]
)
def test_an_absent_driver_is_absent_to_every_wine(
    tmp_path: Path, profile: Profile, exit_status: int, names: str
) -> None:
    script = tmp_path / "sc.exe"
    script.write_text(f"#!/bin/sh\necho '0024:err:sc:{names} 1060' >&2\nexit {exit_status}\n")
    script.chmod(0o755)
    server = start_sshd(tmp_path, environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    try:
        with server.connect() as guest:
            service = DriverService(guest, profile)
            assert service.state(deadline=soon()) is ServiceState.ABSENT
            with pytest.raises(
                GuestCommandError, match=r"failed in the guest: it is not installed \(error 1060\)"
            ):
                service.start(deadline=soon())
    finally:
        server.end()


# What sc.exe prints on a German Windows where loading takes a while: the driver is there at the third look.
SLOW_SC = """\
#!/bin/sh
case $1 in
start) state="2  START_PENDING" ;;
stop) state="3  STOP_PENDING" ;;
*)
    echo look >>{folder}/looks
    if test $(wc -l <{folder}/looks) -lt 3; then state="2  START_PENDING"; else state="{end}"; fi ;;
esac
printf '\\r\\nNAME: hpnotify\\r\\n'
printf '        TYP                : 1  KERNEL_DRIVER\\r\\n        STATUS             : %s\\r\\n' "$state"
printf '        WIN32_EXIT_CODE    : {error}  (0x0)\\r\\n'
"""


@pytest.fixture
def slow_windows(tmp_path: Path, profile: Profile) -> Iterator[Callable[..., DriverService]]:
    """Makes a service whose guest is slow and then ends in a state, with an error."""
    with contextlib.ExitStack() as stack:

        def make(*, end: str, error: int = 0) -> DriverService:
            script = tmp_path / "sc.exe"
            script.write_text(SLOW_SC.format(folder=tmp_path, end=end, error=error))
            script.chmod(0o755)
            server = start_sshd(tmp_path, environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
            stack.callback(server.end)
            return DriverService(stack.enter_context(server.connect()), profile)

        yield make


def test_a_driver_that_takes_a_while_is_waited_for(slow_windows: Callable[..., DriverService]) -> None:
    service = slow_windows(end="4  RUNNING")
    service.start(deadline=soon())
    assert service.state(deadline=soon()) is ServiceState.RUNNING


def test_a_driver_that_ends_up_stopped_was_not_started(slow_windows: Callable[..., DriverService]) -> None:
    service = slow_windows(end="1  STOPPED", error=577)
    with pytest.raises(GuestCommandError, match=r"is stopped, not running: its signature .*\(error 577\)"):
        service.start(deadline=soon())


def test_a_driver_that_never_gets_there_ends_with_the_deadline(
    slow_windows: Callable[..., DriverService],
) -> None:
    service = slow_windows(end="3  STOP_PENDING")
    with pytest.raises(DeadlineExpiredError):
        service.stop(deadline=Deadline.after(1))
