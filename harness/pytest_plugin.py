# SPDX-License-Identifier: MIT
"""pytest collects test plans as items: one YAML file, one plan, one item.

Gathering the evidence is an item's set-up and judging it is its call, so that pytest itself says
*error* when the bench broke and *failed* when an expectation did not hold.

The first plan that is set up has all of them started, as many at once as there is room for; the set-up
of each then waits for its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest

from harness.cluster_options import ClusterOptions
from harness.errors import BenchError, UsageError
from harness.nightly import Crew, LocalCrew, Nightly, NoCrew, Workers, parse_workers, verdict_of
from harness.plan import Plan
from harness.report import failure_lines, summary_lines, write_results
from harness.session import Session, new_results_folder
from harness.verdict import Verdict

PLANS_FOLDER = "testplans"

_session_key = pytest.StashKey[Session]()
_where_key = pytest.StashKey[Workers | ClusterOptions]()
_nightly_key = pytest.StashKey[Nightly]()


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
    group.addoption(
        "--hil-workers",
        metavar="N",
        help="plans run at once at most, as the host has room; auto for two per core (default: 1)",
    )
    group.addoption(
        "--hil-cluster",
        metavar="ADDRESS",
        help="run the plans on a Dask cluster, such as tls://head:8786, and not on this host",
    )
    for name, what in (("ca", "CA to trust"), ("cert", "certificate to show"), ("key", "key of it")):
        group.addoption(f"--hil-tls-{name}", type=Path, metavar="FILE", help=f"for the cluster: {what}, PEM")


def pytest_configure(config: pytest.Config) -> None:
    """Set up the session that all plans share."""
    results = config.getoption("--hil-results") or new_results_folder(
        config.invocation_params.dir / "results"
    )
    config.stash[_session_key] = Session(
        results=Path(results).absolute(), accelerator=config.getoption("--hil-accelerator")
    )
    try:
        config.stash[_where_key] = check_where(
            workers=config.getoption("--hil-workers"),
            cluster=config.getoption("--hil-cluster"),
            tls_ca=config.getoption("--hil-tls-ca"),
            tls_cert=config.getoption("--hil-tls-cert"),
            tls_key=config.getoption("--hil-tls-key"),
        )
    except UsageError as err:
        raise pytest.UsageError(str(err)) from err


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
    if isinstance(item, PlanItem):
        if call.excinfo is not None:
            report.longrepr = item.explain(call.excinfo.value) or report.longrepr
        if report.when == "setup" and item.verdict is not None:
            # What the plan took, not how long this item had to wait for it.
            report.duration = item.verdict.duration_s
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what a person wants to know of the plans that were run."""
    nightly = config.stash.get(_nightly_key, None)
    verdicts = verdicts_of(config)
    if nightly is None or not (verdicts or nightly.not_run()):
        return
    terminalreporter.section("hot-plug plans")
    for line in summary_lines(verdicts) if verdicts else []:
        terminalreporter.line(line)
    if nightly.not_run():
        terminalreporter.line(f"{nightly.not_run()} not run")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what still runs, as after Ctrl-C, and write ``results.json`` beside the evidence."""
    nightly = session.config.stash.get(_nightly_key, None)
    if nightly is not None:
        nightly.finish()
    verdicts = verdicts_of(session.config)
    if verdicts:
        write_results(verdicts, folder=session.config.stash[_session_key].results)


def verdicts_of(config: pytest.Config) -> list[Verdict]:
    """Return the verdicts reached so far, in the order of the plans."""
    nightly = config.stash.get(_nightly_key, None)
    return nightly.verdicts() if nightly is not None else []


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

    def setup(self) -> None:
        """Wait until the plan has been run and its evidence gathered."""
        if self.future is None:
            self._start_all()
        assert self.future is not None
        verdict = verdict_of(self.future)
        self.verdict = verdict
        self.user_properties += verdict.setting.properties()
        self.user_properties.append(("evidence", str(verdict.evidence)))
        if verdict.worker is not None:
            self.user_properties.append(("worker", verdict.worker))
            self.user_properties.append(("lost_workers", ", ".join(verdict.lost_workers)))
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

    def _start_all(self) -> None:
        nightly = _nightly_of(self.config)
        # Each process of pytest-xdist collects all items and is then given some of them one by one.
        alone = hasattr(self.config, "workerinput")
        for item in [self] if alone else self.session.items:
            if isinstance(item, PlanItem) and item.future is None:
                item.future = nightly.add(item.plan)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the plan is and what it is called."""
        return self.path, None, self.name


def check_where(
    *,
    workers: str | None,
    cluster: str | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> Workers | ClusterOptions:
    """Return where plans are to be run: so many at once on this host, or on a cluster.

    :raise UsageError: the options are wrong or do not go together.
    """
    if cluster is None:
        if tls_ca or tls_cert or tls_key:
            raise UsageError(
                "certificates without a cluster; its address is missing, such as tls://head:8786"
            )
        return parse_workers(workers if workers is not None else "1")
    if workers is not None:
        raise UsageError("a number of plans at once is for this host; each worker of a cluster has its own")
    options = ClusterOptions(address=cluster, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key)
    options.check()
    return options


def _nightly_of(config: pytest.Config) -> Nightly:
    nightly = config.stash.get(_nightly_key, None)
    if nightly is None:
        session = config.stash[_session_key]
        nightly = Nightly(_crew(config.stash[_where_key], session), session)
        config.stash[_nightly_key] = nightly
    return nightly


def _crew(where: Workers | ClusterOptions, session: Session) -> Crew:
    if not isinstance(where, ClusterOptions):
        return LocalCrew(session, workers=where)
    # Dask takes half a second to import and is not installed everywhere.
    from harness.cluster import ClusterCrew

    try:
        return ClusterCrew(where, session)
    except BenchError as err:
        return NoCrew(err)
