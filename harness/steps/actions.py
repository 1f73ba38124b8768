# SPDX-License-Identifier: MIT
"""All step kinds, in the order in which pages and messages name them."""

from __future__ import annotations

from harness.steps.action import Action
from harness.steps.announce import Announce
from harness.steps.driver import SwitchDriver
from harness.steps.pause import Pause
from harness.steps.plug import Plug
from harness.steps.power import Power
from harness.steps.qmp import Qmp
from harness.steps.wait import Wait

ACTIONS: tuple[type[Action], ...] = (
    Plug,
    SwitchDriver,
    Power,
    Pause,
    Qmp,
    Announce,
    Wait,
)
