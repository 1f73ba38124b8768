# SPDX-License-Identifier: MIT
"""The QEMU asked for is the one that is run; what is none is told in one line before anything is run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.host.tools import find_tool
from harness.run.session import Session
from harness.vm import accelerator
from harness.vm.accelerator import DEFAULT_QEMU
from harness.vm.qemu_choice import chosen_qemu

PLAN = "steps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}]\n"

Program = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIL_QEMU", raising=False)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return a function that writes a program in shell."""

    def write(script: str) -> Path:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


class TestChoice:
    def test_is_the_option_then_the_variable_then_this_hosts(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: Program
    ) -> None:
        asked_for = program(f'exec {find_tool(DEFAULT_QEMU)} "$@"')
        assert chosen_qemu() == DEFAULT_QEMU
        assert Session(results=tmp_path).qemu == DEFAULT_QEMU
        monkeypatch.setenv("HIL_QEMU", "")
        assert chosen_qemu() == DEFAULT_QEMU
        monkeypatch.setenv("HIL_QEMU", str(asked_for))
        assert chosen_qemu() == str(asked_for)
        assert Session(results=tmp_path).qemu == str(asked_for)
        assert chosen_qemu(DEFAULT_QEMU, option="--qemu") == DEFAULT_QEMU

    def test_is_a_full_path_unless_it_is_a_name(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: Program
    ) -> None:
        asked_for = program(f'exec {find_tool(DEFAULT_QEMU)} "$@"')
        monkeypatch.chdir(tmp_path)
        assert chosen_qemu(f"./{asked_for.name}", option="--qemu") == str(asked_for)

    @pytest.mark.parametrize(
        ("script", "words"),
        [
            pytest.param("", "it says nothing", id="says-nothing"),
            pytest.param("echo git version 2.39.5", "it says git version 2.39.5", id="something-else"),
            pytest.param("echo no >&2; exit 3", "failed with exit status 3: no", id="fails"),
            pytest.param("exec sleep 60", r"--version did not end in 1 s", id="hangs"),
        ],
    )
    def test_is_a_qemu(
        self, monkeypatch: pytest.MonkeyPatch, program: Program, script: str, words: str
    ) -> None:
        monkeypatch.setattr(accelerator, "VERSION_WITHIN_S", 1.0 if "sleep" in script else 30.0)
        asked_for = program(script)
        with pytest.raises(UsageError, match=rf"^--qemu {asked_for}: not a QEMU: .*{words}$") as error:
            chosen_qemu(str(asked_for), option="--qemu")
        assert len(str(error.value).splitlines()) == 1

    @pytest.mark.parametrize("nowhere", ["qemu-system-nosuch", "/nowhere/qemu-system-x86_64", "/tmp", ""])
    def test_is_a_program(self, nowhere: str) -> None:
        with pytest.raises(UsageError, match=rf"^--qemu {nowhere}: no such program$"):
            chosen_qemu(nowhere, option="--qemu")


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("command", "options", "variable", "says"),
        [
            pytest.param("harness", ("--qemu", "nosuch"), "", "--qemu nosuch: no such program", id="run"),
            pytest.param("harness", ("--qemu", "ls"), "", "--qemu ls: not a QEMU: ls --version", id="run-ls"),
            pytest.param("harness", (), "nosuch", "HIL_QEMU nosuch: no such program", id="run-variable"),
            pytest.param(
                "harness",
                ("--qemu", DEFAULT_QEMU, "--cluster", "tcp://127.0.0.1:1"),
                "",
                "HIL_QEMU makes it for a worker",
                id="run-cluster",
            ),
            pytest.param(
                "pytest", ("--hil-qemu", "nosuch"), "", "--hil-qemu nosuch: no such program", id="pytest"
            ),
            pytest.param("pytest", (), "nosuch", "HIL_QEMU nosuch: no such program", id="pytest-variable"),
        ],
    )
    def test_is_one_line_and_nothing_is_run(
        self, tmp_path: Path, command: str, options: tuple[str, ...], variable: str, says: str
    ) -> None:
        plan = tmp_path / "plan.yaml"
        plan.write_text(PLAN)
        argv = [sys.executable, "-m", command, *(("run",) if command == "harness" else ()), plan, *options]
        done = subprocess.run(
            argv,
            cwd=tmp_path,
            env={**os.environ, "HIL_QEMU": variable},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == (2 if command == "harness" else pytest.ExitCode.USAGE_ERROR)
        lines = [line for line in done.stderr.splitlines() if line]
        assert len(lines) == 1, done.stderr
        assert says in lines[0]
        assert not (tmp_path / "results").exists()
