# SPDX-License-Identifier: MIT
"""What format a user's disk image has: asked of ``qemu-img``, for a name proves nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, get_args

from harness.deadline import Deadline
from harness.errors import HostError, ImageError
from harness.host.tools import find_tool, run_tool

ANSWER_WITHIN_S = 30.0

#: Those that QEMU reads below an overlay (QEMU docs/system/images.rst).
ImageFormat = Literal["raw", "qcow2", "vhdx", "vpc", "vmdk", "vdi"]

# What the endings of names promise.
_PROMISED = {
    ".qcow2": "qcow2",
    ".vhdx": "vhdx",
    ".vhd": "vpc",
    ".vmdk": "vmdk",
    ".vdi": "vdi",
}


def image_format(path: Path) -> ImageFormat:
    """Return the format of a disk image, which may be in use.

    :raise ImageError: it cannot be read, is empty or damaged, of a format that no guest's disk can have, or
        not of that which its name promises.
    :raise HostError: qemu-img is not installed.
    """
    command = [find_tool("qemu-img"), "info", "--force-share", "--output=json", os.fspath(path.absolute())]
    try:
        told = json.loads(run_tool(command, deadline=Deadline.after(ANSWER_WITHIN_S)))
        found, size_bytes = str(told["format"]), int(told["virtual-size"])
    except (HostError, ValueError, KeyError, TypeError) as err:
        raise ImageError(f"{path} is no usable disk image: {' '.join(str(err).split())}") from err
    if found == "raw" and path.suffix.lower() == ".iso":
        raise ImageError(
            f"{path} is named like a CD: install the system from it onto a disk and give that, or name it"
            " .img if it is a raw disk"
        )
    promised = _PROMISED.get(path.suffix.lower())
    # A fixed VHD has its mark at its end, where nobody looks for it: it is raw to qemu-img.
    if found == "raw" and promised is not None:
        raise ImageError(
            f"{path} is named like {promised}, and qemu-img finds nothing in it: convert it"
            " (qemu-img convert -O qcow2), or name it .img if it is a raw disk"
        )
    if size_bytes == 0:
        raise ImageError(f"{path} is an empty disk")
    for known in get_args(ImageFormat):
        if known == found:
            return known  # type: ignore[no-any-return]
    allowed = ", ".join(get_args(ImageFormat))
    raise ImageError(f"{path} is a disk of format {found}; a guest's may be {allowed}: convert it")
