# SPDX-License-Identifier: MIT
"""A layer below the driver breaks, and is blamed before the driver, which was never told either."""

from __future__ import annotations

import threading
from collections.abc import Callable

from harness.deadline import Deadline
from harness.evidence.verdict import Verdict
from harness.evidence.witness import Witness
from harness.guest.ssh_guest import SshGuest
from harness.run.report import failure_lines
from tests.e2e.conftest import shell

Run = Callable[..., Verdict]

ONE_DIMM = """
within: 5 s
steps:
  - plug: {dimms: [128 MiB]}
    expect: {driver: [memory]}
"""


def assert_blamed(verdict: Verdict, witness: Witness) -> None:
    """Check that this layer took the blame, though the driver logged nothing."""
    assert verdict.outcome == "failed", failure_lines(verdict)
    witnesses = [mismatch.witness for mismatch in verdict.mismatches]
    assert witnesses[0] == witness, verdict.mismatches
    assert "driver" in witnesses
    assert f"blame     {witness} " in "\n".join(failure_lines(verdict))


def leave_offline(guest: SshGuest) -> None:
    """Have Linux take in memory without using it; the driver is not told of it then."""
    shell(guest, "echo offline >/sys/devices/system/memory/auto_online_blocks")


def test_of_a_dimm_that_is_gone_again_the_vm(run: Run) -> None:
    def unplug(guest: SshGuest) -> None:
        # Linux gives a DIMM back at once as long as nobody has brought it online.
        leave_offline(guest)
        listening = threading.Event()

        def unplug_once_taken() -> None:
            with guest.vm.listen("ACPI_DEVICE_OST") as ost:
                listening.set()
                ost.get(deadline=Deadline.after(60))
            guest.vm.execute("device_del", {"id": "dimm0"})

        threading.Thread(target=unplug_once_taken, daemon=True).start()
        assert listening.wait(60)

    assert_blamed(run(ONE_DIMM, sabotage={1: unplug}), "vm")


def test_of_a_plug_that_the_guest_is_deaf_to_the_ospm(run: Run) -> None:
    def deafen(guest: SshGuest) -> None:
        # QEMU announces DIMMs with this general purpose event (docs/specs/acpi_mem_hotplug.rst).
        shell(guest, "echo disable >/sys/firmware/acpi/interrupts/gpe03")

    assert_blamed(run(ONE_DIMM, sabotage={1: deafen}), "ospm")


def test_of_memory_that_stays_offline_the_guest(run: Run) -> None:
    assert_blamed(run(ONE_DIMM, sabotage={1: leave_offline}), "guest")
