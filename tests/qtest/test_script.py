# SPDX-License-Identifier: MIT
"""The script of a guest without an operating system: what can be written, what it means, what is wrong."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import PlanError, ProfileError
from harness.guest.profile import QtestProfile, load_profile, profile_schema
from harness.guest.qtest_script import Behaviour, Evaluation, behaviours
from harness.plan.plan import load_plan

PROFILES = Path(__file__).parents[2] / "testplans" / "guests"
STEP = "steps: [{plug: {vcpus: 1}, expect: {driver: []}}]\n"
ALLOWED = (
    "allowed: accept, silent, deaf, twice, in_progress, panic, restart, power_off, {refuse: 0x81}, "
    "{late: 300 ms}, {in_progress: 300 ms} and {reversed: 3}"
)
STATUSES = "allowed: a whole number from 1 to 0xffffffff but 0x80, such as 0x81"


def load(folder: Path, acpi: str) -> tuple[Behaviour, ...]:
    """Return the script of a profile with this YAML."""
    path = folder / "mine.yaml"
    path.write_text(f"system: qtest\nacpi: {acpi}\n", encoding="utf-8")
    profile = load_profile(path)
    assert isinstance(profile, QtestProfile)
    return profile.acpi


def meaning(behaviour: Behaviour) -> tuple[list[tuple[int, float]], str | None, int]:
    answers = [(one.status, one.after_s) for one in behaviour.evaluations]
    return answers, behaviour.death, behaviour.burst


@pytest.mark.parametrize(
    ("entry", "answers", "death", "burst"),
    [
        ("accept", [(0, 0.0)], None, 1),
        ("silent", [], None, 1),
        ("deaf", [], None, 1),
        ("twice", [(0, 0.0), (0, 0.0)], None, 1),
        ("in_progress", [(0x80, 0.0)], None, 1),
        ("{in_progress: 1.5 s}", [(0x80, 0.0), (0, 1.5)], None, 1),
        ("{refuse: 0x81}", [(0x81, 0.0)], None, 1),
        ("{refuse: 4294967295}", [(0xFFFF_FFFF, 0.0)], None, 1),
        ("{late: 300 ms}", [(0, 0.3)], None, 1),
        ("{reversed: 3}", [(0, 0.0)], None, 3),
        ("panic", [], "panic", 1),
        ("restart", [], "restart", 1),
        ("power_off", [], "power_off", 1),
    ],
)
def test_what_an_entry_means(
    tmp_path: Path, entry: str, answers: list[tuple[int, float]], death: str | None, burst: int
) -> None:
    (behaviour,) = load(tmp_path, f"[{entry}]")
    assert meaning(behaviour) == (answers, death, burst)


@pytest.mark.parametrize(
    ("acpi", "error"),
    [
        ("[]", "2:7: acpi: an empty list; allowed: at least one"),
        ("accept", "2:7: acpi: 'accept' is not a list; allowed: a list such as [a, b]"),
        ("", "2:6: acpi: nothing is not a list; allowed: a list such as [a, b]"),
        ("[acept]", f"2:8: 'acept' is not known; {ALLOWED} (did you mean 'accept'?)"),
        ("[accept, off]", f"2:16: 'off' is not known; {ALLOWED}"),
        ("[accept, 3]", f"2:16: 3 is not a word or a mapping of one key; {ALLOWED}"),
        ("[{refus: 0x81}]", f"2:8: unknown key 'refus'; {ALLOWED} (did you mean 'refuse'?)"),
        ("[{late: 1 s, refuse: 1}]",
         f"2:8: {{'late': '1 s', 'refuse': 1}} is not a mapping of one key; {ALLOWED}"),
        ("[{}]", f"2:8: {{}} is not a mapping of one key; {ALLOWED}"),
        ("[accept, {refuse: 0}]", f"2:25: refuse: 0x0 means success; {STATUSES}"),
        ("[{refuse: 0x80}]", f"2:17: refuse: 0x80 means in progress; {STATUSES}"),
        ("[{refuse: -1}]", f"2:17: refuse: -0x1 is no status of _OST; {STATUSES}"),
        ("[{refuse: 0x100000000}]", f"2:17: refuse: 0x100000000 is no status of _OST; {STATUSES}"),
        ("[{refuse: true}]", f"2:17: refuse: True is not a status of _OST; {STATUSES}"),
        ("[{late: 300}]", "2:15: late: 300 has no unit; allowed: a number and ms, s or min, such as '30 s'"),
        ("[{in_progress: never}]",
         "2:22: in_progress: 'never' is not a duration; allowed: a number and ms, s or min, such as '30 s'"),
        ("[{reversed: 1}]", "2:19: reversed: 1 is not a number of devices to answer in reverse; "
         "allowed: a whole number from 2 to 1024"),
    ],
)  # fmt: skip
def test_a_bad_script_is_told_where_and_what_is_allowed(tmp_path: Path, acpi: str, error: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, acpi)
    assert str(caught.value) == f"{tmp_path / 'mine.yaml'}:{error}"


def test_a_bad_script_of_a_plan_is_told_like_that_of_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(f"acpi: [accept, {{refuse: 0x80}}]\n{STEP}")
    with pytest.raises(PlanError, match=r"plan\.yaml:1:25: refuse: 0x80 means in progress; allowed"):
        load_plan(path)


def test_the_projects_guest_accepts(tmp_path: Path) -> None:
    profile = load_profile(PROFILES / "qtest.yaml")
    assert isinstance(profile, QtestProfile)
    assert profile.acpi == load(tmp_path, "[accept]")
    assert (profile.require, profile.disk_path, profile.link_patterns) == (("vm", "ospm"), None, {})


def test_the_schema_knows_profiles_of_all_systems_and_the_words() -> None:
    schema = profile_schema()
    systems = {
        word
        for name in ("SshProfile", "QtestProfile")
        for word in _words(schema["$defs"][name]["properties"]["system"])
    }
    assert systems == {"windows", "linux-wine", "qtest"}
    acpi = schema["$defs"]["QtestProfile"]["properties"]["acpi"]
    assert acpi["default"] == ["accept"]
    assert "silent" in acpi["items"]["anyOf"][0]["enum"]


def _words(schema: dict[str, Any]) -> list[str]:
    return schema.get("enum") or [schema["const"]]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("machine: pc", "2:10: machine: 'pc' has other ACPI registers; "
         "allowed: q35, or a version of it such as pc-q35-7.2"),
        ("require: [driver]", "2:11: 'driver' is not known; allowed: vm, ospm"),
        ("ssh: {user: root}", "2:1: unknown key 'ssh'; allowed: description, system, machine, cpu_model, "
         "tcg_thread, limits, require, ost, told, deadlines, acpi"),
    ],
)  # fmt: skip
def test_what_such_a_guest_cannot_have_is_told(tmp_path: Path, line: str, error: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"system: qtest\n{line}\n")
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(caught.value) == f"{path}:{error}"


durations = st.builds("{} {}".format, st.integers(1, 1_440), st.sampled_from(["ms", "s", "min"]))
statuses = st.integers(1, 0xFFFF_FFFF).filter(lambda status: status != 0x80)
entries = st.one_of(
    st.sampled_from(["accept", "silent", "deaf", "twice", "in_progress", "panic", "restart", "power_off"]),
    st.fixed_dictionaries({"refuse": statuses}),
    st.fixed_dictionaries({"late": durations}),
    st.fixed_dictionaries({"in_progress": durations}),
    st.fixed_dictionaries({"reversed": st.integers(2, 1024)}),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, min_size=1, max_size=8))
def test_whatever_may_be_written_is_read_in_order_and_the_last_repeats(tmp_path: Path, written: list) -> None:
    script = load(tmp_path, yaml.safe_dump(written, default_flow_style=True, width=10_000))
    assert [behaviour.written for behaviour in script] == written
    told = list(islice(behaviours(script), len(script) + 2))
    assert told == [*script, script[-1], script[-1]]
    for behaviour in script:
        # Nobody answers and dies, and a refusal is never also a success.
        assert not (behaviour.death and behaviour.evaluations)
        assert len({one.status for one in behaviour.evaluations} - {0x80}) <= 1
        assert all(isinstance(one, Evaluation) and one.after_s >= 0 for one in behaviour.evaluations)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["accept", "1 s"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["refuse", "late", "in_progress", "reversed"]) | st.text(), inner, max_size=2
        )
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything.map(repr))
@example("[{refuse: 0x" + "f" * 5000 + "}]")
@example("[{refuse: .inf}]")
@example("[{reversed: 1e3}]")
@example("[{late: " + "9" * 5000 + " s}]")
@example("[!!int x]")
def test_no_script_raises_anything_but_a_profile_error(tmp_path: Path, acpi: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(f"system: qtest\nacpi: {acpi}\n".encode("utf-8", "surrogatepass"))
    error = None
    try:
        assert load_profile(path)
    except ProfileError as caught:
        error = caught
    if error is not None:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
