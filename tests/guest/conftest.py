# SPDX-License-Identifier: MIT
"""A real sshd, alone or with a Wine behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.guest.binaries import build_guest_binaries
from harness.wires.ssh import SshConnection
from tests.driver.wine import Wine
from tests.guest.sshd_server import Proxy, Sshd, start_sshd
from tests.guest.wine_guest import WineGuest, connect, start_wine_sshd


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """Everything of guest-driver/, built."""
    return build_guest_binaries().folder


@pytest.fixture(scope="session")
def wine(build_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wine]:
    """A Wine with winepnp.sys loaded, that has been told of 2 processors and 1 GiB."""
    folder = tmp_path_factory.mktemp("wine")
    with Wine(folder, pnp_manager=build_dir / "winepnp.sys", pnp_feed=build_dir / "pnpfeed.exe") as created:
        created.feed().ok("system 2 1073741824")
        yield created


@pytest.fixture(scope="session")
def wine_guest(wine: Wine, build_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WineGuest]:
    """A connection to that Wine as to a guest."""
    programs = {"sc.exe": "sc.exe", "reg.exe": "reg.exe", "hpprobe.exe": str(build_dir / "hpprobe.exe")}
    server = start_wine_sshd(tmp_path_factory.mktemp("wine-sshd"), wine, programs=programs)
    try:
        with connect(server, wine) as guest:
            yield guest
    finally:
        server.end()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The server shared by tests that leave it as it is."""
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.end()


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server for one test, which may stop or kill it."""
    server = start_sshd(tmp_path)
    yield server
    server.end()


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    forwarder = Proxy(sshd.port)
    yield forwarder
    forwarder.close()


@pytest.fixture(scope="session")
def ssh(sshd: Sshd) -> Iterator[SshConnection]:
    """One connection to the shared server."""
    with sshd.connect() as connection:
        yield connection
