# SPDX-License-Identifier: MIT
"""Sizes and durations: what is read, what is refused, and that both ways agree."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.document.units import (
    GIB,
    KIB,
    LONGEST_S,
    MIB,
    TIB,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1 KiB", KIB), ("256 MiB", 256 * MIB), ("1.5 GiB", 3 * GIB // 2), ("2TiB", 2 * TIB)],
)
def test_sizes_are_exact(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(("text", "seconds"), [("250 ms", 0.25), ("30 s", 30.0), ("1.5 min", 90.0)])
def test_durations_are_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1024, "1024 has no unit; allowed: a number and KiB, MiB, GiB or TiB, such as '256 MiB'"),
        ("1024", "'1024' has no unit"),
        ("1 GB", "'1 GB' has the unknown unit 'GB'; allowed: a number and KiB, MiB, GiB or TiB, such as "
         "'256 MiB' (did you mean 'GiB'?)"),
        ("1 mib", "(did you mean 'MiB'?)"),
        ("-1 MiB", "'-1 MiB' is not more than zero"),
        ("0 MiB", "'0 MiB' is not more than zero"),
        ("big", "'big' is not a size"),
        ("0.3 KiB", "'0.3 KiB' is not a whole number of bytes"),
        ("4097 TiB", "'4097 TiB' is too large; allowed: at most 4096 TiB"),
        ("999999999999 TiB", "'999999999999 TiB' is too large"),
        (True, "True is not a size"),
        (None, "None is not a size"),
        ("9" * 5000 + " MiB", "is not a size"),
        ("٣ MiB", "is not a size"),
    ],
)  # fmt: skip
def test_other_sizes_are_refused_with_what_is_allowed(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_size(value)


def test_no_duration_is_longer_than_a_day() -> None:
    assert parse_duration("1440 min") == 86400.0
    for text in ("1440.1 min", "86401 s", "999999999999 min"):
        with pytest.raises(ValueError, match=f"^'{text}' is too long; allowed: at most 1440 min, a day$"):
            parse_duration(text)


def test_a_duration_names_its_own_units() -> None:
    with pytest.raises(ValueError, match=r"unknown unit 'sec'; allowed: a number and ms, s or min"):
        parse_duration("30 sec")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(GIB, "1 GiB"), (1536 * MIB, "1536 MiB"), (GIB + 1, "1073741825 bytes"), (0, "0 bytes")],
)
def test_a_formatted_size_hides_no_byte(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "250 ms"), (12.3456, "12.346 s"), (30, "30 s"), (120, "2 min"), (0, "0 ms")]
)
def test_a_formatted_duration_is_to_the_millisecond(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=1, max_value=2**30))
def test_a_formatted_size_reads_as_itself(size_kib: int) -> None:
    assert parse_size(format_size(size_kib * KIB)) == size_kib * KIB


@given(st.integers(min_value=1, max_value=LONGEST_S * 1000))
def test_a_formatted_duration_reads_as_itself(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.text())))
def test_nothing_but_a_value_error_comes_out(value: object) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(value) > 0
        except ValueError:
            continue
