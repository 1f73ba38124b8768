# SPDX-License-Identifier: MIT
"""How a run ends when what is around it breaks: what it returns, says and leaves. On real QEMU."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.deadline import Deadline
from harness.run.report import LONGEST_FAILURE_LINES

ROOT = Path(__file__).resolve().parents[2]
HIL = [sys.executable, "-m", "harness"]
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
WITHIN_S = 120

PASSES = "guest: qtest\nsteps: [{plug: {vcpus: 1}, expect: {driver: []}}]\n"
FAILS = f"acpi: [panic]\n{PASSES}"
LONG = f"acpi: [silent]\nwithin: 60 s\n{PASSES}"


def environment(**more: str) -> dict[str, str]:
    # The harness that is tested, wherever another is installed.
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def call(*argv: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*map(str, argv)]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )


def write(folder: Path, **plans: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in plans.items():
        (folder / f"{name}.yaml").write_text(text)


def results_of(folder: Path) -> list[dict[str, Any]]:
    plans: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())["plans"]
    return plans


def outcomes_of(folder: Path) -> list[tuple[str, str]]:
    return [(plan["plan"], plan["outcome"]) for plan in results_of(folder)]


def cases_of(junit: Path) -> list[tuple[str, list[str]]]:
    """Return each test case's name and what is said of it."""
    return [
        (case.get("name", ""), [child.tag for child in case if child.tag != "properties"])
        for case in ElementTree.parse(junit).iter("testcase")
    ]


def await_plug(results: Path, plan: str) -> None:
    log, deadline = results / plan / "qmp.jsonl", Deadline.after(WITHIN_S)
    while not (log.exists() and '"device_add"' in log.read_text()):
        deadline.check(f"a plug in {log}")
        select.select([], [], [], 0.02)


class TestWhatIsAroundIt:
    def test_a_results_folder_that_is_a_file(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES)
        (tmp_path / "file").write_text("mine")
        for folder in ("file", "file/below"):
            done = call(*HIL, "run", "good.yaml", "-r", folder, cwd=tmp_path)
            assert done.returncode == 2, done.stdout + done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert "no folder for results" in done.stderr
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_cache_folder_that_is_a_file(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES.replace("guest: qtest\n", ""))
        (tmp_path / "file").touch()
        done = call(*HIL, "run", "good.yaml", "-r", "out", cwd=tmp_path, HIL_CACHE="file")
        assert done.returncode == 3, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert outcomes_of(tmp_path / "out") == [("good", "error")]
        assert cases_of(tmp_path / "out/junit.xml") == [("good", ["error"])]

    def test_a_limit_of_the_cache_that_is_none_is_told_before_any_work(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES)
        done = call(*HIL, "run", "good.yaml", "-r", "out", cwd=tmp_path, HIL_CACHE_LIMIT="much")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "HIL_CACHE_LIMIT" in done.stderr
        assert not (tmp_path / "out").exists()
        done = call(*PYTEST, "good.yaml", cwd=tmp_path, HIL_CACHE_LIMIT="much")
        assert done.returncode == pytest.ExitCode.INTERRUPTED
        assert "HIL_CACHE_LIMIT" in done.stdout

    def test_a_module_in_the_current_folder_is_not_the_librarys(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES)
        for name in ("yaml", "pydantic", "typer", "pytest"):
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the current folder')")
        done = call(*HIL, "run", "good.yaml", "-r", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_output_that_cannot_be_written(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES, bad=FAILS)
        for plans, status in (("good.yaml", 3), ("bad.yaml", 1)):
            for redirection in (">/dev/full", ">&-"):
                line = f'exec "$@" {redirection}'
                shell = ["sh", "-c", line, "sh", *HIL, "run", plans, "-r", "out"]
                done = call(*shell, cwd=tmp_path)
                assert done.returncode == status, done.stderr
                assert "Traceback" not in done.stderr
                assert len(results_of(tmp_path / "out")) == 1

    def test_a_library_that_ends_the_program_by_a_text_is_no_pass(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES)
        (tmp_path / "others").mkdir()
        (tmp_path / "others/yaml.py").write_text("raise SystemExit('no licence')")
        paths = os.pathsep.join([str(tmp_path / "others"), str(ROOT)])
        done = call(*HIL, "run", "good.yaml", "-r", "out", cwd=tmp_path, PYTHONPATH=paths)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "unexpected SystemExit: no licence; its traceback is in" in done.stderr

    def test_a_current_folder_that_is_gone_is_told_before_any_work(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES)
        shell = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *HIL]
        for command in (["run", "good.yaml"], ["run", "../good.yaml"], ["check", "good.yaml"]):
            (tmp_path / "gone").mkdir()
            done = call(*shell, *command, cwd=tmp_path / "gone")
            assert done.returncode == 2, done.stdout + done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr

    def test_the_current_folder_or_the_results_are_removed(self, tmp_path: Path) -> None:
        for gone in ("here", "here/out"):
            here = tmp_path / "here"
            write(here, good=PASSES, long=LONG.replace("60 s", "1 s"))
            out = here / "out" if gone == "here/out" else tmp_path / "elsewhere"
            argv = [*HIL, "run", "long.yaml", "good.yaml", "-r", str(out)]
            with subprocess.Popen(
                argv, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as process:
                await_plug(out, "long")
                shutil.rmtree(tmp_path / gone)
                output, _ = process.communicate(timeout=WITHIN_S)
            if gone == "here":
                # The plan fails, and nothing that it needs is gone.
                assert process.returncode == 1, output
                assert outcomes_of(out) == [("long", "failed"), ("good", "passed")]
            else:
                assert process.returncode == 3, output
                assert "was removed while the plan ran" in output
                assert outcomes_of(out) == [("long", "error"), ("good", "passed")]
            assert "Traceback" not in output

    def test_the_current_folder_is_removed_while_pytest_waits_for_a_plan(self, tmp_path: Path) -> None:
        here = tmp_path / "here"
        write(here, good=PASSES, long=LONG.replace("60 s", "2 s"))
        argv = [*HIL, "run", "long.yaml", "good.yaml", "-r", str(tmp_path / "out")]
        env = environment(PYTHONUNBUFFERED="1")
        with subprocess.Popen(
            argv, cwd=here, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            said = ""
            while "long.yaml::long" not in said:
                character = process.stdout.read(1)
                assert character, said
                said += character
            shutil.rmtree(here)
            output, _ = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 1, said + output
        assert outcomes_of(tmp_path / "out") == [("long", "failed"), ("good", "passed")]
        assert "INTERNALERROR" not in output


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_each_does_what_ctrl_c_does(self, tmp_path: Path, number: signal.Signals, workers: str) -> None:
        write(tmp_path / "plans", a=PASSES, b=LONG, c=LONG, d=PASSES)
        out = tmp_path / "out"
        argv = [*HIL, "run", "plans", "-r", "out", "-n", workers]
        output, status = self._ended_by(
            number, argv, tmp_path, after=("b",) if workers == "1" else ("b", "c")
        )
        assert status == 128 + number, output
        third = "not run" if workers == "1" else "error"
        assert outcomes_of(out) == [("a", "passed"), ("b", "error"), ("c", third), ("d", "not run")]
        assert results_of(out)[1]["error"] == "interrupted"
        assert cases_of(out / "junit.xml") == [("a", []), *((name, ["error"]) for name in "bcd")]
        assert f"ended by {number.name}" in output

    def test_the_status_is_the_same_while_a_library_is_being_loaded(self, tmp_path: Path) -> None:
        # dataclasses, and others, are made by exec(), and Python remembers an interrupt there till its end.
        program = """
import os, signal, threading
from harness.cli import app
loading = "os.kill(os.getpid(), signal.SIGTERM); threading.Event().wait(60)"
app.app = lambda: exec(loading)
app.main()
"""
        done = call(sys.executable, "-c", program, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "hil: ended by SIGTERM\n")

    def test_pytest_writes_its_reports_too(self, tmp_path: Path) -> None:
        write(tmp_path / "testplans", a=PASSES, b=LONG, c=PASSES)
        argv = [*PYTEST, "testplans", "--hil-results", "out", "--junit-xml", "out.xml"]
        output, status = self._ended_by(signal.SIGTERM, argv, tmp_path, after=("b",))
        assert status == 128 + signal.SIGTERM, output
        assert outcomes_of(tmp_path / "out") == [("a", "passed"), ("b", "error"), ("c", "not run")]
        assert cases_of(tmp_path / "out.xml") == [("a", []), ("b", ["error"]), ("c", ["error"])]

    def test_a_killed_run_has_its_logs_and_says_what_it_did_not_run(self, tmp_path: Path) -> None:
        write(tmp_path / "plans", a=PASSES, b=LONG, c=PASSES)
        argv = [*HIL, "run", "plans", "-r", "out"]
        _, status = self._ended_by(signal.SIGKILL, argv, tmp_path, after=("b",))
        assert status == -signal.SIGKILL
        assert "step 1: plug 1 vCPU" in (tmp_path / "out/b/harness.log").read_text()
        assert [name for name, _ in cases_of(tmp_path / "out/junit.xml")] == ["a", "b", "c"]
        assert ("c", "not run") in outcomes_of(tmp_path / "out")

    def _ended_by(
        self, number: signal.Signals, argv: list[str], cwd: Path, *, after: tuple[str, ...]
    ) -> tuple[str, int]:
        with subprocess.Popen(
            argv, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for plan in after:
                await_plug(cwd / "out", plan)
            process.send_signal(number)
            output, _ = process.communicate(timeout=WITHIN_S)
        return output, process.returncode


class TestFolderUsedAgain:
    def test_what_an_earlier_run_reported_goes_first(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES, wrong="stepz: []\n")
        assert call(*HIL, "run", "good.yaml", "-r", "out", cwd=tmp_path).returncode == 0
        assert call(*HIL, "run", "wrong.yaml", "-r", "out", cwd=tmp_path).returncode == 2
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"good"}

    def test_evidence_is_replaced_and_what_is_somebodys_is_not(self, tmp_path: Path) -> None:
        write(tmp_path, good=PASSES, mine=PASSES)
        (tmp_path / "out/mine").mkdir(parents=True)
        (tmp_path / "out/mine/thesis.txt").touch()
        for _ in range(2):
            done = call(*HIL, "run", "good.yaml", "mine.yaml", "-r", "out", cwd=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            assert [plan["evidence"] for plan in results_of(tmp_path / "out")] == ["good", "mine-2"]
            # It is no link to the old one: what was put there since is gone.
            (tmp_path / "out/good/harness.log").write_text("old")
        assert [path.name for path in (tmp_path / "out/mine").iterdir()] == ["thesis.txt"]

    def test_two_runs_at_once_do_not_share_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path, long=LONG, good=PASSES)
        argv = [*HIL, "run", "long.yaml", "-r", "out"]
        with subprocess.Popen(
            argv, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            await_plug(tmp_path / "out", "long")
            done = call(*HIL, "run", "good.yaml", "-r", "out", cwd=tmp_path)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=WITHIN_S)
        assert done.returncode == 2
        assert "another run writes its results here" in done.stderr


class TestNames:
    def test_plans_of_one_name_and_names_of_the_runs_own_files(self, tmp_path: Path) -> None:
        for folder in ("a", "b[1]"):
            write(tmp_path / folder, good=PASSES)
        write(tmp_path / "a", **{"results.json": PASSES, "template": PASSES})
        done = call(
            *HIL, "run", "a", "b[1]", "a/good.yaml", tmp_path / "a/good.yaml", "-r", "out", cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        plans = results_of(tmp_path / "out")
        names = ["a/good.yaml", "results.json", "template", "b[1]/good.yaml"]
        assert [plan["plan"] for plan in plans] == names
        assert plans[1]["path"] == "a/results.json.yaml"
        assert len({plan["evidence"] for plan in plans}) == 4
        assert all((tmp_path / "out" / plan["evidence"] / "verdict.json").is_file() for plan in plans)
        assert [name for name, _ in cases_of(tmp_path / "out/junit.xml")] == names
        assert all(re.search(rf"^{re.escape(name)} +passed", done.stdout, re.MULTILINE) for name in names)

    def test_escapes_do_not_reach_the_terminal(self, tmp_path: Path) -> None:
        write(tmp_path, **{"a\x1b[31m": f'description: "\\e[2J"\n{FAILS}'})
        for command in (["check"], ["run", "-r", "out"]):
            done = call(*HIL, *command, "a\x1b[31m.yaml", cwd=tmp_path)
            assert "\x1b" not in done.stdout + done.stderr
        assert done.returncode == 1


def test_pytests_own_settings_have_no_part_in_a_run(tmp_path: Path) -> None:
    write(tmp_path / "plans", good=PASSES)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    (tmp_path / "plans/conftest.py").write_text("raise RuntimeError('of a stranger')\n")
    more = {
        "PYTEST_ADDOPTS": "--nonsense",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "nonsense",
    }
    done = call(*HIL, "run", "plans", "-r", "$HOME", cwd=tmp_path, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cases_of(tmp_path / "$HOME/junit.xml") == [("good", [])]


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [("one", ["one-a", "one-b"]), ("one and not B", ["one-a"]), ("(two or one) and -a", ["one-a", "two-a"])],
)
def test_k_chooses_plans_by_name(tmp_path: Path, expression: str, chosen: list[str]) -> None:
    # One that is not chosen need not load.
    write(tmp_path / "plans", **{"one-a": PASSES, "one-b": PASSES, "two-a": PASSES, "three": "stepz: []"})
    done = call(*HIL, "run", "plans", "-k", expression, "-r", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name, _ in outcomes_of(tmp_path / "out")] == chosen


@pytest.mark.parametrize("expression", ["", "and", "one and", "(one", "one)", "one two", "nowhere"])
def test_k_that_chooses_nothing_is_wrong_usage(tmp_path: Path, expression: str) -> None:
    write(tmp_path / "plans", one=PASSES)
    done = call(*HIL, "run", "plans", "-k", expression, "-r", "out", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_one_rule_says_what_a_plan_is(tmp_path: Path) -> None:
    write(tmp_path / "plans", good=PASSES)
    shutil.copy(tmp_path / "plans/good.yaml", tmp_path / "plans/CAPITALS.YAML")
    (tmp_path / "plans/.#good.yaml").symlink_to("somebody@somewhere.4711")
    (tmp_path / "plans/notes.txt").write_text(PASSES)
    done = call(*HIL, "check", "plans", cwd=tmp_path)
    assert re.findall(r"^plans/(\S+):", done.stdout, re.MULTILINE) == ["CAPITALS.YAML", "good.yaml"]
    done = call(*HIL, "run", "plans", "-r", "out", cwd=tmp_path)
    assert [name for name, _ in outcomes_of(tmp_path / "out")] == ["CAPITALS", "good"]
    done = call(*PYTEST, "plans", cwd=tmp_path)
    assert "2 passed" in done.stdout
    for command in ("check", "run"):
        for name in ("notes.txt", ".#good.yaml"):
            done = call(*HIL, command, f"plans/{name}", cwd=tmp_path)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_processes_of_xdist_make_one_report(tmp_path: Path) -> None:
    plans = dict.fromkeys("abcd", PASSES)
    write(tmp_path / "testplans", **plans, e=FAILS)
    done = call(*PYTEST, "testplans", "-n", "2", "--hil-results", "out", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    expected = [*((name, "passed") for name in "abcd"), ("e", "failed")]
    assert sorted(outcomes_of(tmp_path / "out")) == expected


def test_logs_go_to_the_evidence_and_those_of_plans_at_once_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "testplans", bad=FAILS, good=PASSES)
    for argv in (
        [*HIL, "run", "testplans", "-n", "2", "-r"],
        [*PYTEST, "testplans", "--hil-workers=2", "--hil-results"],
    ):
        done = call(*argv, "out", cwd=tmp_path)
        assert "Captured" not in done.stdout
        _, _, after = done.stdout.partition("bad failed: ")
        explained, _, _ = after.partition("evidence  ")
        assert len(explained.splitlines()) < LONGEST_FAILURE_LINES
        for name, other, end in (("bad", "good", "failed: guest, step 1"), ("good", "bad", "passed: ")):
            log = (tmp_path / "out" / name / "harness.log").read_text()
            assert f"plan {name} on" in log
            assert f"plan {other} on" not in log
            assert end in log
