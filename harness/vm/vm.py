# SPDX-License-Identifier: MIT
"""One VM: QEMU under control over QMP, vCPUs and DIMMs to plug, and what QEMU says is there.

Start at :meth:`Vm.launch`. What the guest inside makes of it is no business of this module.
"""

from __future__ import annotations

import functools
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

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
from harness.evidence.witness import PluggedDevice, VmState
from harness.vm.argv import VmConfig, command_line
from harness.vm.backend import Backend
from harness.vm.hotplug_answers import VcpuSlot, read_dimm_place, read_vcpu_slots
from harness.vm.huge_pages import check_huge_pages
from harness.vm.overlay import overlay_of
from harness.vm.qemu_answers import read_forwarded_port, read_version
from harness.vm.qemu_process import QemuProcess
from harness.vm.trace import TraceLog
from harness.vm.watch import VmWatch
from harness.wires.qmp import Listener, QmpSession
from harness.wires.qtest import QtestSession, passing

logger = logging.getLogger(__name__)

QMP_LOG_FILE = "qmp.jsonl"

#: For commands whose caller gives no deadline. QEMU answers in milliseconds unless its host is overloaded.
COMMAND_WITHIN_S = 30.0

#: QEMU's connection ends a moment before the process does.
EXIT_WITHIN_S = 5.0
#: How long a QEMU that is started may say nothing, unless it takes all its memory from the host at once.
SPEAKS_WITHIN_S = 10.0
QUIT_WITHIN_S = 5.0

#: A guest is at rest when QEMU wants less than this part of one processor for so long. An idle one uses 0.05.
RESTING_SHARE = 0.15
RESTING_S = 0.5


class Vm:
    """A running QEMU. Made by :meth:`launch` only.

    Every call raises :class:`VmExitedError` when QEMU ended, :class:`DeadlineExpiredError` when it does
    not answer in time. Without a deadline, calls wait at most :data:`COMMAND_WITHIN_S`.
    """

    def __init__(
        self, config: VmConfig, folder: Path, process: QemuProcess, qmp: QmpSession, watch: VmWatch
    ) -> None:
        self.config = config
        self.folder = folder
        self.qmp = qmp
        self.watch = watch  #: what befell the guest that nobody asked for
        self.heartbeat = process.heartbeat  #: when QEMU did not run
        self.qtest: QtestSession | None = None  #: if the config says ``qtest``
        self.trace: TraceLog | None = None  #: what the guest's AML does; None if QEMU does not tell
        self.qemu_version = ""  #: such as ``7.2.22``, from query-version
        self._process = process
        qmp.explain_lost = self._explain_lost

    @classmethod
    @contextmanager
    def launch(cls, config: VmConfig, *, folder: Path, deadline: Deadline) -> Iterator[Vm]:
        """Start QEMU and end it at the end; ready when it answers on QMP, which says nothing of the guest.
        The folder gets ``qemu-command.txt`` and all logs.

        :raise VmError: if QEMU does not start, with what it printed, or says nothing for
            :data:`SPEAKS_WITHIN_S`.
        :raise VmStalledError: it says nothing, for it was not given the time to.
        :raise HostError: if QEMU is not installed, or the host lacks the huge pages asked for.
        :raise ImageError: if the disk, or the firmware's variables, cannot be read.
        """
        memories = config.shape.boot_memories if config.ram_file is None else ()
        check_huge_pages([(memory.backend, memory.size_bytes) for memory in memories])
        ours, theirs = socket.socketpair()
        with ExitStack() as stack:
            try:
                qtest = stack.enter_context(QtestSession.pair()) if config.qtest else None
                trace = stack.enter_context(TraceLog.open(folder))
                over = functools.partial(overlay_of, folder=folder, deadline=deadline)
                with theirs, over(config.disk) as disk, over(config.variables) as nvram, passing(qtest) as fd:
                    qmp_fd = theirs.fileno()
                    fds = {"overlay_fd": disk, "variables_fd": nvram, "qtest_fd": fd}
                    argv = command_line(config, folder=folder, qmp_fd=qmp_fd, **fds, trace=trace.arguments())
                    pass_fds = [qmp_fd, trace.fd, *(one for one in fds.values() if one is not None)]
                    process = stack.enter_context(QemuProcess.start(argv, folder=folder, pass_fds=pass_fds))
            except BaseException:
                ours.close()
                raise
            since_s = time.monotonic()
            if not any(memory.backend.prealloc for memory in memories):
                deadline = deadline.sooner(SPEAKS_WITHIN_S)
            try:
                connecting = QmpSession.connect(ours, log=folder / QMP_LOG_FILE, deadline=deadline)
                qmp = stack.enter_context(connecting)
                watch = stack.enter_context(VmWatch.open(qmp))
                vm = cls(config, folder, process, qmp, watch)
                vm.qtest = qtest
                stack.callback(vm._quit)
                # QEMU may greet before it has looked at all of its command line, but answers only after.
                vm.qemu_version = read_version(vm.execute("query-version", deadline=deadline))
                vm.trace = trace if trace.works(qmp, deadline=deadline) else None
            except (QmpLostError, VmExitedError) as err:
                process.wait(Deadline.after(EXIT_WITHIN_S))
                raise VmError(f"QEMU did not start; {process.describe_end()}") from err
            except DeadlineExpiredError as err:
                raise process.silent(since_s=since_s) from err
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

    def pause(self, *, deadline: Deadline | None = None) -> None:
        """Let the vCPUs stand still."""
        with self.watch.asked_for("STOP"):
            self.execute("stop", deadline=deadline)

    def resume(self, *, deadline: Deadline | None = None) -> None:
        """Let the vCPUs run."""
        with self.watch.asked_for("RESUME"):
            self.execute("cont", deadline=deadline)

    def await_rest(self, *, deadline: Deadline) -> bool:
        """Wait until the guest has nothing left to do, and return whether it came to that in time.

        :raise BenchError: as :meth:`check`; a guest that has ended is not one at rest.
        """
        resting = False
        while not resting and not deadline.expired():
            resting = self.heartbeat.await_rest(resting_s=RESTING_S, share=RESTING_SHARE)
            self.check()
        return resting

    def raise_if_exited(self) -> None:
        """Do nothing while QEMU runs.

        :raise VmExitedError: if it ended, with its exit status or signal and its last words.
        """
        if self._process.exit_status() is not None:
            raise self._exited_error()

    def check(self) -> None:
        """Do nothing while QEMU runs and nothing has befallen the guest that nobody asked for.

        :raise VmExitedError: as :meth:`raise_if_exited`.
        :raise GuestGoneError: as :meth:`VmWatch.check`, as is VmDisturbedError.
        """
        self.raise_if_exited()
        self.watch.check()

    @contextmanager
    def booting(self) -> Iterator[Callable[[], None]]:
        """Let the guest restart a few times in the block; gives a :meth:`check` for one that boots.

        The check raises GuestError for a guest that restarts again and again (:meth:`VmWatch.booting`).
        """
        with self.watch.booting() as check_guest:

            def check() -> None:
                self.raise_if_exited()
                check_guest()

            yield check

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
        self,
        size_bytes: int,
        *,
        device_id: str,
        slot: int | None = None,
        node: int | None = None,
        address: int | None = None,
        backend: Backend | None = None,
        deadline: Deadline | None = None,
    ) -> PluggedDevice:
        """Plug a DIMM with a memory backend of its own. See :meth:`state` for whether and where it is there.

        QEMU chooses the place as far as it is not given; the backend is that of the VM's shape unless given.

        :raise QmpCommandError: if QEMU refuses either; nothing is changed.
        :raise HostError: if it is to be of huge pages that the host does not have; nothing is changed.
        """
        deadline = deadline or Deadline.after(COMMAND_WITHIN_S)
        memdev = f"{device_id}-ram"
        backend = backend or self.config.shape.backend
        check_huge_pages([(backend, size_bytes)])
        memory = backend.properties(memdev, size_bytes, mem_path=self.folder)
        self.execute("object-add", memory, deadline=deadline)
        plugged_at_s = time.monotonic()
        try:
            dimm = {"driver": "pc-dimm", "id": device_id, "memdev": memdev}
            chosen = {"slot": slot, "node": node, "addr": address}
            place = {key: value for key, value in chosen.items() if value is not None}
            self.execute("device_add", {**dimm, **place}, deadline=deadline)
        except QmpCommandError:
            try:
                self.execute("object-del", {"id": memdev}, deadline=deadline)
            except BenchError as err:
                logger.warning("the memory backend %s of a refused DIMM stays behind: %s", memdev, err)
            raise
        return PluggedDevice(device_id, "dimm", size_bytes, plugged_at_s)

    def state(self, *, deadline: Deadline | None = None) -> VmState:
        """Ask QEMU anew which vCPUs and DIMMs are there and whether it runs: the witness ``vm``."""
        deadline = deadline or Deadline.after(COMMAND_WITHIN_S)
        slots = self.vcpu_slots(deadline=deadline)
        vcpus = self.execute("query-cpus-fast", deadline=deadline)
        devices = self.execute("query-memory-devices", deadline=deadline)
        summary = self.execute("query-memory-size-summary", deadline=deadline)
        status = self.execute("query-status", deadline=deadline)
        dimms = [device["data"] for device in devices if device["type"] == "dimm"]
        return VmState(
            vcpu_ids=tuple(slot.device_id for slot in slots if slot.device_id is not None),
            active_vcpus=len(vcpus),
            dimm_bytes={dimm["id"]: dimm["size"] for dimm in dimms},
            plugged_memory_bytes=summary.get("plugged-memory", 0),
            dimm_places={dimm["id"]: read_dimm_place(dimm) for dimm in dimms},
            run_state=status["status"],
        )

    def ssh_port(self, *, deadline: Deadline | None = None) -> int:
        """Return the port on 127.0.0.1 that QEMU forwards to the guest's SSH server.

        :raise VmError: if this VM has no network.
        """
        query = {"command-line": "info usernet"}
        text = self.execute("human-monitor-command", query, deadline=deadline)
        return read_forwarded_port(text)

    def _explain_lost(self, error: QmpLostError) -> BenchError:
        if self._process.wait(Deadline.after(EXIT_WITHIN_S)):
            return self._exited_error()
        return error

    def _exited_error(self) -> VmExitedError:
        reasons = [str(event.data.get("reason")) for event in self.watch.events if event.name == "SHUTDOWN"]
        after = f" after a shutdown ({', '.join(reasons)})" if reasons else ""
        return VmExitedError(self._process.describe_end() + after)

    def _quit(self) -> None:
        if self._process.exit_status() is not None or self.heartbeat.is_stopped():
            return
        deadline = Deadline.after(QUIT_WITHIN_S)
        try:
            with self.watch.asked_for("SHUTDOWN"):
                self.qmp.execute("quit", deadline=deadline)
        except (QmpError, VmExitedError):
            pass  # it may be gone before it answers
        except DeadlineExpiredError as err:
            logger.warning("QEMU %s does not quit: %s", self.pid, err)
        self._process.wait(deadline)
