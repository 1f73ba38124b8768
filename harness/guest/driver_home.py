# SPDX-License-Identifier: MIT
"""What a guest profile says of the driver under test: its file, and what it is in the guest."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr

from harness.document.model import Text, YamlModel, error_at
from harness.host.checkout import SAMPLE_DRIVER

#: Registry values that the harness writes itself, docs/driver-log.md, in lower case: there case is not told.
_OWN_VALUES = {
    "interfaces": "a plan's driver",
    "synchronous": "a plan's driver",
    "includeexisting": "a plan's driver",
    "logpath": "driver_log",
}
_LARGEST_DWORD = 0xFFFFFFFF


def _registry_values(values: object) -> object:
    if not isinstance(values, dict):
        return values
    for name, value in values.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise error_at(f"{name!r} is no name of a registry value; allowed: a text of one line", name)
        if name.lower() in _OWN_VALUES:
            said_by = _OWN_VALUES[name.lower()]
            raise error_at(f"{name}: the harness writes this value, as {said_by} says; leave it out", name)
        is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_DWORD
        if not is_number and not (isinstance(value, str) and value.isprintable()):
            allowed = f"a whole number from 0 to {_LARGEST_DWORD}, or a text of one line"
            raise error_at(f"{name}: {value!r} is no registry value; allowed: {allowed}", name)
    return values


def _windows_path(path: str) -> str:
    # The driver hands its path to the kernel as it is, and to that only backslashes part folders.
    if not re.match(r"[A-Za-z]:\\", path) or "/" in path:
        allowed = "allowed: a whole path with backslashes, such as C:\\folder\\name"
        raise ValueError(f"'{path}' is no path of the guest's; {allowed}")
    return path


#: A path of the guest's, whole and with backslashes.
WindowsPath = Annotated[Text, AfterValidator(_windows_path)]


class DriverHome(YamlModel):
    """The driver: its file, its service in the guest, and the folder its files are put into there."""

    # Not in repr, which is part of a template's key: there the file counts by its content.
    file: Text | None = Field(
        default=None,
        repr=False,
        description="the .sys under test, relative to the profile's folder; the sample driver unless given",
    )
    signature: Literal["required", "none"] = Field(
        default="none",
        repr=False,
        description="whether the guest loads signed drivers only; that file is refused then if it has none",
    )
    service: Text = SAMPLE_DRIVER
    load_order_group: Text | None = None
    directory: WindowsPath
    parameters: Annotated[dict[str, StrictInt | StrictStr], BeforeValidator(_registry_values)] = Field(
        default={},
        description="more values for the service's Parameters key: numbers (REG_DWORD) and texts (REG_SZ)",
    )
