# SPDX-License-Identifier: MIT
"""Guest profiles: the reference guest's, a user's own, and plans that ask a guest for too much."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.document.units import MIB
from harness.errors import PlanError, ProfileError, UsageError
from harness.guest.profile import SshProfile, find_profile, load_profile, profile_schema
from harness.plan.fit import check_plan_fits, profile_of, required_witnesses
from harness.plan.plan import load_plan

GUESTS = Path(__file__).parents[2] / "testplans" / "guests"

MINE = """\
system: windows
image: {disk: images/mine.qcow2}
network_device: e1000e
disk_device: ide-hd
ssh: {user: Administrator, shell: cmd}
driver: {directory: 'C:\\hil'}
driver_log: 'C:\\ProgramData\\hpnotify\\hpnotify.log'
probe: hpprobe.exe
links: {processor: '.*97fadb10.*', memory: '.*3fd0f03d.*'}
limits: {max_vcpus: 8, slots: 4, dimm_multiple: 128 MiB}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_reference_profile_requires_every_witness() -> None:
    profile = find_profile("reference", GUESTS)
    assert profile.name == "reference"
    assert profile.system == "linux-wine"
    assert profile.require == ("vm", "ospm", "guest", "driver")
    assert (profile.image.build, profile.disk_path) == ("reference", None)
    assert profile.limits.dimm_multiple_bytes == 128 * MIB
    assert profile.deadlines.settle_s == 1.0


@pytest.mark.parametrize(
    ("class_", "link"),
    [
        ("processor", r"\??\ACPI#GenuineIntel_-_Intel64_Family_6_Model_6_-_QEMU_Virtual_CPU#_2"
         r"#{97fadb10-4e33-40ae-359c-8bef029dbdd0}"),
        ("processor", r"\??\ACPI#AuthenticAMD_-_AMD64_Family_25#1#{97FADB10-4E33-40AE-359C-8BEF029DBDD0}"),
        ("memory", r"\??\ACPI#PNP0C80#3#{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"),
    ],
)  # fmt: skip
def test_the_reference_profile_knows_its_own_links_apart(class_: str, link: str) -> None:
    links = find_profile("reference", GUESTS).links
    patterns = {"processor": links.processor, "memory": links.memory}
    for name, pattern in patterns.items():
        assert bool(re.fullmatch(pattern, link, re.IGNORECASE)) is (name == class_)
        assert not re.fullmatch(pattern, link + "~", re.IGNORECASE)


def test_a_users_profile_gets_defaults_and_a_disk_beside_it(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path / "mine.yaml", MINE))
    assert profile.disk_path == tmp_path / "images" / "mine.qcow2"
    assert (profile.machine, profile.firmware, profile.cpu_model.tcg) == ("q35", None, "max")
    assert (profile.driver.service, profile.driver.load_order_group) == ("hpnotify", None)


@pytest.mark.parametrize(
    ("file", "path"), [("build/mine.sys", "{folder}/build/mine.sys"), ("/mine.sys", "/mine.sys")]
)
def test_a_driver_lies_beside_its_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, path: str
) -> None:
    write(tmp_path / "mine.yaml", MINE.replace("{directory:", f"{{file: {file}, directory:"))
    monkeypatch.chdir(tmp_path)
    profile = load_profile(Path("mine.yaml"))
    # Wherever the process goes from here.
    assert str(profile.driver_path) == path.format(folder=tmp_path)


def test_what_the_harness_says_of_a_driver_by_itself(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path / "mine.yaml", MINE))
    assert profile.driver_path is None
    assert (profile.driver.signature, profile.driver.parameters) == ("none", {})


def test_parameters_are_numbers_and_texts(tmp_path: Path) -> None:
    values = "{Level: 4294967295, 'A name': 'C:\\x y', Empty: ''}"
    text = MINE.replace("{directory:", f"{{parameters: {values}, directory:")
    profile = load_profile(write(tmp_path / "mine.yaml", text))
    assert profile.driver.parameters == {"Level": 4294967295, "A name": r"C:\x y", "Empty": ""}


@pytest.mark.parametrize(
    ("firmware", "code", "variables"),
    [
        ("seabios", None, None),
        ("uefi/code.fd", "uefi/code.fd", None),
        ("{code: uefi/code.fd}", "uefi/code.fd", None),
        ("{code: /usr/code.fd, vars: vars.fd}", "/usr/code.fd", "vars.fd"),
    ],
)
def test_firmware_lies_beside_its_profile(
    tmp_path: Path, firmware: str, code: str | None, variables: str | None
) -> None:
    profile = load_profile(write(tmp_path / "mine.yaml", f"{MINE}firmware: {firmware}\n"))
    assert profile.firmware_path == (None if code is None else tmp_path / code)
    assert profile.variables_path == (None if variables is None else tmp_path / variables)


def test_what_lies_beside_a_profile_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.yaml", MINE + "firmware: {code: uefi/code.fd, vars: ../vars.fd}\n")
    monkeypatch.chdir(tmp_path)
    profile = load_profile(Path("mine.yaml"))
    assert profile.disk_path == tmp_path / "images" / "mine.qcow2"
    assert profile.firmware_path == tmp_path / "uefi/code.fd"
    assert profile.variables_path == tmp_path / "../vars.fd"


def test_the_json_schema_shows_both_ways_to_write_firmware() -> None:
    text, mapping = profile_schema()["$defs"]["Firmware"]["anyOf"]
    assert text["type"] == "string"
    assert set(mapping["properties"]) == {"code", "vars"}


@pytest.mark.parametrize(
    ("line", "instead", "error"),
    [
        ("system: windows", "system: windows\nfirmware: {vars: v.fd}", "2:11: the key 'code' is missing"),
        ("system: windows", "system: windows\nfirmware: {code: c.fd, var: v.fd}", "2:24: unknown key 'var'; "
         "allowed: code, vars (did you mean 'vars'?)"),
        ("system: windows", "system: windows\nfirmware: 7", "2:11: firmware: 7 is not a mapping with the "
         "keys code, vars"),
        ("system: windows", "system: windows\nfirmware: ''", "2:11: code: an empty text"),
        ("probe:", "#", "1:1: the key 'probe' is missing"),
        ("shell: cmd", "shel: cmd", "5:28: unknown key 'shel'; allowed: user, shell (did you mean 'shell'?) "
         "(and 1 more)"),
        ("{disk: images/mine.qcow2}", "{}", "2:8: image: allowed: one of build: reference and disk: <path>"),
        ("system: windows", "system: window", "1:9: system: 'window' is not known; "
         "allowed: windows, linux-wine, qtest (did you mean 'windows'?)"),
        ("'.*97fadb10.*'", "'(['", "9:20: processor: not a regular expression: unterminated character set at "
         "position 1"),
        ("{directory:", "{file: '', directory:", "6:16: file: an empty text"),
        ("shell: cmd", "shell: bash", "5:35: shell: 'bash' is not known; allowed: posix, cmd"),
        ("'C:\\ProgramData\\hpnotify\\hpnotify.log'", "'C:/ProgramData/hpnotify.log'",
         "7:13: driver_log: 'C:/ProgramData/hpnotify.log' is no path of the guest's; "
         "allowed: a whole path with backslashes, such as C:\\folder\\name"),
        ("'C:\\hil'", "hil", "6:21: directory: 'hil' is no path of the guest's; "
         "allowed: a whole path with backslashes, such as C:\\folder\\name"),
        ("slots: 4", "slots: 257", "10:31: slots: 257 is too large; allowed: at most 256"),
    ],
)  # fmt: skip
def test_a_bad_profile_is_told_where(tmp_path: Path, line: str, instead: str, error: str) -> None:
    path = write(tmp_path / "mine.yaml", MINE.replace(line, instead))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(caught.value) == f"{path}:{error}"


VALUES_ALLOWED = "allowed: a whole number from 0 to 4294967295, or a text of one line"


@pytest.mark.parametrize(
    ("driver", "error"),
    [
        ("parameters: {Level: -1}", f"30: Level: -1 is no registry value; {VALUES_ALLOWED}"),
        ("parameters: {Level: 4294967296}", f"30: Level: 4294967296 is no registry value; {VALUES_ALLOWED}"),
        ("parameters: {Level: true}", f"30: Level: True is no registry value; {VALUES_ALLOWED}"),
        ("parameters: {Level: [1]}", f"30: Level: [1] is no registry value; {VALUES_ALLOWED}"),
        ('parameters: {Level: "a\\nb"}', f"30: Level: 'a\\nb' is no registry value; {VALUES_ALLOWED}"),
        ("parameters: {'': 1}", "27: '' is no name of a registry value; allowed: a text of one line"),
        (
            "parameters: {LOGPATH: x}",
            "32: LOGPATH: the harness writes this value, as driver_log says; leave it out",
        ),
        (
            "parameters: {Interfaces: 1}",
            "35: Interfaces: the harness writes this value, as a plan's driver says; leave it out",
        ),
        ("parameters: 7", "22: parameters: 7 is not a mapping"),
        ("signature: wanted", "21: signature: 'wanted' is not known; allowed: required, none"),
    ],
)
def test_what_is_wrong_with_a_driver_is_told_where(tmp_path: Path, driver: str, error: str) -> None:
    path = write(tmp_path / "mine.yaml", MINE.replace("{directory:", f"{{{driver}, directory:"))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(caught.value) == f"{path}:6:{error}"


def test_an_unknown_guest_names_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"^unknown guest 'refrence'; known: .*\(did you mean 'reference'\?\); looked for in"
    ):
        find_profile("refrence", GUESTS)


def test_a_folder_of_profiles_adds_to_another_and_wins_over_it(tmp_path: Path) -> None:
    write(tmp_path / "mine.yaml", MINE)
    assert find_profile("reference", tmp_path, GUESTS).source == GUESTS / "reference.yaml"
    assert find_profile("mine", tmp_path, GUESTS).source == tmp_path / "mine.yaml"
    write(tmp_path / "reference.yaml", MINE)
    assert find_profile("reference", tmp_path, GUESTS).system == "windows"
    assert find_profile("reference", GUESTS, tmp_path).system == "linux-wine"


def test_an_unknown_guest_is_told_of_every_folder_once(tmp_path: Path) -> None:
    write(tmp_path / "mine.yaml", MINE)
    with pytest.raises(UsageError) as caught:
        find_profile("x", tmp_path / "nowhere" / "..", GUESTS, tmp_path)
    known = "known: mine, qtest, reference"
    assert str(caught.value) == f"unknown guest 'x'; {known}; looked for in {tmp_path} and {GUESTS}"


def test_a_guest_is_a_name_and_not_a_path() -> None:
    with pytest.raises(UsageError, match="unknown guest"):
        find_profile("../guests/reference", GUESTS)


def test_a_plan_for_an_unknown_guest_is_told_where(tmp_path: Path) -> None:
    plan = load_plan(
        write(tmp_path / "p.yaml", "steps: [{driver: stop, expect: {driver: []}}]\nguest: windwos\n")
    )
    write(tmp_path / "windows.yaml", MINE)
    with pytest.raises(
        PlanError, match=r"p\.yaml:2:8: unknown guest 'windwos'; known: p, windows \(did you mean"
    ):
        profile_of(plan, tmp_path)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("vm: {max_vcpus: 9}\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]",
         "1:17: max_vcpus: 9; the guest mine allows up to 8"),
        ("vm: {slots: 5}\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]",
         "1:13: slots: 5; the guest mine allows up to 4"),
        ("vm: {start: paused}\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]",
         "1:13: start: paused; the guest mine has a system to boot; allowed for it: running"),
        ("steps: [{plug: {dimms: [128 MiB, 2 MiB]}, expect: {driver: []}}]",
         "1:34: DIMM of 2 MiB; the guest mine allows multiples of 128 MiB"),
    ],
)  # fmt: skip
def test_a_plan_that_asks_too_much_of_its_guest_is_told_where(tmp_path: Path, text: str, error: str) -> None:
    profile = load_profile(write(tmp_path / "mine.yaml", MINE))
    path = write(tmp_path / "p.yaml", text)
    with pytest.raises(PlanError) as caught:
        check_plan_fits(load_plan(path), profile)
    assert str(caught.value) == f"{path}:{error}"


def test_the_default_plans_fit_their_guest() -> None:
    plans = [load_plan(path) for path in GUESTS.parent.glob("*.yaml")]
    assert plans
    assert {profile_of(plan, GUESTS).name for plan in plans} == {"qtest", "reference"}


def test_a_plans_witnesses_win_over_the_profiles(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path / "mine.yaml", MINE + "require: [driver, guest, vm]\n"))
    step = "steps: [{driver: stop, expect: {driver: []}}]\n"
    assert required_witnesses(load_plan(write(tmp_path / "a.yaml", step)), profile) == (
        "vm",
        "guest",
        "driver",
    )
    plan = load_plan(write(tmp_path / "b.yaml", step + "require: [driver, ospm]\n"))
    assert required_witnesses(plan, profile) == ("ospm", "driver")


def test_arguments_for_qemu_are_words(tmp_path: Path) -> None:
    text = f"{MINE}qemu_args: [-device, i6300esb, -rtc, 'base=2026-01-01']\n"
    profile = load_profile(write(tmp_path / "mine.yaml", text))
    assert isinstance(profile, SshProfile)
    assert profile.qemu_args == ("-device", "i6300esb", "-rtc", "base=2026-01-01")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ("[-cpu, max]", "-cpu is what the key cpu_model says; allowed: what has no key"),
        ("[-device, i6300esb, --machine, pc]", "--machine is what the key machine says; "
         "allowed: what has no key"),
        ("[-sandbox, 'off']", "-sandbox is the harness's own; allowed: what adds to the VM"),
        ("[i6300esb]", "'i6300esb' is no option; allowed: such as [-device, i6300esb]"),
    ],
)  # fmt: skip
def test_arguments_that_a_key_or_the_harness_says_are_refused(tmp_path: Path, args: str, error: str) -> None:
    path = write(tmp_path / "mine.yaml", f"{MINE}qemu_args: {args}\n")
    with pytest.raises(ProfileError, match=f"{re.escape(error)}$"):
        load_profile(path)
