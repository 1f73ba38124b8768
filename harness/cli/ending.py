# SPDX-License-Identifier: MIT
"""How ``hil`` ends, whatever happens: one line, and an exit status that means what it says.

Status 1 is only ever given by a command itself: the driver failed an expectation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from harness.cli.exit_code import ExitCode
from harness.cli.output import take_standard_streams
from harness.document.printable import printable
from harness.errors import BenchError, UsageError
from harness.host.current_folder import current_folder
from harness.run.signals import exit_status, signal_received, signals_end_in_order
from harness.run.unexpected import told

_results: Path | None = None


class CommandGroup(TyperGroup):
    """Hides from typer what it would end with exit status 1: a broken pipe, and the end of a file."""

    def invoke(self, ctx: Any) -> Any:
        """Call the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (OSError, EOFError, KeyboardInterrupt) as err:
            raise _Hidden(err) from err


class _Hidden(BaseException):
    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def tracebacks_go_to(results: Path) -> None:
    """Name the folder that the traceback of an unexpected error is written to, if it is there then."""
    global _results
    _results = results


def run_to_end(command: Callable[[], object]) -> int:
    """Call a command and return its exit status; what went wrong is told in one line."""
    output = take_standard_streams()
    with signals_end_in_order():
        try:
            status = _status_of(command)
        except KeyboardInterrupt:
            status = ExitCode.INTERRUPTED
        output.flush()
    if (received := signal_received()) is not None:
        _say(f"ended by {received.name}")
        return exit_status()
    if output.error is not None and status == ExitCode.PASSED:
        _say(f"standard output could not be written: {output.error.strerror}")
        return ExitCode.BENCH
    return status


def _status_of(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as err:
        # Ours are numbers. A library that ends the program by a text has not done what it was called for.
        return err.code if isinstance(err.code, int) else _say_why(err)
    except _Hidden as hidden:
        return _say_why(hidden.error)
    except Exception as err:  # noqa: BLE001 - whatever it is, it is no verdict about the driver
        return _say_why(err)
    return ExitCode.PASSED


def _say_why(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, UsageError):
        _say(str(error))
        return ExitCode.USAGE
    if isinstance(error, BenchError):
        _say(str(error))
        return ExitCode.BENCH
    if isinstance(error, FileNotFoundError) and current_folder() is None:
        _say("the current folder does not exist any more; change to one that does")
        return ExitCode.USAGE if _results is None else ExitCode.BENCH
    _say(told(error, folder=_results))
    return ExitCode.BENCH


def _say(text: str) -> None:
    typer.echo(f"hil: {printable(text)}", err=True)
