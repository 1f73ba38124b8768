# SPDX-License-Identifier: MIT
"""Has pytest report the plans of ``hil run``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli.exit_code import ExitCode
from harness.host.current_folder import current_folder
from harness.plan.plan import Plan
from harness.pytest_plugin import PlanItem, take_over
from harness.run.crew import Batch
from harness.run.signals import exit_status
from harness.run.unexpected import told

_ROOT = Path("/")


def run_pytest(plans: Sequence[Plan], *, batch: Batch) -> int:
    """Have pytest wait for the plans and judge them, and return the exit status.

    It is handed the plans themselves. Nothing else has a say in what it does: no file of settings or hooks,
    no variable of the environment, no plugin of others. The folder of the run's session gets the reports.
    """
    handover = _Handover(plans, batch)
    arguments = [
        # Nothing is looked for in the current folder, which may even be gone by the end.
        *("-c", os.devnull, "--rootdir", os.fspath(_ROOT), "--noconftest"),
        *("--verbose", "--no-header"),
        # No other plugin has a part in this, and some take longer to load than a guest to fork.
        *("--disable-plugin-autoload", "-p", "harness.pytest_plugin"),
        *("-p", "no:cacheprovider", "-p", "no:junitxml"),
        # A plan prints nothing, and what it logs goes to its evidence.
        *("--capture=no", "-p", "no:logging"),
        *("-o", "console_output_style=progress-even-when-capture-no"),
        # It collects Python's garbage ten times at the end, to look for errors in what is collected.
        *("-p", "no:unraisableexception"),
        # This package is at work already; pytest would like to have been first.
        *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    ]
    with _without_pytests_variables():
        try:
            ended = pytest.main(arguments, plugins=[handover])
        except FileNotFoundError:
            # pytest asks for the current folder before it hears that it is to do without.
            if handover.was_asked or current_folder() is not None:
                raise
            os.chdir(_ROOT)
            ended = pytest.main(arguments, plugins=[handover])
    if ended == pytest.ExitCode.INTERRUPTED:
        return exit_status()
    outcomes = [result.outcome for result in batch.results()]
    if "failed" in outcomes:
        return ExitCode.FAILED
    # A plan without a verdict is no pass, whatever kept it from one; nor is a run of which all was skipped.
    all_told = {"passed"} <= set(outcomes) <= {"passed", "skipped"}
    if ended != pytest.ExitCode.OK or not all_told or not batch.is_reported:
        return ExitCode.BENCH
    return ExitCode.PASSED


class _Handover:
    """A pytest plugin that hands in the run that has begun, and its plans as items."""

    def __init__(self, plans: Sequence[Plan], batch: Batch) -> None:
        self._plans = plans
        self._batch = batch
        self.was_asked = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        # pytest goes back there at its end, and must find it.
        given = config.invocation_params
        config.invocation_params = config.InvocationParams(args=given.args, plugins=given.plugins, dir=_ROOT)
        take_over(config, self._batch)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        self.was_asked = True
        items = [
            PlanItem.of(session, plan, result=self._batch.result_of(plan), future=self._batch.take(plan))
            for plan in self._plans
        ]
        session.items = list(items)
        session.testscollected = len(items)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        print(f"hil: {told(excinfo.value, folder=self._batch.session.results)}", file=sys.stderr)  # noqa: T201
        return True


@contextmanager
def _without_pytests_variables() -> Iterator[None]:
    """Keep from pytest what the environment has for it, such as ``PYTEST_ADDOPTS``."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PYTEST_")}
    try:
        yield
    finally:
        os.environ.update(taken)
