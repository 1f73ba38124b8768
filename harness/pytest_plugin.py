# SPDX-License-Identifier: MIT
"""pytest collects test plans as items: one YAML file, one plan, one item.

Gathering the evidence is an item's set-up and judging it is its call, so that pytest itself says
*error* when the bench broke and *failed* when an expectation did not hold.

The first plan that is set up has all of them started, as many at once as there is room for; the set-up
of each then waits for its own.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from harness.cluster.options import ClusterOptions
from harness.cluster.where import check_where, crew_of
from harness.document.files import is_yaml_file
from harness.document.printable import printable
from harness.errors import BenchError, UsageError
from harness.evidence.verdict import Verdict
from harness.plan.folder import holds_plans
from harness.plan.plan import Plan
from harness.run.crew import Batch, Workers, verdict_of
from harness.run.junit import properties_of
from harness.run.pytest_parts import Gathered, add_options, report_of, session_of
from harness.run.report import PlanResult, why_not_passed
from harness.run.session import Session
from harness.run.signals import exit_status, holding_signals, signal_received, signals_end_in_order
from harness.run.summary import summary_lines, summary_row_of

PLANS_FOLDER = "testplans"

_session_key = pytest.StashKey[Session]()
_where_key = pytest.StashKey[Workers | ClusterOptions]()
_batch_key = pytest.StashKey[Batch]()
_named_folders_key = pytest.StashKey[dict[Path, bool]]()
_outside_key = pytest.StashKey[dict[str, Path]]()
_gathered = Gathered()


class PlanFailedError(Exception):
    """An expectation of a plan did not hold; the verdict tells which."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the harness."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Set up the session that all plans share."""
    _gathered.clear()
    qemu = config.getoption("--hil-qemu")
    try:
        if _session_key not in config.stash:
            config.stash[_session_key] = session_of(config)
        config.stash[_where_key] = check_where(
            workers=config.getoption("--hil-workers"),
            cluster=config.getoption("--hil-cluster"),
            tls_ca=config.getoption("--hil-tls-ca"),
            tls_cert=config.getoption("--hil-tls-cert"),
            tls_key=config.getoption("--hil-tls-key"),
            qemu=qemu,
        )
    except UsageError as err:
        raise pytest.UsageError(str(err)) from err


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Have the processes of pytest-xdist write to one folder."""
    node.workerinput["hil_results"] = str(node.config.stash[_session_key].results)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect plans: the YAML files of folders named ``testplans``, and those named on the command line.

    There a file can be named, or a folder that holds plans; so it can in ``testpaths``.
    """
    if not is_yaml_file(file_path):
        return None
    if (
        file_path.parent.name == PLANS_FOLDER
        or parent.session.isinitpath(file_path)
        or _is_named_folder_of_plans(file_path.parent, parent.session)
    ):
        # Plans outside the root folder, such as the default ones of a wheel, would have no name in reports.
        outside = not file_path.is_relative_to(parent.config.rootpath)
        name = _name_outside(file_path, parent.config) if outside else None
        return cast(pytest.Collector, PlanFile.from_parent(parent, path=file_path, nodeid=name))
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the explanation of a plan that did not pass in place of a traceback, in set-up and call alike."""
    report = yield
    if isinstance(item, PlanItem):
        # What was logged is in the evidence; a screen of it would hide why the plan did not pass.
        report.sections = []
        if call.excinfo is not None:
            report.longrepr = item.explain(call.excinfo.value) or report.longrepr
        if report.skipped and item.verdict is not None:
            report.longrepr = (str(item.path), 1, f"Skipped: {item.verdict.skipped}")
        if report.when == "setup" and item.verdict is not None:
            # What the plan took, not how long this item had to wait for it.
            report.duration = item.verdict.duration_s
        if hasattr(item.config, "workerinput"):
            batch = _batch_of(item.config)
            _gathered.send(report, batch.result_of(item.plan, future=item.future), batch=batch)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep in mind which plans have been reported."""
    _gathered.add(report)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what a person wants to know of the plans that were run."""
    batch = config.stash.get(_batch_key, None)
    here = [summary_row_of(result) for result in batch.results()] if batch is not None else []
    rows = here or _gathered.summary()
    if not rows:
        return
    terminalreporter.section("hot-plug plans")
    for line in summary_lines(rows, folder=config.stash[_session_key].results):
        terminalreporter.line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what still runs, as after Ctrl-C, and see to it that every plan is in every report."""
    config = session.config
    with holding_signals():
        _gathered.write(config.stash[_session_key].results)
        batch = config.stash.get(_batch_key, None)
        if batch is None:
            return
        items = [item for item in session.items if isinstance(item, PlanItem)]
        for item in items:
            batch.expect(item.plan)
        batch.finish()
        if not hasattr(config, "workerinput"):
            for item in items:
                if item.nodeid not in _gathered.reported:
                    report = report_of(item, batch.result_of(item.plan, future=item.future))
                    item.ihook.pytest_runtest_logreport(report=report)
            batch.report(is_last=True)
    if signal_received() not in (None, signal.SIGINT):
        session.exitstatus = exit_status()


def take_over(config: pytest.Config, batch: Batch) -> None:
    """Go on with a run that has begun, instead of one by the options; before :func:`pytest_configure`."""
    config.stash[_batch_key] = batch
    config.stash[_session_key] = batch.session


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
        self.future: Future[Verdict] | None = None
        self.verdict: Verdict | None = None
        self._is_over = False

    @classmethod
    def of(
        cls, session: pytest.Session, plan: Plan, *, result: PlanResult, future: Future[Verdict]
    ) -> PlanItem:
        """Return the item of a plan that was begun, whatever pytest would make of its path."""
        name = printable(plan.name)
        nodeid = f"{printable(result.path)}::{name}"
        item = cls.from_parent(session, name=name, nodeid=nodeid, plan=plan)
        item.path, item.future = plan.file, future
        return item

    def setup(self) -> None:
        """Wait until the plan has been run and its evidence gathered."""
        batch = _batch_of(self.config)
        if self._is_over:
            # Whoever has it set up again, as pytest-rerunfailures does, wants it run again.
            self.future, self.verdict = batch.take(self.plan), None
        if self.future is None:
            self._start_all()
        assert self.future is not None
        try:
            self.verdict = verdict = verdict_of(self.future)
        except (BenchError, KeyboardInterrupt):
            raise
        except BaseException:
            # Whoever ends it here, as pytest-timeout does, wants it to end.
            batch.give_up(self.future)
            raise
        finally:
            self._is_over = True
            if not hasattr(self.config, "workerinput"):
                batch.report()
        self.user_properties += properties_of(batch.result_of(self.plan, future=self.future))
        if verdict.outcome == "error":
            raise BenchError(verdict.error)
        if verdict.skipped is not None:
            pytest.skip(verdict.skipped)

    def runtest(self) -> None:
        """Judge."""
        if self.verdict is None or self.verdict.outcome != "passed":
            raise PlanFailedError(self.name)

    def explain(self, error: BaseException) -> str | None:
        """Return why the plan did not pass, for people; None for what only a developer can read."""
        if not isinstance(error, PlanFailedError | BenchError | pytest.fail.Exception):
            return None
        said = [str(error)] if isinstance(error, pytest.fail.Exception) else []
        result = _batch_of(self.config).result_of(self.plan, future=self.future)
        return "\n".join([*said, *why_not_passed(result)])

    def _start_all(self) -> None:
        # Each process of pytest-xdist collects all items and is then given some of them one by one.
        alone = hasattr(self.config, "workerinput")
        items = [self] if alone else [item for item in self.session.items if isinstance(item, PlanItem)]
        batch = _batch_of(self.config)
        for each in self.session.items:
            if isinstance(each, PlanItem):
                batch.expect(each.plan)
        for item in items:
            if item.future is None:
                item.future = batch.take(item.plan)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the plan is and what it is called."""
        return self.path, None, self.name


def _is_named_folder_of_plans(folder: Path, session: pytest.Session) -> bool:
    config = session.config
    # Without arguments pytest takes the current folder, and a worker of pytest-xdist is even given it as one.
    if config.args == [str(config.invocation_params.dir)] or not session.isinitpath(folder):
        return False
    known = config.stash.setdefault(_named_folders_key, {})
    if folder not in known:
        known[folder] = holds_plans(folder)
    return known[folder]


def _name_outside(path: Path, config: pytest.Config) -> str:
    """Return what to call a plan outside the root folder; its whole path if another one is called so."""
    name = f"{path.parent.name}/{path.name}"
    known = config.stash.setdefault(_outside_key, {})
    return name if known.setdefault(name, path) == path else path.as_posix()


def _batch_of(config: pytest.Config) -> Batch:
    batch = config.stash.get(_batch_key, None)
    if batch is None:
        session = config.stash[_session_key]
        if not hasattr(config, "workerinput"):
            # The processes of pytest-xdist share the folder.
            session.own_results()
        # Whoever ends pytest is to find the reports written and the VMs gone.
        endings = ExitStack()
        endings.enter_context(signals_end_in_order())
        config.add_cleanup(endings.close)
        batch = Batch(crew_of(config.stash[_where_key], session), session)
        config.stash[_batch_key] = batch
    return batch
