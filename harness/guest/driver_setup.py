# SPDX-License-Identifier: MIT
"""How the driver under test is configured before it is loaded: as written in a plan."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool

from harness.document.model import YamlModel


class DriverSetup(YamlModel):
    """How the driver is configured before the first step."""

    interfaces: Literal["both", "processor", "memory"] = Field(
        default="both", description="The interface classes it registers for."
    )
    synchronous: StrictBool = Field(
        default=False, description="Whether it registers the synchronous processor callback too."
    )
    existing: StrictBool = Field(
        default=False, description="Whether it is also told of the interfaces that exist when it registers."
    )
