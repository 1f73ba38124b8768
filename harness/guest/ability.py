# SPDX-License-Identifier: MIT
"""What each kind of guest has and can do; in a module that loads nothing, as plans are checked by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from harness.evidence.witness import WITNESSES, Witness

#: The kinds of guest; each has a file of its own, see :mod:`harness.guest.kinds`.
System = Literal["windows", "linux-wine", "qtest"]

#: ``driver``: load and unload the driver under test; ``power``: restart and switch itself off; ``announce``:
#: have its PnP manager tell of an interface without hardware.
Ability = Literal["driver", "power", "announce"]

ABILITIES: Mapping[System, frozenset[Ability]] = {
    "windows": frozenset({"driver", "power", "announce"}),
    "linux-wine": frozenset({"driver", "power", "announce"}),
    "qtest": frozenset({"power"}),
}

#: The witnesses that a guest of each kind has.
WITNESSES_OF: Mapping[System, frozenset[Witness]] = {
    "windows": frozenset(WITNESSES),
    "linux-wine": frozenset(WITNESSES),
    "qtest": frozenset({"vm", "ospm"}),
}
