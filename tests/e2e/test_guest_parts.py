# SPDX-License-Identifier: MIT
"""A part of the real reference guest does not come up, or ends later: it is named, and why."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.guest_parts import check_parts
from harness.guest.ssh_guest import SshGuest
from harness.plan.plan import Plan
from harness.run.session import Session
from harness.vm.vm import Vm
from harness.wires.ssh import SshConnection
from tests.e2e.conftest import shell
from tests.opening import open_for

Load = Callable[[str], Plan]

ONE_VCPU = "steps: [{plug: {vcpus: 1}, expect: {driver: [processor]}}]"
PNP_MANAGER = "/var/lib/wine/drive_c/windows/system32/drivers/winepnp.sys"


def soon() -> Deadline:
    return Deadline.after(60)


def complaint(ssh: SshConnection) -> str:
    with pytest.raises(GuestError) as caught:
        check_parts(ssh, deadline=soon())
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith("; see serial.log")
    return text


def end(guest: SshGuest, process: str, *, then: str = "") -> None:
    """Kill a process of the guest, given as its id in shell, and wait for the end of it and of a part."""
    wait = "while [ -e /proc/$pid/exe ]; do :; done"
    shell(guest, f"pid={process}; kill -9 $pid; {wait}; {f'pid={then}; {wait}' if then else ''}")


class TestInAFork:
    @pytest.fixture
    def guest(self, session: Session, load: Load, tmp_path: Path) -> Iterator[SshGuest]:
        plan = load(ONE_VCPU)
        folder = tmp_path / "evidence"
        folder.mkdir()
        with open_for(session.bench(plan), plan, folder=folder) as guest:
            check_parts(guest.ssh, deadline=soon())
            yield guest

    def test_a_feeder_that_was_killed(self, guest: SshGuest) -> None:
        end(guest, "$(cat /run/hil/hpfeed.pid)")
        assert complaint(guest.ssh).startswith("the guest's ACPI feeder hpfeed has ended: ")

    def test_a_feeder_whose_windows_half_was_killed(self, guest: SshGuest) -> None:
        end(guest, "$(pidof pnpfeed.exe)", then="$(cat /run/hil/hpfeed.pid)")
        assert complaint(guest.ssh).startswith("the guest's ACPI feeder hpfeed has ended: the feed has ended")

    def test_a_pnp_manager_that_was_killed(self, guest: SshGuest) -> None:
        end(guest, "$(cat /run/hil/winepnp.pid)")
        assert complaint(guest.ssh).startswith("the guest's PnP manager winepnp has ended")


class TestAtItsStart:
    @pytest.mark.parametrize(
        ("file", "content", "says"),
        [
            pytest.param(
                "/usr/local/bin/hpfeed",
                "#!/bin/sh\necho 'hpfeed: libc.so.6: version `GLIBC_2.38 not found' >&2\nexit 1\n",
                "hpfeed did not start: hpfeed: libc.so.6: version `GLIBC_2.38 not found",
                id="a-feeder-that-does-not-run-there",
            ),
            pytest.param(
                PNP_MANAGER, "no driver", "winepnp did not start: ", id="a-driver-that-does-not-load"
            ),
        ],
    )
    def test_a_part_that_does_not_come_up(
        self, session: Session, load: Load, tmp_path: Path, file: str, content: str, says: str
    ) -> None:
        plan = load(ONE_VCPU)
        bench = session.bench(plan)
        disk = self.broken(bench.image.disk, file=file, content=content, folder=tmp_path)
        config = replace(bench, image=replace(bench.image, disk=disk)).vm_config(plan.vm)
        deadline = Deadline.after(bench.profile.deadlines.boot_s)
        folder = tmp_path / "evidence"
        folder.mkdir()
        with (
            Vm.launch(config, folder=folder, deadline=deadline) as vm,
            SshConnection.connect(
                "127.0.0.1",
                vm.ssh_port(deadline=deadline),
                user=bench.profile.ssh.user,
                key_file=bench.image.user_key,
                host_key=bench.image.host_key,
                deadline=deadline,
            ) as ssh,
        ):
            text = complaint(ssh)
        assert says in text
        console = (folder / "serial.log").read_text(errors="replace")
        assert f"not ready: {says.split()[0]}: " in console
        assert re.search(r"guest-up: [\d.]+ ready", console) is None

    @staticmethod
    def broken(disk: Path, *, file: str, content: str, folder: Path) -> Path:
        """Return a copy of an image in which a program is another one."""
        copy, program, orders = (folder / name for name in ("disk.img", "program", "orders"))
        shutil.copyfile(disk, copy)
        program.write_text(content)
        orders.write_text(f"rm {file}\nwrite {program} {file}\nset_inode_field {file} mode 0100755\n")
        subprocess.run(["/usr/sbin/debugfs", "-w", "-f", orders, copy], check=True, capture_output=True)
        return copy
