# SPDX-License-Identifier: MIT
"""The PnP manager for Wine does what Windows documents, be the driver that uses it right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.driver.wine import InstalledDriver, PnpFeed, Wine

PROCESSOR = "{97fadb10-4e33-40ae-359c-8bef029dbdd0}"
MEMORY = "{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"
REMOVAL = "{cb3a4005-46f0-11d0-b08f-00609713053f}"
VCPU = rf"\??\ACPI#GenuineIntel_-_Intel64_Family_6_Model_6_-_QEMU_Virtual_CPU#_1#{PROCESSOR}"
DIMM = rf"\??\ACPI#PNP0C80#0x00#{MEMORY}"

# Bits of the test driver's parameter Behaviour (guest-driver/winepnp/testdriver/pnptest.h).
INCLUDE_EXISTING = 0x001
SLOW = 0x002
UNREGISTER_INSIDE = 0x004
LEAK = 0x008
OBSOLETE_UNREGISTER = 0x010
SYNCHRONOUS = 0x020
ADD_EXISTING = 0x040
REFUSE = 0x080
WITNESSES = 0x1000
BY_NAME = 0x100
MISUSE = 0x200
FAIL = 0x400
FAIL_ENTRY = 0x800
HOLD = 0x2000


class PnpTest:
    """The test driver as a service, and the file in which it says what happened to it."""

    def __init__(self, wine: Wine, driver: InstalledDriver) -> None:
        self.driver = driver
        self._log = wine.host_path(r"C:\pnptest.log")
        self._log.unlink(missing_ok=True)

    def start(self) -> None:
        assert self.driver.start()

    def stop(self) -> None:
        assert self.driver.stop()

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def calls(self) -> list[str]:
        """What came through notification callbacks, such as ``A arrival <link>``."""
        words = [line.split(" ") for line in self.lines()]
        return [
            f"{line[0]} {line[1]} {line[-1].removeprefix('link=')}"
            for line in words
            if line[-1].startswith("link=")
        ]


@pytest.fixture(scope="module")
def drivers(wine: Wine, build_dir: Path) -> Iterator[dict[str, InstalledDriver]]:
    images = ("pnptest", "pnptest-readonly")
    drivers = {image: wine.install_driver(build_dir / f"{image}.sys", image) for image in images}
    yield drivers
    for driver in drivers.values():
        driver.uninstall()


@pytest.fixture
def install(
    wine: Wine, drivers: dict[str, InstalledDriver], pnp: PnpFeed
) -> Iterator[Callable[..., PnpTest]]:
    used = []

    def install(behaviour: int = 0, *, image: str = "pnptest") -> PnpTest:
        used.append(drivers[image])
        drivers[image].set_parameters(Behaviour=behaviour)
        return PnpTest(wine, drivers[image])

    yield install
    for driver in used:
        driver.stop()
    for interface, link in (("memory", DIMM), ("processor", VCPU)):
        pnp.request(f"remove {interface} {link}")


def test_arrivals_reach_their_class_in_the_order_of_registration(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    test = install()
    test.start()
    assert pnp.ok(f"arrive memory {DIMM}") == "2"
    assert pnp.ok(f"arrive processor {VCPU}") == "1"
    assert test.calls() == [f"A arrival {DIMM}", f"B arrival {DIMM}", f"C arrival {VCPU}"]
    assert "A arrival class=own version=1 size=48 irql=0" in test.lines()[-3]


def test_removals_are_told_too(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    pnp.ok(f"existing memory {DIMM}")
    test.start()
    assert pnp.ok(f"remove memory {DIMM}") == "2"
    assert test.calls() == [f"A removal {DIMM}", f"B removal {DIMM}"]


def test_existing_interfaces_are_told_during_registration_when_asked_for(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    test = install(INCLUDE_EXISTING)
    pnp.ok(f"existing memory {DIMM}")
    test.start()
    lines = [line.partition(" ")[0] + " " + line.split(" ")[1] for line in test.lines()]
    # Each before the line that its register call has returned.
    assert lines[-5:] == ["A arrival", "A registered", "B arrival", "B registered", "C registered"]
    assert pnp.ok(f"arrive processor {VCPU}") == "1"
    assert test.calls() == [f"A arrival {DIMM}", f"B arrival {DIMM}", f"C arrival {VCPU}"]


def test_an_interface_is_the_same_in_capitals(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    test.start()
    pnp.ok(f"arrive memory {DIMM}")
    assert pnp.request(f"arrive memory {DIMM.lower()}").startswith("error 0x000000b7 ")
    assert pnp.ok(f"remove memory {DIMM.upper()}") == "2"
    # As its bus driver wrote it.
    assert test.calls()[-1] == f"B removal {DIMM}"


def test_existing_interfaces_are_not_told_unasked(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    pnp.ok(f"existing memory {DIMM}")
    pnp.ok(f"existing memory {DIMM}")
    test.start()
    assert test.calls() == []


def test_an_interface_arrives_once(pnp: PnpFeed) -> None:
    pnp.ok(f"arrive memory {DIMM}")
    assert pnp.request(f"arrive memory {DIMM}").startswith("error 0x000000b7 ")
    pnp.ok(f"remove memory {DIMM}")
    assert pnp.request(f"remove memory {DIMM}").startswith("error 0x00000002 ")


def test_any_notification_can_be_delivered(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    test.start()
    assert pnp.ok(f"deliver {PROCESSOR} {REMOVAL} {VCPU}") == "1"
    assert pnp.ok(f"deliver {PROCESSOR} {MEMORY} {VCPU}") == "1"
    assert pnp.ok(f"deliver {REMOVAL} {REMOVAL} {VCPU}") == "0"
    assert test.calls() == [f"C removal {VCPU}", f"C other {VCPU}"]


def test_unload_unregisters(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install(SYNCHRONOUS)
    test.start()
    assert pnp.state() | {"failed_imports": 0, "misuses": 0, "memory_asked": 0} == {
        "registrations": 3,
        "synchronous": 1,
        "interfaces": 0,
        "failed_imports": 0,
        "misuses": 0,
        "memory_asked": 0,
    }
    test.stop()
    state = pnp.state()
    assert (state["registrations"], state["synchronous"]) == (0, 0)
    assert pnp.ok(f"arrive memory {DIMM}") == "0"
    assert test.calls() == []


def test_unregister_ex_waits_for_the_callback_in_flight(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    test = install(SLOW)
    test.start()
    pnp.send(f"arrive processor {VCPU}")
    test.stop()
    assert pnp.reply() == "ok 1"
    lines = test.lines()
    assert lines.index("C done") < lines.index("C unregistered 0x00000000")


def test_obsolete_unregister_does_not_wait(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install(SLOW | OBSOLETE_UNREGISTER)
    test.start()
    pnp.send(f"arrive processor {VCPU}")
    test.stop()
    # The image stays as long as the callback runs, though the driver is gone.
    assert pnp.reply() == "ok 1"
    lines = test.lines()
    assert lines.index("C unregistered 0x00000000") < lines.index("C done")
    assert pnp.state()["registrations"] == 0


def test_a_callback_may_unregister_itself(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install(UNREGISTER_INSIDE)
    test.start()
    assert pnp.ok(f"arrive processor {VCPU}") == "1"
    pnp.ok(f"remove processor {VCPU}")
    assert test.lines()[-1] == "C unregistered 0x00000000"
    assert test.calls() == [f"C arrival {VCPU}"]
    assert pnp.state()["registrations"] == 2


def test_what_exists_is_told_to_one_while_anothers_callback_runs(
    install: Callable[..., PnpTest], pnp: PnpFeed, wine: Wine, build_dir: Path
) -> None:
    test = install(HOLD)
    go = wine.host_path(r"C:\pnptest.go")
    other = wine.install_driver(build_dir / "hpnotify.sys", "hpnotify", IncludeExisting=1)
    log = wine.host_path(r"C:\ProgramData\hpnotify\hpnotify.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        pnp.ok(f"existing memory {DIMM}")
        test.start()
        pnp.send(f"arrive processor {VCPU}")
        assert other.start(), "though a callback of another registration does not return"
        assert other.stop()
        told = [line for line in log.read_text().splitlines() if "event=arrival" in line]
        assert [DIMM in line for line in told] == [False, True]
        assert "C done" not in test.lines()
    finally:
        go.touch()
        assert pnp.reply() == "ok 1"
        go.unlink()
        other.uninstall()
    assert test.lines()[-1] == "C done"


def test_state_answers_while_a_callback_runs(
    install: Callable[..., PnpTest], pnp: PnpFeed, wine: Wine
) -> None:
    test = install(SLOW)
    test.start()
    pnp.send(f"arrive processor {VCPU}")
    second = wine.start_feed()
    assert second.state()["registrations"] == 3
    second.close()
    assert pnp.reply() == "ok 1"


def test_a_registration_left_behind_shows(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install(LEAK)
    test.start()
    test.stop()
    assert pnp.state()["registrations"] == 3
    # As on Windows, where the driver object is referenced: the code is still there to be called.
    assert pnp.ok(f"arrive memory {DIMM}") == "2"
    assert test.calls() == [f"A arrival {DIMM}", f"B arrival {DIMM}"]


def test_a_failing_callback_is_reported(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    install(FAIL).start()
    assert pnp.ok(f"arrive memory {DIMM}") == "2 status=0xc0000001"


def test_wrong_arguments_are_refused_and_an_unknown_handle_counts(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    before = pnp.state()["misuses"]
    test = install(MISUSE)
    test.start()
    assert [line for line in test.lines() if line.startswith("misuse")] == ["misuse 0xc000000d"] * 6
    # The others Windows refuses too; for an unknown handle it promises nothing.
    assert pnp.state()["misuses"] == before + 2


@pytest.mark.parametrize("image", ["pnptest", "pnptest-readonly"])
@pytest.mark.parametrize("behaviour", [0, BY_NAME], ids=["imported", "by-name"])
def test_the_api_is_found_imported_and_by_name(
    install: Callable[..., PnpTest], pnp: PnpFeed, image: str, behaviour: int
) -> None:
    test = install(behaviour, image=image)
    test.start()
    assert pnp.ok(f"arrive memory {DIMM}") == "2"
    if behaviour == BY_NAME:
        assert test.lines()[:2] == ["unknown name not found", "other name found"]


def test_figures_are_those_last_told(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    pnp.ok("system 70 6442450944 130")
    test.start()
    assert test.lines()[:3] == [
        "active all=70 group0=64 group1=6 groups=2 plain=64 affinity=ffffffffffffffff mask=ffffffffffffffff",
        "maximum all=130 group0=64 groups=3 plain=64",
        "memory known bytes=6442450944",
    ]


def test_processor_changes_come_synchronously(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install(SYNCHRONOUS)
    test.start()
    assert pnp.ok("processor add_start 1 0") == "0x00000000"
    assert pnp.ok("processor add_complete 1 0") == "0x00000000"
    assert pnp.ok("processor add_failure 65 0xc0000001") == "0x00000000"
    assert test.lines()[-3:] == [
        "add_start number=1 group=0/1 status=0x00000000 operation=0x00000000",
        "add_complete number=1 group=0/1 status=0x00000000 operation=0x00000000",
        "add_failure number=65 group=1/1 status=0xc0000001 operation=0x00000000",
    ]


def test_a_processor_can_be_refused(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    install(SYNCHRONOUS | REFUSE).start()
    assert pnp.ok("processor add_start 1 0") == "0x00000000"
    assert pnp.ok("processor add_start 2 0") == "0xc000009a"


def test_a_refusal_is_told_to_those_asked_before_and_to_nobody_else(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    test = install(SYNCHRONOUS | REFUSE | WITNESSES)
    test.start()
    assert pnp.ok("processor add_start 2 0") == "0xc000009a"
    assert [line.split(" group")[0] for line in test.lines() if " number=" in line] == [
        "before add_start number=2",
        "add_start number=2",
        "before add_failure number=2",
    ]


def test_existing_processors_start_all_before_one_completes(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    test = install(SYNCHRONOUS | ADD_EXISTING)
    pnp.ok("system 2 1073741824 8")
    test.start()
    changes = [" ".join(line.split(" ")[:2]) for line in test.lines() if line.startswith("add_")]
    assert changes == [
        f"{state} number={number}" for state in ("add_start", "add_complete") for number in (0, 1)
    ]
    assert "synchronous registered" in test.lines()


def test_an_existing_processor_refused_undoes_and_registers_nothing(
    install: Callable[..., PnpTest], pnp: PnpFeed
) -> None:
    test = install(SYNCHRONOUS | ADD_EXISTING | REFUSE)
    pnp.ok("system 4 1073741824 8")
    test.start()
    changes = [" ".join(line.split(" ")[:2]) for line in test.lines() if line.startswith("add_")]
    # Nothing is to be undone for the one that was refused.
    assert changes == [
        *(f"add_start number={number}" for number in (0, 1, 2)),
        *(f"add_failure number={number}" for number in (0, 1)),
    ]
    assert "synchronous refused" in test.lines()
    assert pnp.state()["synchronous"] == 0


def test_an_import_fails_on_demand_once(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    before = pnp.state()["failed_imports"]
    pnp.ok("fail IoRegisterPlugPlayNotification 0xc000009a 1")
    test.start()
    registered = [line for line in test.lines() if "registered" in line]
    assert registered == ["A registered 0x00000000", "B registered 0xc000009a", "C registered 0xc000009a"]
    assert pnp.state()["failed_imports"] == before + 1
    test.stop()
    test.start()
    assert pnp.state()["registrations"] == 3


def test_any_import_can_fail(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    pnp.ok("fail ZwCreateFile 0xc0000022")
    test.start()
    assert test.lines() == []
    assert pnp.state()["registrations"] == 3


def test_an_import_is_whole_again_after_a_failed_load(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install(FAIL_ENTRY)
    pnp.ok("fail ZwCreateFile 0xc0000022")
    assert not test.driver.start()
    assert test.lines() == []
    test.driver.set_parameters(Behaviour=0)
    test.start()
    assert test.lines()[-1] == "C registered 0x00000000"


def test_a_failure_taken_back_does_not_happen(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    pnp.ok("fail IoRegisterPlugPlayNotification 0xc000009a")
    pnp.ok("fail clear")
    install().start()
    assert pnp.state()["registrations"] == 3


def test_loads_and_unloads_again_and_again(install: Callable[..., PnpTest], pnp: PnpFeed) -> None:
    test = install()
    for _ in range(20):
        test.start()
        test.stop()
    assert pnp.state()["registrations"] == 0
    assert test.lines().count("unload") == 20


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "nonsense",
        "state now",
        "system",
        "system one 1",
        "system -1 1",
        "system 0 1",
        "system 2 1 1",
        "system 99999999999999999999 1",
        "arrive",
        "arrive disk x",
        "arrive memory",
        "arrive memory x y",
        "arrive memory " + "x" * 257,
        "arrive memory \udcff",
        "existing memory x y",
        "remove memory",
        "deliver memory memory x",
        "deliver {97fadb10-4e33-40ae-359c-8bef029dbdd0 {97fadb10-4e33-40ae-359c-8bef029dbdd0} x",
        "deliver {g7fadb10-4e33-40ae-359c-8bef029dbdd0} {97fadb10-4e33-40ae-359c-8bef029dbdd0} x",
        "processor",
        "processor add_start",
        "processor begin 0 0",
        "processor add_start 0 0 0",
        "processor add_start 99999 0",
        "fail",
        "fail now",
        "fail ZwClose",
        "fail ZwClose nothing",
        "fail " + "Z" * 80 + " 0",
        "x" * 5000,
        "state\0",
    ],
)
def test_a_wrong_line_is_refused_and_harms_nothing(pnp: PnpFeed, line: str) -> None:
    assert pnp.request(line).startswith("error 0x")
    assert pnp.state()["interfaces"] == 0
