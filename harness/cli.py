# SPDX-License-Identifier: MIT
"""The command line: ``hil run`` and everything else a person calls."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from harness.cache import Progress
from harness.cli_cache import add_commands
from harness.cluster_options import ClusterOptions
from harness.errors import BenchError, UsageError
from harness.own_tests import run_own_tests
from harness.plan import Plan
from harness.profile import Profile
from harness.pytest_plugin import check_where, verdicts_of
from harness.session import PROJECT_PROFILES, AcceleratorChoice, Session, new_results_folder
from harness.verdict import Verdict

DEFAULT_PLANS = Path(__file__).resolve().parent.parent / "testplans"

app = typer.Typer(
    name="hil",
    help="Hot-plug vCPUs and DIMMs with QEMU and judge the notification log of a driver in the guest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_commands(app)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="Certificate authority to trust.")
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate to show, PEM.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Key of it, PEM.")]


class ExitCode(IntEnum):
    """How ``hil run`` ends."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    BENCH = 3
    INTERRUPTED = 130


@app.command()
def run(
    plans: Annotated[
        list[Path] | None,
        typer.Argument(help="Plans, or folders of plans. Default: the plans that come with the project."),
    ] = None,
    accelerator: Annotated[
        AcceleratorChoice,
        typer.Option(
            "--accelerator", "-a", help="How QEMU runs the guest; auto tries KVM by running a guest."
        ),
    ] = "auto",
    results: Annotated[
        Path | None,
        typer.Option("--results", "-r", help="Folder for evidence, JUnit and JSON. Default: results/<time>."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            "-n",
            metavar="N",
            help="Plans run at once at most; auto for two per core. Fewer if room is short. Default: 1.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run the plans on a Dask cluster, such as tls://head:8786, not on this host.",
        ),
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Build what is missing, run the plans, report.

    Exit status: 0 all passed; 1 a driver expectation failed; 2 wrong usage or a plan that does not load;
    3 the bench broke and says nothing about the driver; 130 interrupted. 1 wins over 3.
    """
    check_where(workers=workers, cluster=cluster, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key)
    folder = (results or new_results_folder(Path("results"))).absolute()
    paths = _plan_files(plans or [DEFAULT_PLANS])
    session = Session(results=folder, accelerator=accelerator)
    loaded = [session.load(path) for path in paths]
    if cluster is None:
        with _progress() as session.progress:
            session.prepare(loaded)
    options = {
        "accelerator": accelerator,
        "workers": workers,
        "cluster": cluster,
        "tls-ca": tls_ca,
        "tls-cert": tls_cert,
        "tls-key": tls_key,
    }
    raise typer.Exit(_run_pytest(paths, folder=folder, options=options))


@app.command()
def worker(
    address: Annotated[str, typer.Argument(help="The scheduler, such as tls://head:8786.")],
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    guests: Annotated[
        Path, typer.Option(help="Guest profiles; those whose image is on this host are announced.")
    ] = PROJECT_PROFILES,
    folder: Annotated[
        Path | None, typer.Option(help="Where VMs write while they run. Default: the temporary folder.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What reports call this worker. Default: host and process id.")
    ] = None,
) -> None:
    """Serve a Dask cluster: announce what this host has and run the plans it is given, until it is ended."""
    options = ClusterOptions(address=address, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key)
    options.check()
    # Dask takes half a second to import and is not installed everywhere.
    from harness.cluster_worker import worker_command

    command = worker_command(options, guests=guests, folder=folder, name=name)
    os.execv(command[0], command)


@app.command()
def check(plans: Annotated[list[Path], typer.Argument(help="Plans, or folders of plans.")]) -> None:
    """Load plans and say what each would do, without running anything."""
    session = Session(results=Path())
    for path in _plan_files(plans):
        plan = session.load(path)
        typer.echo(f"{path}: {plan.description or plan.name}")
        for step in plan.unrolled():
            expected = ", ".join(step.expect.driver) or "no record"
            typer.echo(f"  {step.number}. {step.title} -> {expected} within {step.within_s:g} s")


@app.command()
def schema(kind: Annotated[Literal["plan", "guest"], typer.Argument(help="What kind of YAML file.")]) -> None:
    """Print the JSON Schema of a kind of YAML file, for editors."""
    model = Plan if kind == "plan" else Profile
    typer.echo(json.dumps(model.model_json_schema(), indent=2))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the project's own tests: lint, types, then pytest, which gets any further arguments."""
    raise typer.Exit(run_own_tests(context.args))


def main() -> None:
    """Run the command line and exit."""
    logging.basicConfig(level=logging.WARNING, format="hil: %(message)s")
    try:
        app()
    except UsageError as err:
        errors.print(f"hil: {err}", markup=False)
        sys.exit(ExitCode.USAGE)
    except BenchError as err:
        errors.print(f"hil: {err}", markup=False)
        sys.exit(ExitCode.BENCH)
    except KeyboardInterrupt:
        errors.print("hil: interrupted")
        sys.exit(ExitCode.INTERRUPTED)


def _plan_files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
            if not inside:
                raise UsageError(f"{path}: no plan in this folder; a plan is a file that ends in .yaml")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such plan or folder of plans")
    return found


@contextmanager
def _progress() -> Iterator[Progress]:
    if not errors.is_terminal:
        yield _say_once()
        return
    bar = ProgressBar(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=errors,
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, fraction: bar.update(task, description=what, completed=fraction)


def _say_once() -> Progress:
    """Return progress for a log file: one line when something else begins."""
    said = ""

    def say(what: str, _fraction: float) -> None:
        nonlocal said
        if what != said:
            said = what
            errors.print(f"hil: {what}", markup=False)

    return say


def _run_pytest(paths: list[Path], *, folder: Path, options: Mapping[str, object | None]) -> ExitCode:
    reporter = _Reporter()
    arguments = [
        *("-c", os.devnull, "--rootdir", os.curdir),
        *("--verbose", "--no-header", "-p", "no:cacheprovider"),
        # This package is at work already; pytest would like to have been first.
        *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
        *("--hil-results", str(folder)),
        *(f"--hil-{name}={value}" for name, value in options.items() if value is not None),
        *("--junit-xml", str(folder / "junit.xml")),
        *map(str, paths),
    ]
    ended = pytest.main(arguments, plugins=[reporter])
    if ended == pytest.ExitCode.INTERRUPTED:
        return ExitCode.INTERRUPTED
    outcomes = [verdict.outcome for verdict in reporter.verdicts]
    if "failed" in outcomes:
        return ExitCode.FAILED
    # A plan without a verdict is no pass either, whatever kept it from one.
    if ended != pytest.ExitCode.OK or outcomes.count("passed") != len(paths):
        return ExitCode.BENCH
    return ExitCode.PASSED


class _Reporter:
    """A pytest plugin that takes the verdicts out of a finished session."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.verdicts = verdicts_of(session.config)
