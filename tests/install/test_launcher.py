# SPDX-License-Identifier: MIT
"""The launcher ``hil``: whose .venv it uses. Its Python is a stand-in that tells how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# ``-m venv FOLDER`` makes another of it, as a link like the real one; ``-c`` is asked for the version.
PYTHON = """\
#!/bin/sh
# How Python is kept from looking into the current folder is no business of these tests.
case "$1" in -P|-IS) shift ;; esac
case "$*" in
*version_info\\ \\<*) ;;
-c*) cat "{home}/version" ;;
"-m venv "*) mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"; ln -s "{home}/python3" "$3/bin/python"
    echo "made $3" >>"{home}/called" ;;
"-m pip "*) echo "installed ${{0%/bin/python}}" >>"{home}/called" ;;
*) env | grep '^PYTHON' >"{home}/python-variables"; echo "ran ${{0%/.venv/bin/python}} $*" ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a Python, and a checkout with the launcher in ``one``."""
    python = tmp_path / "python3"
    python.write_text(PYTHON.format(home=tmp_path))
    python.chmod(0o755)
    (tmp_path / "version").write_text("3.11\n")
    checkout = tmp_path / "one"
    (checkout / "harness/host").mkdir(parents=True)
    shutil.copy(ROOT / "hil", checkout)
    (checkout / "harness/host/debian-packages.txt").write_text("# none\n")
    (checkout / "pyproject.toml").write_text("[project]\n")
    return tmp_path


def launch(home: Path, hil: str) -> tuple[str, str]:
    """Run a launcher, and return which checkout's harness it ran and what it said."""
    environment = {**os.environ, "PATH": f"{home}:{os.environ['PATH']}"}
    done = subprocess.run(
        [home / hil, "check"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    ran, _, arguments = done.stdout.removeprefix(f"ran {home}/").partition(" ")
    assert arguments == "-m harness check\n"
    return ran, done.stderr


def calls(home: Path) -> list[str]:
    """Return what was made and installed since the last time."""
    called = home / "called"
    lines = called.read_text().replace(f"{home}/", "").splitlines() if called.exists() else []
    called.unlink(missing_ok=True)
    return lines


def test_it_installs_once(home: Path) -> None:
    assert launch(home, "one/hil")[0] == "one"
    assert calls(home) == ["made one/.venv", "installed one/.venv"]
    assert launch(home, "one/hil") == ("one", "")
    assert calls(home) == []


def test_through_a_link_it_is_that_of_its_checkout(home: Path) -> None:
    (home / "bin").mkdir()
    (home / "bin/hil").symlink_to("../one/hil")
    (home / "linked").symlink_to("one")
    assert launch(home, "bin/hil")[0] == "one"
    assert launch(home, "one/hil") == launch(home, "linked/hil") == ("one", "")


def test_a_copied_checkout_does_not_run_the_code_of_the_old_one(home: Path) -> None:
    launch(home, "one/hil")
    calls(home)
    shutil.copytree(home / "one", home / "two", symlinks=True)
    ran, said = launch(home, "two/hil")
    assert ran == "two"
    assert f"hil: making .venv anew: it was made for {home}/one with Python 3.11\n" in said
    assert calls(home) == ["made two/.venv", "installed two/.venv"]
    assert launch(home, "two/hil") == ("two", "")
    assert launch(home, "one/hil") == ("one", "")


def test_another_python_gets_another_venv(home: Path) -> None:
    launch(home, "one/hil")
    calls(home)
    (home / "version").write_text("3.13\n")
    assert "making .venv anew" in launch(home, "one/hil")[1]
    assert calls(home) == ["made one/.venv", "installed one/.venv"]
    (home / "one/.venv/bin/python").unlink()
    (home / "one/.venv/bin/python").symlink_to("/no/such/python")
    assert "making .venv anew" in launch(home, "one/hil")[1]
    assert launch(home, "one/hil") == ("one", "")


def test_a_venv_of_nobody_knows_whom_is_made_anew(home: Path) -> None:
    launch(home, "one/hil")
    (home / "one/.venv/made-for").unlink()
    assert "nobody knows which checkout" in launch(home, "one/hil")[1]
    assert launch(home, "one/hil") == ("one", "")


def test_what_was_set_for_another_python_is_not_for_this_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/opt/vendor")
    monkeypatch.setenv("PYTHONPATH", "/opt/vendor/lib")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    assert launch(home, "one/hil")[0] == "one"
    seen = (home / "python-variables").read_text().splitlines()
    assert "PYTHONUNBUFFERED=1" in seen
    assert not [line for line in seen if "vendor" in line]
