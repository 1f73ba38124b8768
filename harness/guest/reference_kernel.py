# SPDX-License-Identifier: MIT
"""What a driver in the reference guest can import: what its Wine exports, and what ``winepnp.sys`` supplies.

It stands in ``reference_kernel.txt``, so that a driver can be looked at before any image is built; a test
holds the list to the Wine in the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from harness.guest.driver_file import Finding, listed

LIST = Path(__file__).with_suffix(".txt")
_SUPPLIED = "winepnp.sys"
_STUB = " stub"


def imports_lacking(module: str, names: Sequence[str]) -> Iterator[Finding]:
    """Yield what is wrong with importing these names from that module.

    Wine loads a driver whatever names it imports; what is not there, or only a stub, ends the driver where it
    is called (Wine dlls/ntdll/loader.c, ``allocate_stub``). A module that is not there keeps it from loading.
    """
    modules = _exports()
    exports = modules.get(module.lower())
    if exports is None or module.lower() == _SUPPLIED:
        there = ", ".join(name for name in modules if name != _SUPPLIED)
        yield Finding(
            f"imports from {module}, which the reference guest does not have (it has {there});"
            " do without it, or run on Windows"
        )
        return
    supplied = modules[_SUPPLIED]
    missing = [name for name in names if name not in exports and name not in supplied]
    stubs = [name for name in names if exports.get(name) is False and name not in supplied]
    if missing:
        yield Finding(
            f"imports {listed(missing)} from {module}, where the reference guest's kernel, Wine, has no such"
            " name; look it up with MmGetSystemRoutineAddress and do without, or run on Windows"
        )
    if stubs:
        yield Finding(
            f"imports {listed(stubs)} from {module}: a mere name in the reference guest's kernel, Wine,"
            " which ends the driver when it calls it",
            fatal=False,
        )


@cache
def _exports() -> dict[str, dict[str, bool]]:
    """Return by module what it exports, and whether there is anything behind it."""
    found: dict[str, dict[str, bool]] = {}
    for line in LIST.read_text(encoding="ascii").splitlines():
        if line.startswith("["):
            exports = found[line.strip("[]")] = {}
        elif not line.startswith("#"):
            exports[line.removesuffix(_STUB)] = not line.endswith(_STUB)
    return found
