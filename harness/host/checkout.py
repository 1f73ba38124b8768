# SPDX-License-Identifier: MIT
"""Where the project's own files lie: C sources, default plans, guest profiles.

In a checkout they are folders beside the package; a wheel carries the same folders inside the package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
_BESIDE, _INSIDE = PACKAGE.parent, PACKAGE / "data"
_SOURCES = "guest-driver"

#: The top folder of the checkout that this package is run from; None for an installed one.
CHECKOUT = _BESIDE if (_BESIDE / _SOURCES / "Makefile").is_file() else None
_HOME = CHECKOUT or _INSIDE

#: What a checkout builds from its C sources goes into a folder of this name beside them.
BUILD_FOLDER = "build"
#: Guest profiles lie in a folder of this name beside the plans.
PROFILES_FOLDER = "guests"

#: The sample driver's name: that of its file, its service and what it calls itself in its log.
SAMPLE_DRIVER = "hpnotify"
#: The C sources of the driver, the probe and the reference guest's programs.
DRIVER_SOURCES = _HOME / _SOURCES
DEFAULT_PLANS = _HOME / "testplans"
#: The project's own guest profiles, which serve plans elsewhere too.
PROJECT_PROFILES = DEFAULT_PLANS / PROFILES_FOLDER


def driver_source_files() -> dict[str, Path]:
    """Return the files that the driver and the guest's programs are built from, by name, in order."""
    built = DRIVER_SOURCES / BUILD_FOLDER
    files = (path for path in DRIVER_SOURCES.rglob("*") if path.is_file() and built not in path.parents)
    return dict(sorted((path.relative_to(DRIVER_SOURCES).as_posix(), path) for path in files))
