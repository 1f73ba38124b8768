# SPDX-License-Identifier: MIT
"""Every exception the harness raises on purpose, and what each one means for the verdict.

::

    HilError                    root; its text is one line a person can act on
    ├── UsageError              the request is wrong: exit 2
    │   ├── PlanError           a test plan does not load (file:line:column)
    │   └── ProfileError        a guest profile does not load (file:line:column)
    └── BenchError              the bench broke, no verdict about the driver: exit 3
        ├── DeadlineExpiredError
        ├── HostError           this host lacks a tool, or a build on it failed
        ├── ImageError          a guest image is missing, damaged or of another version
        │   └── TemplateDamagedError    a template is not what was saved
        ├── VmError             QEMU could not be started
        │   ├── VmExitedError   QEMU ended while it was needed
        │   ├── VmStalledError  QEMU did not run, so nothing can be said of what is late
        │   └── VmDisturbedError    somebody or the host paused, reset or ended the VM
        ├── QmpError
        │   ├── QmpCommandError QEMU refused a command
        │   └── QmpLostError    the QMP connection ended
        ├── QtestError          the qtest connection ended, or QEMU refused a command over it
        ├── GuestError
        │   ├── GuestUnreachableError
        │   ├── DriverCrashedError      the driver took the guest's kernel mode along: judged, not an error
        │   └── GuestCommandError
        │       └── DriverRefusedError  the driver did not start or stop: judged, not an error
        ├── GuestGoneError      the guest restarted, panicked or powered off: judged, not an error
        └── DriverLogError      the driver's log vanished, shrank or is not a driver log

A wrong driver is none of these: it is a :class:`harness.evidence.judge.Mismatch`.
"""

from __future__ import annotations

from typing import Any


class HilError(Exception):
    """Root of all errors raised on purpose."""


class UsageError(HilError):
    """What was asked for is wrong; nothing was run."""


class _LocatedError(UsageError):
    """A file does not load; the text starts with ``file:line:column``."""

    def __init__(
        self, message: str, *, file: str, line: int | None = None, column: int | None = None
    ) -> None:
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{place}: {message}")
        self.file = file
        self.line = line
        self.column = column


class PlanError(_LocatedError):
    """A test plan does not load."""


class ProfileError(_LocatedError):
    """A guest profile does not load."""


class BenchError(HilError):
    """The bench broke, so there is no verdict about the driver."""


class DeadlineExpiredError(BenchError):
    """Something the bench waited for did not happen in time."""


class HostError(BenchError):
    """This host lacks a tool, or building something on it failed."""


class ImageError(BenchError):
    """A guest image is missing, damaged or of another version."""


class TemplateDamagedError(ImageError):
    """A template is not what was saved, so what its forks do says nothing."""


class VmError(BenchError):
    """QEMU could not be started."""


class VmExitedError(VmError):
    """QEMU ended while the bench still needed it."""


class VmStalledError(VmError):
    """QEMU or the harness got no processor time while something was due: nobody in the guest is to blame."""


class VmDisturbedError(VmError):
    """Somebody, the host or QEMU itself paused, reset or ended the VM under the plan.

    :ivar incident: the :class:`harness.evidence.incident.Incident`.
    """

    def __init__(self, incident: object) -> None:
        super().__init__(str(incident))
        self.incident: Any = incident


class QmpError(BenchError):
    """The QMP connection did not do what it must."""


class QmpCommandError(QmpError):
    """QEMU answered a command with an error.

    :ivar command: the QMP command that was sent.
    :ivar error_class: QEMU's error class, such as ``GenericError``.
    :ivar description: QEMU's own text.
    """

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description} ({error_class})")
        self.command = command
        self.error_class = error_class
        self.description = description


class QmpLostError(QmpError):
    """The QMP connection ended while it was needed."""


class QtestError(BenchError):
    """The qtest connection to QEMU did not do what it must."""


class GuestError(BenchError):
    """Something asked of the guest over SSH did not work."""


class GuestUnreachableError(GuestError):
    """The guest does not answer over SSH, or the connection was lost."""


class GuestCommandError(GuestError):
    """A command in the guest ended with an exit status other than expected."""


class DriverCrashedError(GuestError):
    """Code in the guest's kernel mode crashed; the driver under test is the only one there that is not known.

    A run takes this as evidence about the driver, not as a broken bench.
    """


class DriverRefusedError(GuestCommandError):
    """The driver under test did not start or stop when the guest asked it to.

    A run takes this as evidence about the driver, not as a broken bench.
    """


class GuestGoneError(BenchError):
    """The guest restarted, panicked or powered off while something was wanted of it.

    A run takes this as evidence about the guest, not as a broken bench.

    :ivar incident: the :class:`harness.evidence.incident.Incident`.
    """

    def __init__(self, incident: object) -> None:
        super().__init__(str(incident))
        self.incident: Any = incident


class DriverLogError(BenchError):
    """The driver's log vanished, shrank or is not a driver log."""
