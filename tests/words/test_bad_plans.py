# SPDX-License-Identifier: MIT
"""Plans that do not load: each mistake is told at its line and column, with what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import PlanError
from harness.plan.plan import load_plan


def error_of(folder: Path, data: bytes) -> str:
    """Return the error of a plan with this text, without the folder's name."""
    path = folder / "bad.yaml"
    path.write_bytes(data)
    with pytest.raises(PlanError) as caught:
        load_plan(path)
    return str(caught.value).replace(f"{folder}/", "")


STEP = b"steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # --- keys
        (
            b"stepz: []\n" + STEP,
            "1:1: unknown key 'stepz'; allowed: description, guest, vm, boot, driver, require, within, "
            "acpi, steps (did you mean 'steps'?)",
        ),
        (
            b"vm:\n  vcpu: 2\n" + STEP,
            "2:3: unknown key 'vcpu'; allowed: vcpus, max_vcpus, topology, memory, slots, max_memory, nodes, "
            "backend, machine, start (did you mean 'vcpus'?)",
        ),
        (
            b"steps:\n  - plug: {dimms: [1 GiB], vcpsu: 1}\n    expect: {driver: []}\n",
            "2:28: unknown key 'vcpsu'; allowed: vcpus, dimms, paused (did you mean 'vcpus'?)",
        ),
        (
            b"guest: a\n" + STEP + b"guest: b\n",
            "3:1: duplicated key 'guest', first given in line 1; allowed: each key once",
        ),
        (
            STEP + b"1: x\n",
            "2:1: a key that is not a word",
        ),
        (
            STEP + b"? [a]\n: x\n",
            "2:3: a key that is not a word",
        ),
        (
            b"x: &x {vcpus: 1}\nvm:\n  <<: *x\n" + STEP,
            "1:1: unknown key 'x'; allowed: description, guest, vm, boot, driver, require, within, "
            "acpi, steps (and 1 more)",
        ),
        # --- types, units, counts
        (
            b"vm: {memory: 1024}\n" + STEP,
            "1:14: memory: 1024 has no unit; allowed: a number and KiB, MiB, GiB or TiB, such as '256 MiB'",
        ),
        (
            b"vm: {memory: 1 GB}\n" + STEP,
            "1:14: memory: '1 GB' has the unknown unit 'GB'; allowed: a number and KiB, MiB, GiB or "
            "TiB, such as '256 MiB' (did you mean 'GiB'?)",
        ),
        (
            b"within: 30 sec\n" + STEP,
            "1:9: within: '30 sec' has the unknown unit 'sec'; allowed: a number and ms, s or min, "
            "such as '30 s'",
        ),
        (
            b"within: 30\n" + STEP,
            "1:9: within: 30 has no unit; allowed: a number and ms, s or min, such as '30 s'",
        ),
        (
            b"vm: {vcpus: two}\n" + STEP,
            "1:13: vcpus: 'two' is not a whole number",
        ),
        (
            b"vm: {vcpus: 1.0}\n" + STEP,
            "1:13: vcpus: 1.0 is not a whole number",
        ),
        (
            b"vm: {vcpus: true}\n" + STEP,
            "1:13: vcpus: true is not a whole number",
        ),
        (
            b"vm: {vcpus: 0}\n" + STEP,
            "1:13: vcpus: 0 is too small; allowed: at least 1",
        ),
        (
            b"vm: {slots: -1}\n" + STEP,
            "1:13: slots: -1 is too small; allowed: at least 0",
        ),
        (
            b"vm:\n" + STEP,
            "1:4: vm: nothing is not a mapping with the keys vcpus, max_vcpus, topology, memory, slots, "
            "max_memory, nodes, backend, machine, start",
        ),
        (
            b"guest: 7\n" + STEP,
            "1:8: guest: 7 is not a text",
        ),
        (
            b"guest: ''\n" + STEP,
            "1:8: guest: an empty text",
        ),
        (
            b"driver: {interfaces: proc}\n" + STEP,
            "1:22: interfaces: 'proc' is not known; allowed: both, processor, memory (did you mean "
            "'processor'?)",
        ),
        (
            b"driver: {synchronous: 1}\n" + STEP,
            "1:23: synchronous: 1 is neither true nor false",
        ),
        (
            b"require: [vm, gest]\n" + STEP,
            "1:15: 'gest' is not known; allowed: vm, ospm, guest, driver (did you mean 'guest'?)",
        ),
        (
            b"require: []\n" + STEP,
            "1:10: require: an empty list; allowed: at least one",
        ),
        # --- steps
        (
            b"steps: []\n",
            "1:8: steps: an empty list; allowed: at least one",
        ),
        (
            b"guest: reference\n",
            "1:1: the key 'steps' is missing",
        ),
        (
            b"steps: 3\n",
            "1:8: steps: 3 is not a list; allowed: a list such as [a, b]",
        ),
        (
            b"steps:\n  - {plug: {vcpus: 1}, expect: {driver: []}}\n  - plug: {vcpus: 1}\n",
            "3:5: the key 'expect' is missing",
        ),
        (
            b"steps:\n  - plug: {vcpus: 1}\n    expect: {}\n",
            "3:13: the key 'driver' is missing",
        ),
        (
            b"steps:\n  - expect: {driver: []}\n",
            "2:5: a step without an action; allowed: one of plug, driver, power, pause, qmp, announce "
            "and wait",
        ),
        (
            b"steps:\n  - plug: {vcpus: 1}\n    driver: stop\n    expect: {driver: []}\n",
            "3:13: two actions in one step; allowed: one of plug, driver, power, pause, qmp, announce "
            "and wait",
        ),
        (
            b"steps:\n  - plug: {}\n    expect: {driver: []}\n",
            "2:11: plug: nothing to plug; allowed: vcpus, dimms or both",
        ),
        (
            b"steps:\n  - plug: {vcpus: 1}\n    expect: {driver: [procesor]}\n",
            "3:23: 'procesor' is not known; allowed: processor, memory, processor_removal, memory_removal, "
            "add_start, add_complete, add_failure, load, baseline, unload (did you mean 'processor'?)",
        ),
        (
            b"steps:\n  - plug: {vcpus: -1}\n    expect: {driver: []}\n",
            "2:19: vcpus: -1 is not a number of vCPUs; allowed: a whole number of at least 1, or all",
        ),
        (
            b"steps:\n  - plug: {vcpus: al}\n    expect: {driver: []}\n",
            "2:19: vcpus: 'al' is not a number of vCPUs; allowed: a whole number of at least 1, or all",
        ),
        (
            b"steps:\n  - plug: {vcpus: 1}\n    repeat: 0\n    expect: {driver: []}\n",
            "3:13: repeat: 0 is too small; allowed: at least 1",
        ),
        (
            b"steps:\n  - plug: {dimms: [-1 GiB]}\n    expect: {driver: []}\n",
            "2:20: '-1 GiB' is not more than zero; allowed: a number and KiB, MiB, GiB or TiB, such "
            "as '256 MiB'",
        ),
        (
            b"steps:\n  - driver: restart\n    expect: {driver: []}\n",
            "2:13: driver: 'restart' is not known; allowed: start, stop (did you mean 'start'?)",
        ),
        (
            b"steps:\n  - driver: start\n    expect: {driver: [load]}\n",
            "2:13: driver: start while the driver is running already",
        ),
        (
            b"steps:\n  - plug:\n    expect: {driver: []}\n",
            "2:10: plug: nothing is not a mapping with the keys vcpus, dimms, paused",
        ),
        (
            b"steps:\n  - plug: {vcpus: 1}\n    driver:\n    expect: {driver: []}\n",
            "3:12: driver: nothing is not known; allowed: start, stop",
        ),
        (
            b"steps:\n  - power: of\n    expect: {driver: []}\n",
            "2:12: power: 'of' is not known; allowed: restart, reset, off (did you mean 'off'?)",
        ),
        (
            b"steps:\n  - power: off\n    expect: {driver: []}\n  - wait: 1 s\n    expect: {driver: []}\n",
            "4:5: a step after the guest was switched off; allowed: none",
        ),
        (
            b"steps:\n  - pause: 0 s\n    expect: {driver: []}\n",
            "2:12: pause: '0 s' is not more than zero; allowed: a number and ms, s or min, such as '30 s'",
        ),
        (
            b"steps:\n  - wait: {}\n    expect: {driver: []}\n",
            "2:11: wait: {} is not a duration; allowed: a number and ms, s or min, such as '30 s'",
        ),
        (
            b"steps:\n  - announce: dimm\n    expect: {driver: []}\n",
            "2:15: class: 'dimm' is not known; allowed: processor, memory",
        ),
        (
            b"steps:\n  - announce: {event: arrival}\n    expect: {driver: []}\n",
            "2:15: the key 'class' is missing",
        ),
        (
            b"steps:\n  - announce: {class: memory, event: removal}\n    expect: {driver: []}\n",
            "2:15: a removal of class memory before an arrival was announced",
        ),
        (
            b"steps:\n  - qmp: {arguments: {}}\n    expect: {driver: []}\n",
            "2:10: the key 'execute' is missing",
        ),
        (
            b"steps:\n  - qmp: {execute: query status}\n    expect: {driver: []}\n",
            "2:20: execute: 'query status' is not the name of a command; allowed: such as query-status",
        ),
        (
            b"steps:\n  - qmp: {execute: quit}\n    expect: {driver: []}\n",
            "2:20: execute: quit is the harness's own; allowed instead: power: off",
        ),
        (
            b"steps:\n  - qmp: {execute: x, returns: {}, refused: false}\n    expect: {driver: []}\n",
            "2:45: refused: false is not a text; allowed: a text, or one for each version of QEMU",
        ),
        (
            b"steps:\n  - qmp: {execute: x, returns: {}, refused: 'no'}\n    expect: {driver: []}\n",
            "2:45: returns and refused in one step; allowed: one of both",
        ),
        (
            b"steps:\n  - qmp: {execute: x, refused: '('}\n    expect: {driver: []}\n",
            "2:32: refused: not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        (
            b"steps:\n  - qmp: {execute: x, refused: {}}\n    expect: {driver: []}\n",
            "2:32: refused: no version; allowed: a text, or one for each version of QEMU, such as '7.2'",
        ),
        (
            b"steps:\n  - qmp: {execute: x, refused: {new: a}}\n    expect: {driver: []}\n",
            "2:32: refused: 'new' is not a version of QEMU; allowed: such as '7.2' or '10'",
        ),
        # --- more than the vm has
        (
            b"vm: {vcpus: 5}\n" + STEP,
            "1:13: vcpus: 5 is more than max_vcpus, 4",
        ),
        (
            b"vm: {vcpus: 4}\n" + STEP,
            "2:24: vcpus: 1 is more than the vm has room for; allowed here: 0 (max_vcpus 4, 4 "
            "present by then)",
        ),
        (
            b"steps:\n  - {plug: {vcpus: 2}, expect: {driver: []}}\n"
            b"  - {plug: {vcpus: 2}, expect: {driver: []}}\n",
            "3:20: vcpus: 2 is more than the vm has room for; allowed here: 1 (max_vcpus 4, 3 "
            "present by then)",
        ),
        (
            b"steps:\n  - {plug: {vcpus: all}, repeat: 2, expect: {driver: []}}\n",
            "2:20: vcpus: all is more than the vm has room for; allowed here: 0 (max_vcpus 4, 4 "
            "present by then)",
        ),
        (
            b"steps:\n  - {plug: {dimms: [128 MiB]}, repeat: 5, expect: {driver: []}}\n",
            "2:21: DIMM without a free slot; the vm has slots: 4",
        ),
        (
            b"steps:\n  - {plug: {dimms: [1 GiB, 7 GiB]}, expect: {driver: []}}\n",
            "2:28: DIMM of 7 GiB exceeds max_memory 8 GiB; allowed here: 6 GiB",
        ),
        (
            b"steps:\n  - {plug: {dimms: [3 MiB]}, expect: {driver: []}}\n",
            "2:21: DIMM of 3 MiB; allowed: a multiple of 2 MiB",
        ),
        (
            b"vm: {memory: 9 GiB}\n" + STEP,
            "1:14: max_memory: 8 GiB is less than memory, 9 GiB",
        ),
        (
            b"vm: {max_memory: 512 MiB}\n" + STEP,
            "1:18: max_memory: 512 MiB is less than memory, 1 GiB",
        ),
        (
            b"vm: {max_memory: 4 GiB, slots: 0}\n" + STEP,
            "1:32: slots: 0 with max_memory 4 GiB above memory 1 GiB; allowed: slots of at least 1, "
            "or max_memory: 1 GiB",
        ),
        (
            b"vm: {max_memory: 1 GiB}\n" + STEP,
            "1:18: max_memory: 1 GiB leaves no room for the 4 slots above memory, 1 GiB; allowed: "
            "more than memory, or slots: 0",
        ),
        (
            b"vm: {memory: 5 KiB}\n" + STEP,
            "1:14: memory: 5 KiB is not a multiple of 1 MiB",
        ),
        # --- not a plan at all
        (
            b"",
            "1:1: the file is empty",
        ),
        (
            b"# nothing but a comment\n",
            "1:1: the file is empty",
        ),
        (
            b"just a text\n",
            "1:1: 'just a text' is not a mapping with the keys description, guest, vm, boot, driver, "
            "require, within, acpi, steps",
        ),
        (
            b"- a\n- b\n",
            "1:1: ['a', 'b'] is not a mapping with the keys description, guest, vm, boot, driver, require, "
            "within, acpi, steps",
        ),
        (
            b"steps: [\n",
            "2:1: not YAML: expected the node content, but found '<stream end>'",
        ),
        (
            b"steps:\n\t- a\n",
            "2:1: not YAML: found character '\\t' that cannot start any token",
        ),
        (
            b"a: 1\n---\nb: 2\n",
            "2:1: not YAML: but found another document",
        ),
        (
            b"guest: a\x00b\n",
            "1:9: not YAML: the character U+0000 is not allowed",
        ),
        (
            b"guest: a\nwithin: \xff\n",
            "2:9: not UTF-8 text: byte 0xff",
        ),
        (
            b"\x7fELF\x02\x01\x01\x00\x00",
            "1:1: not YAML: the character U+007F is not allowed",
        ),
        (
            b"guest: *nobody\n",
            "1:8: not YAML: found undefined alias 'nobody'",
        ),
        (
            b"steps: &a [*a]\n",
            "1:8: an alias to a value that contains it",
        ),
        (
            b"guest: !!python/name:os.system x\n",
            "1:8: a value of the type 'python/name:os.system'; allowed: texts, numbers, true and false",
        ),
        (
            b"guest: !!int x\n",
            "1:8: not a valid value of its type",
        ),
        (
            b'guest: "\\ud800"\n',
            "1:8: not a valid value of its type",
        ),
        (
            b"a: " + b"[" * 5000,
            "1:1: lists or mappings are nested too deeply",
        ),
    ],
)
def test_a_bad_plan_is_told_where_and_what_is_allowed(tmp_path: Path, text: bytes, error: str) -> None:
    assert error_of(tmp_path, text) == f"bad.yaml:{error}"


def bad_plans() -> dict[str, bytes]:
    """Return the text of each bad plan above by its error."""
    [mark] = test_a_bad_plan_is_told_where_and_what_is_allowed.pytestmark  # type: ignore[attr-defined]
    return {error: text for text, error in mark.args[1]}


def test_the_first_of_several_errors_is_told_and_the_others_counted(tmp_path: Path) -> None:
    error = error_of(tmp_path, b"within: 3\nvm: {vcpus: 0, slot: 1}\n" + STEP)
    assert error.startswith("bad.yaml:1:9: within: 3 has no unit")
    assert error.endswith("(and 2 more)")


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    error = error_of(tmp_path, "\n".join(lines).encode())
    assert "more than 20000 values once aliases are followed" in error


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere\.yaml: cannot be read: No such file or directory$"):
        load_plan(tmp_path / "nowhere.yaml")
    with pytest.raises(PlanError, match=r": cannot be read: Is a directory$"):
        load_plan(tmp_path)


yaml_ish = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1 GiB", "all", "stop"]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["vm", "steps", "plug", "vcpus", "dimms", "expect", "driver", "memory"])
            | st.text(),
            inner,
        )
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text("abc:-[]{}&*!|>'\"#%@`,? \n\t0123456789~<=").map(str.encode)
    | yaml_ish.map(lambda value: repr(value).encode("utf-8", "surrogatepass"))
)
@example(b"a: 0x" + b"f" * 5000)
@example(b"a: " + b"9" * 5000)
@example(b"vm: {vcpus: 0x" + b"f" * 5000 + b"}")
@example(b"a: !!float x")
@example(b"a: !!bool x")
@example(b'a: !!int ""')
@example(b"%YAML 9.9\n---\na")
@example(b"\xef\xbb\xbfsteps: []")
@example(b"\xff\xfea\x00")
def test_no_bytes_raise_anything_but_a_plan_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    error = None
    try:
        assert load_plan(path).unrolled()
    except PlanError as caught:
        error = caught
    if error is not None:
        assert "\n" not in str(error)
        assert error.line is not None
        assert error.line >= 1


NUMBERS = "is not the number that YAML reads in it; allowed: a decimal number such as 20, or a text in quotes"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *(
            (number, f"{number} {NUMBERS}: '{number}'")
            for number in ("020", "1_0", "1:30", "0b11", "-01", "1_0.5")
        ),
        ("08", "max_vcpus: '08' is not a whole number"),
        ("on", "max_vcpus: 'on' is not a whole number"),
        ("TRUE", "max_vcpus: TRUE is not a whole number"),
        ("1.50", "max_vcpus: 1.50 is not a whole number"),
        ("0x0", "max_vcpus: 0x0 is too small; allowed: at least 1"),
        ("~", "max_vcpus: nothing is not a whole number"),
    ],
)
def test_a_value_is_shown_as_it_is_written_and_read_as_it_looks(
    tmp_path: Path, value: str, error: str
) -> None:
    text = f"vm: {{max_vcpus: {value}}}\n".encode() + STEP
    assert error_of(tmp_path, text).startswith(f"bad.yaml:1:17: {error}")


def test_what_looks_like_a_word_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_bytes(b"description: yes\nguest: no\n" + STEP + b"within: '020 s'\n")
    plan = load_plan(path)
    assert (plan.description, plan.guest, plan.within_s) == ("yes", "no", 20.0)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param(
            b"# " + b"x" * (1 << 20), "larger than 1 MiB; allowed: a file that a person writes", id="bytes"
        ),
        pytest.param(STEP + b"x: [" + b"1," * 50_000 + b"]", ": more than 20000 values", id="values"),
        pytest.param(
            b"steps:\n" + b"- {wait: 1 ms, expect: {driver: []}, repeat: 1000}\n" * 12,
            "12:3: more than 10000 steps, each repetition counted; allowed: fewer",
            id="steps",
        ),
        pytest.param(
            b"within: 999999999999 min\n" + STEP,
            "1:9: within: '999999999999 min' is too long; allowed: at most 1440 min, a day",
            id="within",
        ),
        pytest.param(
            b"steps: [{wait: 2000 min, expect: {driver: []}}]",
            "1:16: wait: '2000 min' is too long; allowed: at most 1440 min, a day",
            id="wait",
        ),
    ],
)
def test_what_no_person_writes_is_refused_before_it_takes_long(
    tmp_path: Path, text: bytes, error: str
) -> None:
    assert error in error_of(tmp_path, text)
