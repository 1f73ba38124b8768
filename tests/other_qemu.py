# SPDX-License-Identifier: MIT
"""The QEMU of the other Debian: unpacked from its packages into the cache, never installed.

Debian 12 has QEMU 7.2 and Debian 13 has 10.0. Whichever is this host's, the tests run with the other one too.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from harness.deadline import Deadline
from harness.host.cache import built_folder, cache_folder, content_key
from harness.host.tools import find_tool, run_tool
from harness.vm.accelerator import find_qemu_version

#: Its mirror is ``HIL_MIRROR`` or Debian's own, as for the reference image.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ("qemu-system-x86", "libc6")
UNPACKED_WITHIN_S = 600.0

# Debian 12's packages still have some libraries, and the loader, outside /usr.
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_LOADER = "ld-linux-x86-64.so.2"
_PROGRAM = "usr/bin/qemu-system-x86_64"
#: Where QEMU finds its parts, which it would look for beside its loader.
_FIRMWARE = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
_MODULES = "usr/lib/x86_64-linux-gnu/qemu"


def other_suite() -> str:
    """Return the Debian whose QEMU this host does not have."""
    return "bookworm" if find_qemu_version() >= (10, 0, 0) else "trixie"


def other_qemu() -> Path:
    """Return the program of the other Debian's QEMU, unpacked first if the cache does not have it.

    :raise HostError: mmdebstrap or Debian's keyring is missing, or unpacking failed.
    """
    suite = other_suite()
    key = content_key([Path(__file__).read_bytes(), suite])
    folder = cache_folder().absolute() / "other-qemu" / key
    return built_folder(folder, lambda scratch: _unpack(scratch, suite=suite, folder=folder)) / "qemu"


def _unpack(scratch: Path, *, suite: str, folder: Path) -> None:
    deadline = Deadline.after(UNPACKED_WITHIN_S)
    archive, tree = scratch / "tree.tar", scratch / "tree"
    fetch = [
        find_tool("mmdebstrap"),
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=extract",
        "--format=tar",
        f"--include={','.join(PACKAGES)}",
        # The mmdebstrap of one Debian need not know who signs the other.
        f"--keyring={KEYRING}",
        suite,
        archive,
        *filter(None, [os.environ.get("HIL_MIRROR")]),
    ]
    run_tool(fetch, deadline=deadline)
    tree.mkdir()
    # Only root may make device nodes, and nobody needs them here.
    unpack = [find_tool("tar"), "--extract", "--no-same-owner", "--exclude=./dev"]
    run_tool([*unpack, f"--directory={tree}", f"--file={archive}"], deadline=deadline)
    archive.unlink()
    _write_program(scratch / "qemu", tree, folder / "tree")


def _write_program(program: Path, tree: Path, place: Path) -> None:
    """Write what starts the QEMU in the tree once it is at its place: with its own loader and libraries.

    Those of this host may be too old for it.
    """
    libraries = [name for name in _LIBRARIES if (tree / name).is_dir()]
    loader = next(Path(name, _LOADER) for name in libraries if (tree / name / _LOADER).is_file())
    command = [
        str(place / loader),
        *("--library-path", ":".join(str(place / name) for name in libraries)),
        # What a list of processes shows; the loader's name would say nothing.
        *("--argv0", "qemu-system-x86_64"),
        str(place / _PROGRAM),
        *(word for name in _FIRMWARE for word in ("-L", str(place / name))),
    ]
    modules = shlex.quote(str(place / _MODULES))
    program.write_text(f'#!/bin/sh\nQEMU_MODULE_DIR={modules} exec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
