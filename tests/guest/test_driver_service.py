# SPDX-License-Identifier: MIT
"""The real driver, installed, configured, started and stopped over SSH with Wine's own sc.exe and reg.exe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from wine_guest import WineGuest

from harness.deadline import Deadline
from harness.driver_log_tail import DriverLogTail
from harness.driver_service import DriverService, ServiceState
from harness.errors import DeadlineExpiredError, GuestCommandError
from harness.profile import Profile, load_profile

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
    ("interfaces", "synchronous"), [("processor", False), ("memory", True), ("both", True), ("both", False)]
)
def test_the_driver_does_as_configured(
    service: DriverService,
    wine_guest: WineGuest,
    profile: Profile,
    image: bytes,
    interfaces: str,
    synchronous: bool,
) -> None:
    service.install(image, deadline=soon())
    service.configure(interfaces=interfaces, synchronous=synchronous, deadline=soon())  # type: ignore[arg-type]
    service.start(deadline=soon())
    service.stop(deadline=soon())
    load = DriverLogTail(wine_guest, profile.driver_log).poll(deadline=soon())[0].record
    assert (load.fields["interfaces"], load.fields["synchronous"]) == (interfaces, str(int(synchronous)))


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


def test_a_guest_that_takes_too_long(service: DriverService, image: bytes) -> None:
    service.install(image, deadline=soon())
    with pytest.raises(DeadlineExpiredError):
        service.start(deadline=Deadline.after(0.001))
