# SPDX-License-Identifier: MIT
"""pytest collects test plans as items: one YAML file, one plan, one item.

Gathering the evidence is an item's set-up and judging it is its call, so that pytest itself says
*error* when the bench broke and *failed* when an expectation did not hold.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import BenchError, UsageError
from harness.plan import Plan
from harness.report import failure_lines, summary_lines, write_results
from harness.run import run_plan
from harness.session import Session, new_results_folder
from harness.verdict import Verdict

PLANS_FOLDER = "testplans"

_session_key = pytest.StashKey[Session]()
_verdicts_key = pytest.StashKey[list[Verdict]]()


class PlanFailedError(Exception):
    """An expectation of a plan did not hold; the verdict tells which."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the harness."""
    group = parser.getgroup("hil", "hot-plug test plans")
    group.addoption(
        "--hil-accelerator",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="how QEMU runs the guest; auto tries KVM by running a guest (default: auto)",
    )
    group.addoption(
        "--hil-results",
        type=Path,
        metavar="DIR",
        help="folder for the evidence of each plan (default: results/<time>)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set up the session that all plans share."""
    results = config.getoption("--hil-results") or new_results_folder(
        config.invocation_params.dir / "results"
    )
    config.stash[_session_key] = Session(
        results=Path(results).absolute(), accelerator=config.getoption("--hil-accelerator")
    )
    config.stash[_verdicts_key] = []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the YAML files of folders named ``testplans``, and those named on the command line."""
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    if file_path.parent.name == PLANS_FOLDER or parent.session.isinitpath(file_path):
        return cast(pytest.Collector, PlanFile.from_parent(parent, path=file_path))
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the explanation of a plan that did not pass in place of a traceback, in set-up and call alike."""
    report = yield
    if isinstance(item, PlanItem) and call.excinfo is not None:
        report.longrepr = item.explain(call.excinfo.value) or report.longrepr
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what a person wants to know of the plans that were run."""
    verdicts = config.stash[_verdicts_key]
    if verdicts:
        terminalreporter.section("hot-plug plans")
        for line in summary_lines(verdicts):
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write ``results.json`` beside the evidence."""
    verdicts = session.config.stash[_verdicts_key]
    if verdicts:
        write_results(verdicts, folder=session.config.stash[_session_key].results)


def verdicts_of(config: pytest.Config) -> list[Verdict]:
    """Return the verdicts reached so far."""
    return config.stash[_verdicts_key]


class PlanFile(pytest.File):
    """A YAML file that holds a plan."""

    def collect(self) -> Iterator[PlanItem]:
        """Return the file's one plan."""
        session = self.config.stash[_session_key]
        try:
            plan = session.load(self.path)
        except UsageError as err:
            raise self.CollectError(str(err)) from err
        yield PlanItem.from_parent(self, name=plan.name, plan=plan)


class PlanItem(pytest.Item):
    """A plan to run."""

    def __init__(self, *, plan: Plan, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.verdict: Verdict | None = None

    def setup(self) -> None:
        """Run the plan and gather its evidence."""
        session = self.config.stash[_session_key]
        bench = session.bench(self.plan)
        self.user_properties += bench.setting().properties()
        verdict = run_plan(self.plan, bench=bench, folder=session.evidence_folder(self.plan))
        self.verdict = verdict
        self.config.stash[_verdicts_key].append(verdict)
        self.user_properties.append(("evidence", str(verdict.evidence)))
        if verdict.outcome == "error":
            raise BenchError(verdict.error)

    def runtest(self) -> None:
        """Judge."""
        if self.verdict is None or self.verdict.outcome != "passed":
            raise PlanFailedError(self.name)

    def explain(self, error: BaseException) -> str | None:
        """Return why the plan did not pass, for people; None for what only a developer can read."""
        if not isinstance(error, PlanFailedError | BenchError):
            return None
        if self.verdict is not None:
            return "\n".join(failure_lines(self.verdict))
        return f"error     {error}\n          the bench broke: this says nothing about the driver"

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the plan is and what it is called."""
        return self.path, None, self.name
