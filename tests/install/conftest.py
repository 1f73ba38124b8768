# SPDX-License-Identifier: MIT
"""The project as others have it: built into a wheel, and installed into an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_WITHIN_S = 300
RUN_WITHIN_S = 600


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that the wheel was installed into, and nothing of the checkout."""

    folder: Path

    @property
    def package(self) -> Path:
        """The installed package's folder."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages/harness"

    def run(
        self, program: str, *arguments: str | Path, cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))
        }
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=cwd,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_WITHIN_S,
        )


def build_wheel(source: Path, folder: Path) -> Path:
    """Return the wheel that pip builds from a folder or an sdist, without the network."""
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", folder, source)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution built from this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    _run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder)
    [archive] = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new environment with the wheel; what it depends on is borrowed from the one the tests run in."""
    environment = Installed(tmp_path_factory.mktemp("environment"))
    venv.create(environment.folder, with_pip=False, symlinks=True)
    site_packages = environment.package.parent
    # Searched last, and without reading the .pth files in there, such as the one that leads to the checkout.
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site_packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    pip = ("-m", "pip", "--python", environment.folder / "bin/python", "install", "--quiet")
    _run(sys.executable, *pip, "--no-index", "--no-deps", "--force-reinstall", wheel)
    return environment


@pytest.fixture
def hil(installed: Installed, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The installed command, called in an empty folder that has nothing to do with the checkout."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return installed.run("hil", *arguments, cwd=tmp_path, **environment)

    return call


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_WITHIN_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
