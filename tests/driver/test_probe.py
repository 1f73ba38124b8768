# SPDX-License-Identifier: MIT
"""The shipped ``hpprobe.exe`` under Wine says what the Linux system below it says."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.driver.wine import Wine

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


@pytest.mark.parametrize("arguments", [["--once"], ["--loop", "more"], ["-h"], [""]])
def test_wrong_arguments_are_explained(wine: Wine, probe: Path, arguments: list[str]) -> None:
    result = wine.run(probe, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("usage: hpprobe")
