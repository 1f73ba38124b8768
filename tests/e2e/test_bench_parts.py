# SPDX-License-Identifier: MIT
"""A part of the bench inside the guest breaks under a plan: that is an error, and not the driver's fault."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness.evidence.verdict import Verdict
from harness.guest.ssh_guest import SshGuest
from harness.run.report import failure_lines
from tests.e2e.conftest import shell

Run = Callable[..., Verdict]

LOG = "/C:/ProgramData/hpnotify/hpnotify.log"

#: As many records as do not fit into what is left of a block.
BURST = """
within: 3 s
steps:
  - plug: {vcpus: 1}
    expect: {driver: [processor]}
  - plug: {dimms: [128 MiB, 128 MiB, 128 MiB, 128 MiB]}
    expect: {driver: [memory, memory, memory, memory]}
"""


def fill_the_disk(guest: SshGuest) -> None:
    fill = "for size in 1M 1k; do dd if=/dev/zero bs=$size 2>/dev/null >>/fill; done"
    assert " 100% " in shell(guest, f"{fill}; df / | tail -n 1")


def end(process: str) -> Callable[[SshGuest], str]:
    """Return what kills a process of the guest, given as its id in shell, and waits for its end."""
    wait = "while [ -e /proc/$pid/exe ]; do :; done"
    return lambda guest: shell(guest, f"pid={process}; kill -9 $pid; {wait}")


@pytest.mark.parametrize(
    ("sabotage", "says"),
    [
        pytest.param(end("$(cat /run/hil/hpfeed.pid)"), "ACPI feeder hpfeed has ended", id="feeder-killed"),
        pytest.param(end("$(pidof pnpfeed.exe)"), "ACPI feeder hpfeed has ended", id="its-other-half-killed"),
        pytest.param(
            lambda guest: shell(guest, "killall -STOP hpfeed"),
            r"hpfeed \(process \d+\) was stopped by a signal",
            id="feeder-stopped",
        ),
        pytest.param(
            end("$(cat /run/hil/winepnp.pid)"), "PnP manager winepnp has ended", id="pnp-manager-killed"
        ),
        pytest.param(
            lambda guest: shell(guest, "kill -STOP $(cat /run/hil/winepnp.pid)"),
            r"winedevice\.exe \(process \d+\) was stopped by a signal",
            id="pnp-manager-stopped",
        ),
        pytest.param(fill_the_disk, "no room for the driver's log: .*No space left", id="disk-full"),
    ],
)
def test_is_an_error_that_names_the_part(run: Run, sabotage: Callable[[SshGuest], object], says: str) -> None:
    verdict = run(BURST, sabotage={2: sabotage})
    assert verdict.outcome == "error", failure_lines(verdict)
    assert verdict.unfinished is not None
    assert verdict.unfinished.number == 2
    assert verdict.error is not None
    assert re.search(says, verdict.error), verdict.error
