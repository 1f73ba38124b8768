# SPDX-License-Identifier: MIT
"""One list of Debian packages: ``./hil`` installs from it, an installed harness names what is missing."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host import tools
from harness.host.tools import find_tool, install_line, packages_for

ROOT = Path(__file__).resolve().parents[2]


def tools_called() -> Iterator[str]:
    """Yield the programs that the package looks for, as far as they are written down there."""
    for path in sorted((ROOT / "harness").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "find_tool":
                argument = node.args[0]
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


@pytest.mark.parametrize("needed_by", [("hil", "run"), ("hil", "run", "test")])
def test_the_launcher_reads_the_same_packages(needed_by: tuple[str, ...]) -> None:
    function = re.search(r"^packages_for\(\) \{.*?^\}$", (ROOT / "hil").read_text(), re.MULTILINE | re.DOTALL)
    assert function is not None
    script = f'list={tools.PACKAGES_FILE}\n{function[0]}\npackages_for "$@"'
    done = subprocess.run(
        ["sh", "-euc", script, "sh", *needed_by], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(packages_for(*needed_by))


def test_the_list_says_where_every_program_comes_from() -> None:
    called = set(tools_called())
    assert {"make", "qemu-img", "mmdebstrap", "mkfs.ext4"} <= called
    listed = {program for programs in packages_for("run").values() for program in programs}
    assert called <= listed


def test_every_listed_program_is_in_the_package_it_is_listed_with() -> None:
    programs = {name: package for package, names in packages_for("run").items() for name in names}
    found = {name: find_tool(name, folders=["/usr/lib/wine"]) for name in programs}
    # gcc is a link to gcc-12, and files of the root folder are known by their old place.
    owners = {name: _owner(Path(path)) for name, path in found.items()}
    assert owners == programs


def _owner(path: Path) -> str:
    for name in (path, Path("/usr") / path.relative_to("/"), Path(str(path).removeprefix("/usr"))):
        done = subprocess.run(["dpkg", "--search", name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.partition(":")[0].partition(",")[0]
    alternative = Path("/etc/alternatives") / path.name
    return _owner(alternative.resolve()) if alternative.is_symlink() else "nobody"


class TestAMissingProgram:
    @pytest.fixture
    def bare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A host where nothing is on PATH, and a harness that was installed as a wheel."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(tools, "CHECKOUT", None)
        return tmp_path

    def test_in_a_checkout_is_left_to_the_launcher(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tools, "CHECKOUT", ROOT)
        with pytest.raises(HostError, match=r"^make is not installed on this host; \./hil installs what is"):
            find_tool("make")

    def test_of_a_wheel_is_told_with_the_line_that_installs_all(self, bare: Path) -> None:
        with pytest.raises(HostError) as caught:
            find_tool("make")
        line = install_line(packages_for("run"))
        assert str(caught.value) == f"make is not installed on this host; as root: {line}"
        assert line.startswith("apt-get install --yes --no-install-recommends qemu-system-x86 qemu-utils ")

    def test_the_line_leaves_out_what_is_installed(self, bare: Path) -> None:
        query = bare / "dpkg-query"
        query.write_text(
            '#!/bin/sh\nfor name; do [ $name = wine64 ] && echo "unknown ok not-installed $name" ||'
            ' echo "installed $name"; done\nexit 1\n'
        )
        query.chmod(0o755)
        with pytest.raises(HostError, match=r"; as root: apt-get .*-recommends wine64$"):
            find_tool("wine64")

    def test_of_an_installed_package_is_told_as_such(self, bare: Path) -> None:
        dpkg_query = shutil.which("dpkg-query", path="/usr/bin")
        assert dpkg_query is not None
        (bare / "dpkg-query").symlink_to(dpkg_query)
        with pytest.raises(HostError) as caught:
            find_tool("make")
        assert str(caught.value) == "make is not on PATH, although the Debian package make is installed"

    def test_of_no_package_is_named_alone(self, bare: Path) -> None:
        with pytest.raises(HostError, match=r"^nosuch is not installed on this host$"):
            find_tool("nosuch")
