# SPDX-License-Identifier: MIT
"""The host-only driver tier: the built drivers under a private Wine, arrivals injected through pnpfeed.exe.

``wine`` is that Wine, created once; ``pnp`` a feed into a winepnp.sys that knows of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.guest.binaries import build_guest_binaries
from tests.driver.wine import PnpFeed, Wine, WineError

LEFT_BEHIND = ("registrations", "synchronous", "interfaces")


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """Everything of guest-driver/, built."""
    return build_guest_binaries().folder


@pytest.fixture(scope="session")
def wine(build_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wine]:
    """A Wine with winepnp.sys loaded."""
    folder = tmp_path_factory.mktemp("wine")
    with Wine(folder, pnp_manager=build_dir / "winepnp.sys", pnp_feed=build_dir / "pnpfeed.exe") as created:
        yield created


@pytest.fixture
def pnp(wine: Wine) -> Iterator[PnpFeed]:
    """A feed into a winepnp.sys without registrations and interfaces; 1 processor of 8, 1 GiB.

    What a test leaves behind there ends with a reboot of Wine.
    """
    feed = wine.feed()
    feed.ok("system 1 1073741824 8")
    yield feed
    try:
        feed.ok("fail clear")
        state = feed.state()
    except (WineError, OSError):  # winepnp.sys or the feed is gone
        wine.reboot()
        return
    if any(state[name] for name in LEFT_BEHIND):
        wine.reboot()
