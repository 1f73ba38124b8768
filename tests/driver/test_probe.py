# SPDX-License-Identifier: MIT
"""The shipped ``hpprobe.exe`` under Wine says what the Linux system below it says."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pefile
import pytest

from tests.driver.hpnotify_bench import ARRIVAL, CLASS_GUIDS, Hpnotify
from tests.driver.wine import DIE_WITH_PARENT, WINE, PnpFeed, Wine

KEYS = [
    "format",
    "id",
    "active_processors",
    "memory_bytes",
    "boot_id",
    "boot_time_100ns",
    "qpc",
    "qpc_hz",
    "system_time_100ns",
    "platform",
]
SECONDS_1601_TO_1970 = 11_644_473_600

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def probe(wine: Wine, build_dir: Path) -> Path:
    return build_dir / "hpprobe.exe"


@pytest.fixture(scope="module")
def once(wine: Wine, probe: Path) -> Answer:
    return json.loads(wine.run(probe).stdout)  # type: ignore[no-any-return]


def answers(result: subprocess.CompletedProcess[str]) -> Iterator[Answer]:
    assert result.returncode == 0, result.stderr
    return (json.loads(line) for line in result.stdout.splitlines())


def number_after(path: str, word: str) -> int:
    lines = Path(path).read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(word))


def test_says_one_line_with_these_keys_in_this_order(wine: Wine, probe: Path) -> None:
    result = wine.run(probe)
    assert result.returncode == 0
    assert result.stdout.count("\n") == 1
    assert "\r" not in result.stdout
    answer = json.loads(result.stdout)
    assert list(answer) == KEYS
    assert (answer["format"], answer["id"], answer["platform"]) == (1, "", "wine")


def test_processors_are_those_online_on_the_host(once: Answer) -> None:
    ranges = Path("/sys/devices/system/cpu/online").read_text(encoding="ascii").strip().split(",")
    bounds = [(part.split("-")[0], part.split("-")[-1]) for part in ranges]
    assert once["active_processors"] == sum(int(last) - int(first) + 1 for first, last in bounds)


def test_memory_is_the_hosts(once: Answer) -> None:
    assert once["memory_bytes"] == number_after("/proc/meminfo", "MemTotal:") * 1024


def test_boot_is_the_hosts(once: Answer) -> None:
    assert once["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    boot_s = once["boot_time_100ns"] / 10**7 - SECONDS_1601_TO_1970
    assert boot_s == pytest.approx(number_after("/proc/stat", "btime"), abs=2)


def test_system_time_is_the_hosts(wine: Wine, probe: Path) -> None:
    before_s = time.time()
    [answer] = answers(wine.run(probe))
    after_s = time.time()
    assert before_s <= answer["system_time_100ns"] / 10**7 - SECONDS_1601_TO_1970 <= after_s


def test_every_one_of_a_thousand_requests_is_answered_in_order(wine: Wine, probe: Path) -> None:
    requests = [f"request-{number}" for number in range(1000)]
    samples = list(answers(wine.run(probe, "--loop", stdin="".join(f"{line}\n" for line in requests))))
    assert [sample["id"] for sample in samples] == requests
    assert all(early["qpc"] < late["qpc"] for early, late in itertools.pairwise(samples))
    assert {sample["boot_id"] for sample in samples} == {samples[0]["boot_id"]}
    elapsed_s = (samples[-1]["qpc"] - samples[0]["qpc"]) / samples[0]["qpc_hz"]
    by_time_s = (samples[-1]["system_time_100ns"] - samples[0]["system_time_100ns"]) / 10**7
    assert elapsed_s == pytest.approx(by_time_s, abs=0.1)


@pytest.mark.parametrize(
    ("request_line", "identity"),
    [
        ("", ""),
        ("two words", "two words"),
        ('quote " and \\ backslash', 'quote " and \\ backslash'),
        ("tab\tand bell\a", "tab\tand bell\a"),
        ("carriage return\r", "carriage return"),
        ("%s%n{}", "%s%n{}"),
        ("x" * 5000, "x" * 1023),
    ],
)
def test_request_is_echoed_as_the_id(wine: Wine, probe: Path, request_line: str, identity: str) -> None:
    samples = list(answers(wine.run(probe, "--loop", stdin=f"{request_line}\nnext\n")))
    assert [sample["id"] for sample in samples] == [identity, "next"]


def test_bytes_outside_ascii_are_echoed_as_their_numbers(wine: Wine, probe: Path) -> None:
    [sample] = answers(wine.run(probe, "--loop", stdin="é\n"))
    assert sample["id"] == "é".encode().decode("latin-1")


def test_last_request_needs_no_line_end(wine: Wine, probe: Path) -> None:
    assert [sample["id"] for sample in answers(wine.run(probe, "--loop", stdin="a\nb"))] == ["a", "b"]


def test_no_request_no_answer(wine: Wine, probe: Path) -> None:
    assert list(answers(wine.run(probe, "--loop"))) == []


def test_saving_writes_what_the_server_itself_writes_only_later(wine: Wine, probe: Path) -> None:
    registry = wine.drive_c.parent / "system.reg"
    wine.reg("add", r"HKLM\SYSTEM\hpprobe", "/v", "Kept", "/t", "REG_DWORD", "/d", "7", "/f")
    for _ in range(2):
        registry.unlink(missing_ok=True)
        result = wine.run(probe, "--save")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        ours = registry.read_text(errors="replace").splitlines()
        assert '"Kept"=dword:00000007' in ours
    assert not registry.with_suffix(".reg.new").exists()
    wine.reboot()  # the old server writes the registry when it ends, the new one reads it
    theirs = registry.read_text(errors="replace").splitlines()
    assert ours[:4] == theirs[:4]
    assert len(ours) == pytest.approx(len(theirs), rel=0.02)
    assert '"Kept"=dword:00000007' in theirs


def test_saving_that_fails_says_so_and_leaves_the_registry_alone(wine: Wine, probe: Path) -> None:
    in_the_way = wine.drive_c.parent / "system.reg.new"
    in_the_way.mkdir()
    try:
        result = wine.run(probe, "--save")
    finally:
        in_the_way.rmdir()
    assert result.returncode == 1
    assert result.stderr.startswith("hpprobe: the registry is not saved in ")


@pytest.mark.parametrize("arguments", [["--once"], ["--loop", "more"], ["-h"], [""]])
def test_wrong_arguments_are_explained(wine: Wine, probe: Path, arguments: list[str]) -> None:
    result = wine.run(probe, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("usage: hpprobe")


@pytest.fixture
def hpnotify(wine: Wine, pnp: PnpFeed, build_dir: Path) -> Iterator[Hpnotify]:
    driver = wine.install_driver(build_dir / "hpnotify.sys", "hpnotify")
    with Hpnotify(driver, pnp) as created:
        yield created
    driver.uninstall()


def announce(wine: Wine, probe: Path, *requests: str) -> list[Answer]:
    """Ask a probe of its own and return the answers, which must come in order."""
    lines = [f"{number} announce {request}\n" for number, request in enumerate(requests)]
    said = list(answers(wine.run(probe, "--loop", stdin="".join(lines))))
    assert [answer["id"] for answer in said] == [str(number) for number in range(len(requests))]
    return said


def announced_link(interface: str, name: str) -> str:
    return rf"\??\SWD#HilHotplug#{name}#{CLASS_GUIDS[interface]}"


@pytest.mark.parametrize("interface", ["processor", "memory"])
def test_an_announced_interface_comes_and_goes_in_the_drivers_log(
    wine: Wine, probe: Path, hpnotify: Hpnotify, interface: str
) -> None:
    hpnotify.start()
    said = announce(wine, probe, f"{interface} arrival control7", f"{interface} removal control7")
    hpnotify.stop()
    expected = announced_link(interface, "control7")
    assert [list(answer) for answer in said] == [[*KEYS, "announced"]] * 2
    assert [answer["announced"] for answer in said] == [expected] * 2
    records = [record for record in hpnotify.records() if record.kind == "notification"]
    told = [(record.fields["class"], record.fields["event"], record.fields["link"]) for record in records]
    assert told == [(interface, "arrival", expected), (interface, "removal", expected)]


def test_an_announced_interface_outlives_its_probe_and_is_kept_apart_by_class(
    wine: Wine, probe: Path, hpnotify: Hpnotify
) -> None:
    before = hpnotify.pnp.state()["interfaces"]
    announce(wine, probe, "processor arrival x", "memory arrival x")
    assert hpnotify.pnp.state()["interfaces"] == before + 2
    announce(wine, probe, "processor removal x", "memory removal x")
    assert hpnotify.pnp.state()["interfaces"] == before


def told_of(answer: Answer) -> list[tuple[int, str, str, str]]:
    return [(one["number"], one["class"], one["event"], one["link"]) for one in answer["told"]]


@pytest.fixture(scope="module")
def facts(wine: Wine, probe: Path) -> Answer:
    [said] = answers(wine.run(probe, "--facts"))
    return said


LICENCE = [
    *("Kernel-VirtualDynamicPartitioningSupported", "Kernel-DynamicPartitioningSupported"),
    *("Kernel-VmPhysicalMemoryAddAllowed", "Kernel-PhysicalMemoryAddAllowed"),
    *("Kernel-RegisteredProcessors", "Kernel-WindowsMaxMemAllowedx64"),
]


class TestFacts:
    """What the system says of itself; under Wine some of it is null, which is an answer too."""

    def test_are_one_line_with_all_keys(self, facts: Answer) -> None:
        assert list(facts) == [
            *("format", "platform"),
            *("windows_major", "windows_minor", "windows_build", "windows_revision", "product_type"),
            *("product_name", "edition", "installation_type"),
            *("dynamic_partitioning", "expires_100ns", "code_integrity", "vbs_enabled", "hvci_enabled"),
            *("licence", "hypervisor", "hypervisor_features_edx", "srat_hot_pluggable_bytes"),
            *("free_bytes", "utc_bias_minutes", "real_time_is_universal", "ssh_default_shell", "interfaces"),
        ]
        assert list(facts["licence"]) == ["read", *LICENCE]
        assert list(facts["interfaces"]) == ["processor", "memory"]

    def test_say_which_windows_it_is(self, wine: Wine, facts: Answer) -> None:
        assert (facts["format"], facts["platform"]) == (1, "wine")
        version = wine.run("cmd.exe", "/c", "ver").stdout
        assert f"{facts['windows_major']}.{facts['windows_minor']}.{facts['windows_build']}" in version

    def test_say_what_the_host_knows_too(self, wine: Wine, facts: Answer) -> None:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii").partition("flags")[2].partition("\n")[0]
        assert (facts["hypervisor"] is not None) == ("hypervisor" in flags.split())
        # Others fill and empty the disk meanwhile.
        free_bytes = shutil.disk_usage(wine.drive_c).free
        assert facts["free_bytes"] == pytest.approx(free_bytes, abs=8 << 30)
        assert facts["free_bytes"] > 0

    def test_say_what_is_in_the_registry(self, wine: Wine, probe: Path) -> None:
        guard = r"HKLM\SYSTEM\CurrentControlSet\Control\DeviceGuard"
        hvci = rf"{guard}\Scenarios\HypervisorEnforcedCodeIntegrity"
        shell = r"C:\Program Files\my shell.exe"
        wine.reg("add", guard, "/v", "EnableVirtualizationBasedSecurity", "/t", "REG_DWORD", "/d", "1", "/f")
        wine.reg("add", hvci, "/v", "Enabled", "/t", "REG_DWORD", "/d", "0", "/f")
        wine.reg("add", r"HKLM\SOFTWARE\OpenSSH", "/v", "DefaultShell", "/d", shell, "/f")
        [said] = answers(wine.run(probe, "--facts"))
        assert (said["vbs_enabled"], said["hvci_enabled"]) == (1, 0)
        assert said["ssh_default_shell"] == shell

    def test_are_all_on_the_page(self, facts: Answer) -> None:
        page = (Path(__file__).parents[2] / "docs" / "windows.md").read_text(encoding="utf-8")
        assert [key for key in facts if f"`{key}`" not in page and key not in ("format", "platform")] == []

    def test_are_null_where_the_system_does_not_say(self, facts: Answer) -> None:
        assert facts["srat_hot_pluggable_bytes"] is None, "Wine has no ACPI tables"
        assert facts["expires_100ns"] is None
        assert facts["dynamic_partitioning"] is False


class TestTold:
    """Programs are told of what drivers are told, since they listen."""

    def ask(self, wine: Wine, probe: Path, *requests: str) -> list[Answer]:
        return list(answers(wine.run(probe, "--loop", stdin="".join(f"{line}\n" for line in requests))))

    def test_of_what_came_and_went_once_and_in_order(self, wine: Wine, probe: Path, pnp: PnpFeed) -> None:
        pnp.ok(f"arrive memory {announced_link('memory', 'before')}")
        said = self.ask(
            *(wine, probe, "1 told"),
            *("2 announce memory arrival x", "3 announce processor arrival y", "4 told"),
            *("5 announce memory removal x", "6 announce processor removal y", "7 told", "8 told"),
        )
        pnp.ok(f"remove memory {announced_link('memory', 'before')}")
        x, y = announced_link("memory", "x"), announced_link("processor", "y")
        assert [answer["id"] for answer in said] == [str(number) for number in range(1, 9)]
        assert [told_of(answer) for answer in said if "told" in answer] == [
            [],
            [(1, "memory", "arrival", x), (2, "processor", "arrival", y)],
            [(3, "memory", "removal", x), (4, "processor", "removal", y)],
            [],
        ]
        for before, after in ((said[0], said[3]), (said[3], said[6])):
            counters = [before["qpc"], *(one["qpc"] for one in after["told"]), after["qpc"]]
            assert counters == sorted(counters)

    def test_before_the_first_driver_is(self, wine: Wine, probe: Path, hpnotify: Hpnotify) -> None:
        hpnotify.start()
        said = self.ask(wine, probe, "1 announce memory arrival x", "2 told", "3 announce memory removal x")
        hpnotify.stop()
        [arrived] = [record for record in hpnotify.records() if record.word == "memory"]
        [told] = said[1]["told"]
        assert told["qpc"] <= arrived.qpc

    def test_not_of_what_is_only_delivered_to_drivers(self, wine: Wine, probe: Path, pnp: PnpFeed) -> None:
        command = [*DIE_WITH_PARENT, WINE, str(probe), "--loop"]
        with subprocess.Popen(
            command, env=wine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            print("1 told", file=process.stdin, flush=True)
            assert json.loads(process.stdout.readline())["told"] == []
            pnp.ok(f"deliver {CLASS_GUIDS['memory']} {ARRIVAL} {announced_link('memory', 'x')}")
            print("2 told", file=process.stdin, flush=True)
            assert json.loads(process.stdout.readline())["told"] == []
            process.stdin.close()

    @pytest.mark.usefixtures("pnp")
    def test_of_more_than_is_kept_the_latest_with_their_numbers(self, wine: Wine, probe: Path) -> None:
        pairs = 520
        lines = [f"{n} announce memory {event} x" for n in range(pairs) for event in ("arrival", "removal")]
        [*_, last] = self.ask(wine, probe, *lines, "last told")
        assert [one["number"] for one in last["told"]] == list(range(2 * pairs - 1023, 2 * pairs + 1))


@pytest.mark.usefixtures("pnp")
@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        (["memory removal nosuch"], "there is no such interface: error 2 "),
        (
            ["memory arrival x", "memory arrival x", "memory removal x"],
            "such an interface already: error 183 ",
        ),
    ],
)
def test_what_cannot_come_or_go_is_refused_with_the_error(
    wine: Wine, probe: Path, requests: list[str], reason: str
) -> None:
    said = announce(wine, probe, *requests)
    refused = [answer for answer in said if "announce_error" in answer]
    assert [list(answer) for answer in refused] == [[*KEYS, "announce_error"]]
    assert reason in refused[0]["announce_error"]


@pytest.mark.parametrize(
    "request_words",
    [
        "",
        " ",
        "memory arrival",
        "memory arrival a b",
        "memory arrival A",
        "memory arrival a-b",
        r"memory arrival a\b",
        "memory arrival a#b",
        "memory arrival \u00e9",
        f"memory arrival {'x' * 65}",
        "other arrival a",
        "Memory arrival a",
        "memory Arrival a",
        "memory departure a",
    ],
)
def test_bad_names_classes_and_events_are_refused(
    wine: Wine, probe: Path, pnp: PnpFeed, request_words: str
) -> None:
    before = pnp.state()["interfaces"]
    [refused] = announce(wine, probe, request_words)
    assert "announced" not in refused
    assert refused["announce_error"].startswith("usage: announce ")
    assert refused["announce_error"].endswith("error 87 (0x00000057)")
    assert pnp.state()["interfaces"] == before


@pytest.mark.usefixtures("pnp")
def test_a_name_may_have_64_characters(wine: Wine, probe: Path) -> None:
    name = "x" * 64
    [said, _] = announce(wine, probe, f"processor arrival {name}", f"processor removal {name}")
    assert said["announced"] == announced_link("processor", name)


@pytest.mark.parametrize(
    "request_line", ["announce", "announce memory arrival a", "1 announced", "1  announce"]
)
def test_any_other_line_is_still_an_id(wine: Wine, probe: Path, request_line: str) -> None:
    [sample] = answers(wine.run(probe, "--loop", stdin=f"{request_line}\n"))
    assert list(sample) == KEYS
    assert sample["id"] == request_line


def test_it_starts_on_a_windows_without_the_software_device_api(build_dir: Path) -> None:
    with pefile.PE(build_dir / "hpprobe.exe") as image:
        libraries = {entry.dll.decode().lower() for entry in image.DIRECTORY_ENTRY_IMPORT}
    assert libraries == {"kernel32.dll", "msvcrt.dll", "advapi32.dll"}
