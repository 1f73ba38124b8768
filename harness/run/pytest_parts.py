# SPDX-License-Identifier: MIT
"""What :mod:`harness.pytest_plugin` is made of: options, and reports of plans that pytest has none of."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.run.crew import Batch
from harness.run.junit import properties_of
from harness.run.report import PlanResult, plug_to_record_s, row_of, why_not_passed, write_rows
from harness.run.results_folder import new_results_folder, remove_reports
from harness.run.session import Session
from harness.run.summary import SummaryRow, summary_row_of
from harness.vm.qemu_choice import chosen_qemu


def add_options(parser: pytest.Parser) -> None:
    """Add the options of the harness to those of pytest."""
    group = parser.getgroup("hil", "hot-plug test plans")
    group.addoption(
        "--hil-accelerator",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="how QEMU runs the guest; auto tries KVM by running a guest (default: auto)",
    )
    group.addoption(
        "--hil-qemu",
        metavar="PROGRAM",
        help="which QEMU runs the guests (default: HIL_QEMU, or else qemu-system-x86_64)",
    )
    group.addoption(
        "--hil-driver",
        type=Path,
        metavar="FILE",
        help="the .sys under test (default: that of the guest's profile, or else the sample driver)",
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


def session_of(config: pytest.Config) -> Session:
    """Return what pytest's options say of how plans are run. What an earlier run reported there is removed.

    :raise UsageError: they are wrong.
    """
    given: Path | None = config.getoption("--hil-results")
    shared: str | None = getattr(config, "workerinput", {}).get("hil_results")
    folder = Path(shared) if shared else given or new_results_folder(config.invocation_params.dir / "results")
    if given is not None and shared is None and not config.option.collectonly:
        remove_reports(folder)
    driver: Path | None = config.getoption("--hil-driver")
    return Session(
        results=folder.absolute(),
        accelerator=config.getoption("--hil-accelerator"),
        qemu=chosen_qemu(config.getoption("--hil-qemu"), option="--hil-qemu"),
        driver=None if driver is None else driver.absolute(),
        results_are_new=given is None and shared is None,
    )


def report_of(item: pytest.Item, result: PlanResult) -> pytest.TestReport:
    """Return what pytest is to report of a plan whose turn did not come, or did not come to its end."""
    passed, failed = result.outcome == "passed", result.outcome == "failed"
    skipped = None if result.verdict is None else result.verdict.skipped
    longrepr: Any = None if passed else "\n".join(why_not_passed(result))
    if skipped is not None:
        longrepr = (str(item.path), 1, f"Skipped: {skipped}")
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="passed" if passed else "failed" if skipped is None else "skipped",
        longrepr=longrepr,
        when="call" if passed or failed else "setup",
        user_properties=properties_of(result),
        duration=0.0 if result.verdict is None else result.verdict.duration_s,
    )


class Gathered:
    """Which plans pytest has reported; with pytest-xdist, what its other processes say became of them.

    :ivar reported: the node ids.
    """

    def __init__(self) -> None:
        self.reported: set[str] = set()
        self._rows: dict[str, dict[str, Any]] = {}
        self._summary: dict[str, SummaryRow] = {}
        self._took_s: dict[str, list[float]] = {}
        self._began_at = datetime.now(UTC)

    def clear(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    def send(self, report: pytest.TestReport, result: PlanResult, *, batch: Batch) -> None:
        """Add to a report of this process what :meth:`add` is to know of the plan and of the others."""
        if report.when != "setup":
            return
        folder = batch.session.results
        took_s = {} if result.verdict is None else plug_to_record_s([result.verdict])
        unknown = [PlanResult(name=each.name, path=each.path) for each in batch.results()]
        vars(report)["hil_sent"] = {
            "row": row_of(result, folder),
            "summary": asdict(summary_row_of(result)),
            "took_s": took_s,
            "others": [(row_of(each, folder), asdict(summary_row_of(each))) for each in unknown],
        }

    def add(self, report: pytest.TestReport) -> None:
        """Take a report in."""
        if report.when == "teardown":
            self.reported.add(report.nodeid)
        sent = vars(report).get("hil_sent")
        if sent is None:
            return
        for row, summary in sent["others"]:
            self._rows.setdefault(row["plan"], row)
            self._summary.setdefault(row["plan"], SummaryRow(**summary))
        self._rows[sent["row"]["plan"]] = sent["row"]
        self._summary[sent["row"]["plan"]] = SummaryRow(**sent["summary"])
        for kind, seconds in sent["took_s"].items():
            self._took_s.setdefault(kind, []).extend(seconds)

    def summary(self) -> list[SummaryRow]:
        """Return what people are to be told of the plans of other processes."""
        return [self._summary[row["plan"]] for row in self._in_order()]

    def write(self, folder: Path) -> None:
        """Write ``results.json`` of what other processes sent, if there is something."""
        if self._rows:
            folder.mkdir(parents=True, exist_ok=True)
            write_rows(self._in_order(), took_s=self._took_s, folder=folder, began_at=self._began_at)

    def _in_order(self) -> list[dict[str, Any]]:
        """Return the rows, the runs of one plan together."""
        paths = list(dict.fromkeys(row["path"] for row in self._rows.values()))
        return sorted(self._rows.values(), key=lambda row: paths.index(row["path"]))
