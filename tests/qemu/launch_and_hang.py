# SPDX-License-Identifier: MIT
"""A harness to kill: launches a VM, says QEMU's process id, and waits for its own end."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from harness.deadline import Deadline
from harness.vm.argv import Disk
from harness.vm.vm import Vm
from tests.qemu.bare_vm import bare_config


def main(folder: Path, disk: Path, qemu: str) -> None:
    config = bare_config(qemu=qemu, disk=Disk(path=disk))
    with Vm.launch(config, folder=folder, deadline=Deadline.after(30)) as vm:
        sys.stdout.write(f"{vm.pid}\n")
        sys.stdout.flush()
        threading.Event().wait(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
