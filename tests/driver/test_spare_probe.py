# SPDX-License-Identifier: MIT
"""``spareprobe``, the probe's name in the reference guest: asking once leaves a started one for the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.driver.wine import COMMAND_WITHIN_S, DIE_WITH_PARENT, WINE, Wine

Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spare(tmp_path: Path) -> Path:
    """The folder that a spare probe is kept in; not there yet."""
    return tmp_path / "hpprobe"


@pytest.fixture
def ask(wine: Wine, build_dir: Path, spare: Path) -> Iterator[Ask]:
    """Run spareprobe with arguments and an input; whatever probe it left behind ends with the test."""
    environment = {
        **wine.environment,
        "PATH": f"{Path(WINE).parent}:{wine.environment['PATH']}",
        "HPPROBE_SPARE": str(spare),
        "HPPROBE_PROGRAM": str(build_dir / "hpprobe.exe"),
    }

    def ask(*arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DIE_WITH_PARENT, build_dir / "spareprobe", *arguments],
            env=environment | changes,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )

    yield ask
    for pid_file in spare.parent.glob("hpprobe*/pid"):
        probe = process_of(pid_file.parent)
        if probe is not None:
            probe.kill()


def process_of(folder: Path) -> psutil.Process | None:
    """Return the probe of a spare if it still runs."""
    try:
        process = psutil.Process(int((folder / "pid").read_text()))
    except psutil.NoSuchProcess:
        return None
    return process if process.status() != psutil.STATUS_ZOMBIE else None


def loop_on(spare: Path, build_dir: Path) -> subprocess.Popen[str]:
    """Take over a spare probe and leave its input open."""
    return subprocess.Popen(
        [*DIE_WITH_PARENT, build_dir / "spareprobe", "--loop"],
        env={**os.environ, "HPPROBE_SPARE": str(spare)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [answer["id"] for answer in answers(result)]


def test_asking_once_answers_and_leaves_a_probe_that_runs(ask: Ask, spare: Path) -> None:
    result = ask()
    assert (result.returncode, ids(result), result.stderr) == (0, [""], "")
    assert answers(result)[0]["platform"] == "wine"
    assert sorted(path.name for path in spare.iterdir()) == ["err", "in", "out", "pid"]
    assert process_of(spare) is not None
    assert not spare.with_suffix(".new").exists()


def test_the_next_loop_takes_it_over_and_it_ends_with_its_input(ask: Ask, spare: Path) -> None:
    ask()
    probe = process_of(spare)
    assert probe is not None
    result = ask("--loop", stdin="a\nb\n", HPPROBE_PROGRAM="/nowhere.exe")
    assert (result.returncode, ids(result), result.stderr) == (0, ["a", "b"], "")
    probe.wait(COMMAND_WITHIN_S)
    assert not spare.exists()


def test_a_loop_without_a_spare_is_a_probe_of_its_own(ask: Ask, spare: Path) -> None:
    ask()
    assert ids(ask("--loop", stdin="first\n")) == ["first"]
    result = ask("--loop", stdin="second\n")
    assert (result.returncode, ids(result)) == (0, ["second"])
    assert not spare.exists()


def test_of_two_that_ask_at_once_one_leaves_a_spare_and_both_are_answered(ask: Ask, spare: Path) -> None:
    with ThreadPoolExecutor() as pool:
        results = [asked.result() for asked in [pool.submit(ask) for _ in range(2)]]
    assert [(result.returncode, ids(result)) for result in results] == [(0, [""])] * 2
    assert [path.name for path in spare.parent.glob("hpprobe*")] == ["hpprobe"]


def test_saving_is_passed_on_and_leaves_no_spare(ask: Ask, wine: Wine, spare: Path) -> None:
    registry = wine.drive_c.parent / "system.reg"
    registry.unlink(missing_ok=True)
    result = ask("--save")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert registry.exists()
    assert not spare.exists()
    assert ask("--save", HPPROBE_PROGRAM="/nowhere.exe").returncode != 0


def test_many_requests_come_back_in_order(ask: Ask) -> None:
    ask()
    requests = [f"request-{number}" for number in range(1000)]
    assert ids(ask("--loop", stdin="".join(f"{line}\n" for line in requests))) == requests


def test_an_announcement_and_its_answer_are_passed_on_and_again_in_the_next_session(
    ask: Ask, wine: Wine
) -> None:
    for _ in range(2):
        ask()  # leaves a started one, which the loop then takes over
        result = ask(
            "--loop",
            stdin="1 announce memory arrival spare\n2\n3 announce memory removal spare\n4 announce x\n5\n",
            HPPROBE_PROGRAM="/nowhere.exe",
        )
        said = answers(result)
        assert [answer["id"] for answer in said] == ["1", "2", "3", "4", "5"], result.stderr
        link = r"\??\SWD#HilHotplug#spare#{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"
        assert [answer.get("announced") for answer in said] == [link, None, link, None, None]
        assert [index for index, answer in enumerate(said) if "announce_error" in answer] == [3]
    assert wine.feed().state()["interfaces"] == 0


def test_the_last_request_needs_no_line_end(ask: Ask) -> None:
    ask()
    assert ids(ask("--loop", stdin="a\nb")) == ["a", "b"]


def test_it_ends_when_nobody_listens_any_more(ask: Ask, build_dir: Path, spare: Path) -> None:
    ask()
    probe = process_of(spare)
    assert probe is not None
    with loop_on(spare, build_dir) as loop:
        assert loop.stdout is not None
        loop.stdout.close()
        assert loop.wait(COMMAND_WITHIN_S) == 0
    probe.wait(COMMAND_WITHIN_S)


def test_a_spare_that_died_is_told_and_not_hidden(ask: Ask, spare: Path) -> None:
    ask()
    probe = process_of(spare)
    assert probe is not None
    (spare / "err").write_text("its last words\n")
    probe.kill()
    probe.wait(COMMAND_WITHIN_S)
    result = ask("--loop", stdin="anybody?\n")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("spareprobe: ")
    assert result.stderr.endswith("its last words\n")


def test_a_spare_that_dies_while_it_is_asked_ends_the_loop(ask: Ask, build_dir: Path, spare: Path) -> None:
    ask()
    probe = process_of(spare)
    assert probe is not None
    with loop_on(spare, build_dir) as loop:
        assert loop.stdin is not None
        assert loop.stdout is not None
        loop.stdin.write("here\n")
        loop.stdin.flush()
        assert json.loads(loop.stdout.readline())["id"] == "here"
        probe.send_signal(signal.SIGKILL)
        assert loop.stderr is not None
        assert loop.stdout.read() == ""
        assert loop.stderr.read() == "spareprobe: the spare probe is gone\n"
        assert loop.wait(COMMAND_WITHIN_S) == 1


def test_a_probe_that_does_not_start_is_told(ask: Ask, spare: Path) -> None:
    result = ask(HPPROBE_PROGRAM="/nowhere.exe")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("spareprobe: the probe does not start")
    assert not spare.exists()


@pytest.mark.parametrize("arguments", [["--once"], ["--loop", "more"]])
def test_other_arguments_are_the_probes_business(ask: Ask, spare: Path, arguments: list[str]) -> None:
    result = ask(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: hpprobe")
    assert not spare.exists()
