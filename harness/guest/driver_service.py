# SPDX-License-Identifier: MIT
"""The driver under test as a service of the guest: installed, configured, started and stopped by ``sc.exe``.

Only programs that Windows and Wine both have are used: ``sc.exe`` and ``reg.exe``.
"""

from __future__ import annotations

import logging
import ntpath
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from harness.deadline import Deadline
from harness.errors import DriverRefusedError, GuestCommandError, GuestError
from harness.guest.profile import SshProfile
from harness.guest.sc_error import NO_SUCH_SERVICE, WINE_FAILED, ScError, describe, sc_error, was_run
from harness.wires.quoting import Shell
from harness.wires.ssh import CommandResult, SshConnection

logger = logging.getLogger(__name__)

_PAUSE_S = 0.05

# Registry values of the driver's service, docs/driver-log.md.
_INTERFACES = {"processor": 1, "memory": 2, "both": 3}

# The words stand in the output of every language, the names before the colon do not.
_STATE = re.compile(
    r":\s+[1-7]\s+(STOPPED|START_PENDING|STOP_PENDING|RUNNING|CONTINUE_PENDING|PAUSE_PENDING|PAUSED)"
)
_EXIT_CODE = re.compile(r"^\s*WIN32_EXIT_CODE\s*:\s*(\d+)", re.MULTILINE)
# What Wine prints, with exit status 1 too, when it has not even started the program (its start.exe).
_NOT_STARTED = "ShellExecuteEx failed"
# The same for a reason that is gone when it is started once more.
_NOT_STARTED_YET = f"{_NOT_STARTED}: Internal error"
#: How often a program is started that Wine does not start.
_MOST_STARTS = 3


class ServiceState(StrEnum):
    """Where the service control manager says a service is; pending covers every way between the others."""

    ABSENT = "absent"
    STOPPED = "stopped"
    RUNNING = "running"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class _Status:
    state: ServiceState
    error: int


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except GuestCommandError as err:
        raise DriverRefusedError(str(err)) from err


class DriverService:
    """Control over the driver under test. Every method returns once the guest says that it is done.

    :raise GuestCommandError: the guest refused, with its reason; from every method.
    :raise GuestError: the guest could not even ask, which says nothing about the driver; from every method.
    :raise DeadlineExpiredError: the guest did not get there in time; from every method.
    """

    def __init__(self, ssh: SshConnection, profile: SshProfile) -> None:
        self._ssh = ssh
        self._service = profile.driver.service
        self._group = profile.driver.load_order_group
        self._directory = profile.driver.directory
        self._log = profile.driver_log
        self._parameters = profile.driver.parameters
        self._shell = profile.ssh.shell
        self._wine = profile.system == "linux-wine"

    def state(self, *, deadline: Deadline) -> ServiceState:
        """Return where the driver's service is."""
        return self._query(deadline=deadline).state

    def install(self, image: bytes, *, deadline: Deadline) -> None:
        """Put the ``.sys`` into the guest and create its service, in place of an older one, not started.

        The folder of the driver's log is created too, as the driver creates none.
        """
        self.uninstall(deadline=deadline)
        for folder in (self._directory, ntpath.dirname(self._log)):
            self._ssh.make_directories(folder, deadline=deadline)
        path = ntpath.join(self._directory, f"{self._service}.sys")
        self._ssh.write_file(path, image, deadline=deadline)
        group = [] if self._group is None else ["group=", self._group]
        self._sc("create", "type=", "kernel", "start=", "demand", "binPath=", path, *group, deadline=deadline)

    def uninstall(self, *, deadline: Deadline) -> None:
        """Stop the driver if it runs, and delete its service if there is one."""
        state = self.state(deadline=deadline)
        if state is ServiceState.ABSENT:
            return
        if state is not ServiceState.STOPPED:
            self.stop(deadline=deadline)
        self._sc("delete", deadline=deadline)
        self._reach(ServiceState.ABSENT, self._query(deadline=deadline), deadline=deadline)

    def configure(
        self,
        *,
        interfaces: Literal["both", "processor", "memory"],
        synchronous: bool,
        existing: bool = False,
        deadline: Deadline,
    ) -> None:
        """Choose what the driver registers for and where it logs, as of its next start.

        The profile's values for the driver are written too.
        """
        # One import instead of one "reg add" per value: starting a program is slow in an emulated guest.
        text = "\r\n".join(
            [
                "Windows Registry Editor Version 5.00",
                "",
                rf"[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\{self._service}\Parameters]",
                f'"Interfaces"=dword:{_INTERFACES[interfaces]:08x}',
                f'"Synchronous"=dword:{int(synchronous):08x}',
                f'"IncludeExisting"=dword:{int(existing):08x}',
                '"LogPath"=' + _registry_text("\\??\\" + self._log),
                *(
                    f"{_registry_text(name)}={_registry_value(value)}"
                    for name, value in self._parameters.items()
                ),
                "",
                "",
            ]
        )
        path = ntpath.join(self._directory, f"{self._service}.reg")
        self._ssh.write_file(path, text.encode("utf-16"), deadline=deadline)
        self._ssh.run(["reg.exe", "import", path], deadline=deadline).check()

    def start(self, *, deadline: Deadline) -> None:
        """Load the driver; its DriverEntry has succeeded when this returns.

        :raise DriverRefusedError: it did not start, with the guest's reason.
        """
        with _refused():
            self._reach(ServiceState.RUNNING, self._sc("start", deadline=deadline), deadline=deadline)

    def stop(self, *, deadline: Deadline) -> None:
        """Unload the driver; its DriverUnload has returned when this does.

        :raise DriverRefusedError: it did not stop, with the guest's reason.
        """
        with _refused():
            self._reach(ServiceState.STOPPED, self._sc("stop", deadline=deadline), deadline=deadline)

    def _reach(self, wanted: ServiceState, now: _Status, *, deadline: Deadline) -> None:
        while now.state is not wanted:
            # What has to happen first was asked for and accepted; only a driver that was to start can have
            # come to another end.
            if wanted is ServiceState.RUNNING and now.state is not ServiceState.PENDING:
                raise GuestCommandError(
                    f"the driver {self._service} is {now.state}, not {wanted}: {describe(now.error).reason}"
                )
            deadline.check(f"the driver {self._service} becoming {wanted} (it is {now.state})")
            threading.Event().wait(deadline.sooner(_PAUSE_S).remaining_s())
            now = self._query(deadline=deadline)

    def _query(self, *, deadline: Deadline) -> _Status:
        result = self._run("query", deadline=deadline)
        if result.exit_status != 0:
            code = self._error(result).code
            # Wine gives no number unless its log is on; that is all a look can fail for.
            if code == NO_SUCH_SERVICE or (code is None and result.exit_status == WINE_FAILED):
                return _Status(ServiceState.ABSENT, NO_SUCH_SERVICE)
        return self._status(result.check())

    def _sc(self, verb: str, *words: str, deadline: Deadline) -> _Status:
        """Run sc.exe and return the state that it prints when it starts or stops a service."""
        result = self._run(verb, *words, deadline=deadline)
        if result.exit_status == 0:
            return self._status(result)
        raise GuestCommandError(
            f"sc.exe {verb} {self._service} failed in the guest: {self._error(result).reason}"
        )

    def _error(self, result: CommandResult) -> ScError:
        return sc_error(
            result.exit_status,
            stdout=result.text,
            stderr=_errors(result),
            shell=self._shell,
            wine=self._wine,
        )

    def _run(self, verb: str, *words: str, deadline: Deadline) -> CommandResult:
        for start in range(1, _MOST_STARTS + 1):
            try:
                result = self._ssh.run(["sc.exe", verb, self._service, *words], deadline=deadline)
            except GuestCommandError as err:
                raise GuestError(str(err)) from err
            if not self._wine or result.exit_status == 0 or _NOT_STARTED_YET not in result.text:
                break
            # Seen once in some thousand programs on a busy host. It has not run, so it can be run again.
            said = result.text.strip()
            logger.warning("start %s of sc.exe %s: Wine in the guest did not start it: %s", start, verb, said)
        if result.exit_status != 0:
            _check_it_ran(verb, result, shell=self._shell)
        return result

    @staticmethod
    def _status(result: CommandResult) -> _Status:
        found = _STATE.search(result.text)
        error = _EXIT_CODE.search(result.text)
        name = found[1].lower() if found is not None else ""
        state = ServiceState(name) if name in ("stopped", "running") else ServiceState.PENDING
        return _Status(state, int(error[1]) if error is not None else 0)


def _registry_value(value: int | str) -> str:
    return _registry_text(value) if isinstance(value, str) else f"dword:{value:08x}"


def _registry_text(text: str) -> str:
    # As regedit writes it: only these two are written otherwise.
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def _errors(result: CommandResult) -> str:
    return result.stderr.decode(errors="replace")


def _check_it_ran(verb: str, result: CommandResult, *, shell: Shell) -> None:
    """Do nothing if sc.exe itself says that it failed; that is about the driver, and judged.

    :raise GuestError: it was not started, or died: the guest is out of order.
    """
    if _NOT_STARTED in result.text:
        reason = result.text.partition(_NOT_STARTED)[2].strip(" :\n")
        raise GuestError(f"Wine in the guest did not start sc.exe {verb}: {reason}")
    if not was_run(result.exit_status, stdout=result.text, stderr=_errors(result), shell=shell):
        raise GuestError(f"the guest's shell did not run sc.exe {verb}: {_errors(result).strip()}")
    if not (result.stdout.strip() or result.stderr.strip()):
        raise GuestError(
            f"sc.exe {verb} in the guest ended with exit status {result.exit_status} without a word"
        )
