# SPDX-License-Identifier: MIT
"""One VM: QEMU under control over QMP, vCPUs and DIMMs to plug, and what QEMU says is there.

Start at :meth:`Vm.launch`. What the guest inside makes of it is no business of this module.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from harness import migration
from harness.command_line import VmConfig, command_line
from harness.deadline import Deadline
from harness.errors import (
    BenchError,
    DeadlineExpiredError,
    QmpCommandError,
    QmpError,
    QmpLostError,
    VmError,
    VmExitedError,
)
from harness.evidence import OspmStatus, PluggedDevice, VmState
from harness.hotplug_answers import VcpuSlot, read_ospm_status, read_vcpu_slots
from harness.overlay import nameless_overlay
from harness.qemu_process import QemuProcess
from harness.qmp import Listener, QmpSession

logger = logging.getLogger(__name__)

QMP_LOG_FILE = "qmp.jsonl"

#: For commands whose caller gives no deadline. QEMU answers in milliseconds unless its host is overloaded.
COMMAND_WITHIN_S = 30.0

#: QEMU's connection ends a moment before the process does.
EXIT_WITHIN_S = 5.0
QUIT_WITHIN_S = 5.0

#: A guest is at rest when QEMU uses less than this part of one processor for so long. An idle one uses 0.05.
RESTING_SHARE = 0.15
RESTING_S = 0.5

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(?P<port>\d+)\s")


class Vm:
    """A running QEMU. Made by :meth:`launch` only.

    Every call raises :class:`VmExitedError` when QEMU ended, :class:`DeadlineExpiredError` when it does
    not answer in time. Without a deadline, calls wait at most :data:`COMMAND_WITHIN_S`.
    """

    def __init__(
        self, config: VmConfig, folder: Path, process: QemuProcess, qmp: QmpSession, shutdowns: Listener
    ) -> None:
        self.config = config
        self.folder = folder
        self.qmp = qmp
        self.qemu_version = ""  #: such as ``7.2.22``, from query-version
        self._process = process
        self._shutdowns = shutdowns
        qmp.explain_lost = self._explain_lost

    @classmethod
    @contextmanager
    def launch(cls, config: VmConfig, *, folder: Path, deadline: Deadline) -> Iterator[Vm]:
        """Start QEMU and end it at the end; ready when it answers on QMP, which says nothing of the guest.

        The folder gets ``qemu-command.txt``, ``qmp.jsonl``, ``serial.log`` and ``qemu-stderr.log``.

        :raise VmError: if QEMU does not start, with what it printed.
        :raise HostError: if QEMU is not installed.
        :raise ImageError: if the disk cannot be read.
        """
        ours, theirs = socket.socketpair()
        with ExitStack() as stack:
            try:
                with theirs, _overlay(config, folder, deadline) as overlay_fd:
                    qmp_fd = theirs.fileno()
                    argv = command_line(config, folder=folder, qmp_fd=qmp_fd, overlay_fd=overlay_fd)
                    pass_fds = [qmp_fd, *([overlay_fd] if overlay_fd is not None else [])]
                    process = stack.enter_context(QemuProcess.start(argv, folder=folder, pass_fds=pass_fds))
            except BaseException:
                ours.close()
                raise
            try:
                connecting = QmpSession.connect(ours, log=folder / QMP_LOG_FILE, deadline=deadline)
                qmp = stack.enter_context(connecting)
                shutdowns = stack.enter_context(qmp.listen("SHUTDOWN"))
                vm = cls(config, folder, process, qmp, shutdowns)
                stack.callback(vm._quit)
                # QEMU may greet before it has looked at all of its command line, but answers only after.
                vm.qemu_version = vm._query_version(deadline)
            except (QmpLostError, VmExitedError) as err:
                process.wait(Deadline.after(EXIT_WITHIN_S))
                raise VmError(f"QEMU did not start; {process.describe_end()}") from err
            yield vm

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline | None = None
    ) -> Any:
        """Execute any QMP command; see :meth:`QmpSession.execute`."""
        return self.qmp.execute(command, arguments, deadline=deadline or Deadline.after(COMMAND_WITHIN_S))

    def send_fd(self, name: str, fd: int, *, deadline: Deadline | None = None) -> None:
        """Give QEMU a copy of an open file descriptor; see :meth:`QmpSession.send_fd`."""
        self.qmp.send_fd(name, fd, deadline=deadline or Deadline.after(COMMAND_WITHIN_S))

    def listen(self, *event_names: str) -> AbstractContextManager[Listener]:
        """Listen for QMP events; see :meth:`QmpSession.listen`."""
        return self.qmp.listen(*event_names)

    def resume(self, *, deadline: Deadline | None = None) -> None:
        """Let the vCPUs run."""
        self.execute("cont", deadline=deadline)

    def await_rest(self, *, deadline: Deadline) -> bool:
        """Wait until the guest has nothing left to do, and return whether it came to that in time."""
        resting = False
        while not resting and not deadline.expired():
            before_s = self._process.cpu_s()
            threading.Event().wait(RESTING_S)
            self.raise_if_exited()
            resting = self._process.cpu_s() - before_s < RESTING_SHARE * RESTING_S
        return resting

    def save_state(self, path: Path, *, deadline: Deadline) -> None:
        """Stop the VM and save its device state; see :func:`harness.migration.save_state`."""
        migration.save_state(self, path, deadline=deadline)

    def restore_state(self, path: Path, *, deadline: Deadline) -> None:
        """Load a saved device state and run; see :func:`harness.migration.restore_state`."""
        migration.restore_state(self, path, deadline=deadline)

    def raise_if_exited(self) -> None:
        """Do nothing while QEMU runs.

        :raise VmExitedError: if it ended, with its exit status or signal and its last words.
        """
        if self._process.exit_status() is not None:
            raise self._exited_error()

    def vcpu_slots(self, *, deadline: Deadline | None = None) -> tuple[VcpuSlot, ...]:
        """Return the places for vCPUs, taken and free, by ascending socket, core and thread."""
        return read_vcpu_slots(self.execute("query-hotpluggable-cpus", deadline=deadline))

    def plug_vcpu(self, slot: VcpuSlot, *, device_id: str, deadline: Deadline | None = None) -> PluggedDevice:
        """Plug a vCPU. That QEMU took the command is no evidence that it is there: see :meth:`state`.

        :raise QmpCommandError: if QEMU refuses it; nothing is changed.
        """
        plugged_at_s = time.monotonic()
        device = {"driver": slot.driver, "id": device_id, **slot.props}
        self.execute("device_add", device, deadline=deadline)
        return PluggedDevice(device_id, "vcpu", None, plugged_at_s)

    def plug_dimm(
        self, size_bytes: int, *, device_id: str, deadline: Deadline | None = None
    ) -> PluggedDevice:
        """Plug a DIMM with a memory backend of its own. See :meth:`state` for whether it is there.

        :raise QmpCommandError: if QEMU refuses either; nothing is changed.
        """
        deadline = deadline or Deadline.after(COMMAND_WITHIN_S)
        backend = f"{device_id}-ram"
        memory = {"qom-type": "memory-backend-ram", "id": backend, "size": size_bytes}
        self.execute("object-add", memory, deadline=deadline)
        plugged_at_s = time.monotonic()
        try:
            dimm = {"driver": "pc-dimm", "id": device_id, "memdev": backend}
            self.execute("device_add", dimm, deadline=deadline)
        except QmpCommandError:
            try:
                self.execute("object-del", {"id": backend}, deadline=deadline)
            except BenchError as err:
                logger.warning("the memory backend %s of a refused DIMM stays behind: %s", backend, err)
            raise
        return PluggedDevice(device_id, "dimm", size_bytes, plugged_at_s)

    def state(self, *, deadline: Deadline | None = None) -> VmState:
        """Ask QEMU anew which vCPUs and DIMMs are there: the witness ``vm``."""
        deadline = deadline or Deadline.after(COMMAND_WITHIN_S)
        slots = self.vcpu_slots(deadline=deadline)
        vcpus = self.execute("query-cpus-fast", deadline=deadline)
        devices = self.execute("query-memory-devices", deadline=deadline)
        summary = self.execute("query-memory-size-summary", deadline=deadline)
        dimms = [device["data"] for device in devices if device["type"] == "dimm"]
        return VmState(
            vcpu_ids=tuple(slot.device_id for slot in slots if slot.device_id is not None),
            active_vcpus=len(vcpus),
            dimm_bytes={dimm["id"]: dimm["size"] for dimm in dimms},
            plugged_memory_bytes=summary.get("plugged-memory", 0),
        )

    def ospm_statuses(self, *, deadline: Deadline | None = None) -> tuple[OspmStatus, ...]:
        """Return the guest's last ACPI answer per slot.

        A slot that the guest never touched has source 0 and status 0, so the events are the better witness.
        """
        entries = self.execute("query-acpi-ospm-status", deadline=deadline)
        at_s = time.monotonic()
        return tuple(read_ospm_status(entry, at_s) for entry in entries)

    def ssh_port(self, *, deadline: Deadline | None = None) -> int:
        """Return the port on 127.0.0.1 that QEMU forwards to the guest's SSH server.

        :raise VmError: if this VM has no network.
        """
        query = {"command-line": "info usernet"}
        text = self.execute("human-monitor-command", query, deadline=deadline)
        found = _FORWARD.search(text)
        if found is None:
            raise VmError(f"QEMU forwards no port to the guest: {text.strip() or 'it has no network'}")
        return int(found["port"])

    def _query_version(self, deadline: Deadline) -> str:
        version = self.execute("query-version", deadline=deadline)["qemu"]
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    def _explain_lost(self, error: QmpLostError) -> BenchError:
        if self._process.wait(Deadline.after(EXIT_WITHIN_S)):
            return self._exited_error()
        return error

    def _exited_error(self) -> VmExitedError:
        reasons = [str(event.data.get("reason")) for event in self._shutdowns.events]
        after = f" after a shutdown ({', '.join(reasons)})" if reasons else ""
        return VmExitedError(self._process.describe_end() + after)

    def _quit(self) -> None:
        if self._process.exit_status() is not None:
            return
        deadline = Deadline.after(QUIT_WITHIN_S)
        try:
            self.qmp.execute("quit", deadline=deadline)
        except (QmpError, VmExitedError):
            pass  # it may be gone before it answers
        except DeadlineExpiredError as err:
            logger.warning("QEMU %s does not quit: %s", self.pid, err)
        self._process.wait(deadline)


def _overlay(config: VmConfig, folder: Path, deadline: Deadline) -> AbstractContextManager[int | None]:
    disk = config.disk
    if disk is None or not disk.snapshot:
        return nullcontext()
    return nameless_overlay(disk.path, disk.format, folder=folder, deadline=deadline)
