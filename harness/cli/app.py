# SPDX-License-Identifier: MIT
"""The command line: ``hil run`` and everything else a person calls.

Each command imports what it needs itself: loading SSH, QMP and pytest takes longer than checking a plan.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.cache import add_commands
from harness.cli.ending import CommandGroup, run_to_end, tracebacks_go_to
from harness.cli.init import init
from harness.cli.own_tests import GATES, run_own_tests
from harness.document.printable import printable
from harness.host.checkout import DEFAULT_PLANS, PROJECT_PROFILES
from harness.plan.folder import plan_files
from harness.run.plan_log import is_of_a_plan
from harness.run.signals import signal_received
from harness.version import __version__
from harness.vm.argv import AcceleratorChoice

app = typer.Typer(
    name="hil",
    cls=CommandGroup,
    help="Hot-plug vCPUs and DIMMs with QEMU and judge the notification log of a driver in the guest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_commands(app)
app.command()(init)

TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="Certificate authority to trust.")
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate to show, PEM.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Key of it, PEM.")]

#: How long a thread that has heard from a guest or from QEMU waits for its turn while another one is busy, as
#: with loading modules. With Python's own 5 ms, for each of a dozen answers, a fork took half as long again.
_TURN_S = 0.0002


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take what stands before the command."""


@app.command()
def run(
    plans: Annotated[
        list[Path] | None,
        typer.Argument(help="Plans, or folders of plans. Default: the plans that come with the project."),
    ] = None,
    accelerator: Annotated[
        AcceleratorChoice,
        typer.Option(
            "--accelerator",
            "-a",
            help="How QEMU runs the guest; auto tries KVM by running a guest, kvm tries again if it did not.",
        ),
    ] = "auto",
    qemu: Annotated[
        str | None,
        typer.Option(
            "--qemu",
            metavar="PROGRAM",
            help="Which QEMU runs the guests: a name on PATH or a path. "
            "Default: HIL_QEMU, or else qemu-system-x86_64.",
        ),
    ] = None,
    driver: Annotated[
        Path | None,
        typer.Option(
            "--driver",
            metavar="FILE",
            help="The .sys under test. Default: that of the guest's profile, or else the sample driver.",
        ),
    ] = None,
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
    chosen: Annotated[
        str | None,
        typer.Option(
            "-k",
            metavar="EXPRESSION",
            help="Only plans whose name holds this; and, or, not and parentheses combine several.",
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

    Exit status: 0 all passed or were skipped; 1 a driver expectation failed; 2 wrong usage or a plan that
    does not load; 3 the bench broke and says nothing about the driver, or all plans were skipped;
    128 + n ended by signal n, such as 130 after Ctrl-C. 1 wins over 3.
    """
    from harness.cli.choose import chosen_plans
    from harness.cli.progress import showing_progress
    from harness.cluster.where import check_where, crew_of
    from harness.errors import BenchError
    from harness.run.crew import Batch, NoCrew
    from harness.run.results_folder import new_results_folder, remove_reports
    from harness.run.session import Session
    from harness.run.signals import holding_signals
    from harness.vm.qemu_choice import chosen_qemu

    folder = (results or new_results_folder(Path("results"))).absolute()
    # First of all: whatever ends this run, what an earlier one said is not to be taken for its result.
    remove_reports(folder)
    where = check_where(
        workers=workers, cluster=cluster, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, qemu=qemu
    )
    paths = chosen_plans(chosen, plan_files(plans or [DEFAULT_PLANS]))
    session = Session(
        results=folder,
        accelerator=accelerator,
        qemu=chosen_qemu(qemu, option="--qemu"),
        driver=None if driver is None else driver.absolute(),
        results_are_new=results is None,
    )
    loaded = [session.load(path) for path in paths]
    session.own_results()
    tracebacks_go_to(session.results)
    batch = Batch(NoCrew(BenchError("nobody was there to run it")), session, plans=loaded, junit=True)
    try:
        batch.report()
        if cluster is None:
            with showing_progress() as session.progress:
                session.prepare(loaded)
        sys.setswitchinterval(_TURN_S)
        batch.crew = crew_of(where, session)
        for plan in loaded:
            batch.begin(plan)
        # Loaded while the first guests are forked and logged in to: first what they need, then what reports.
        import harness.wires.login  # noqa: F401
        from harness.cli.plans import run_pytest

        gc.freeze()
        gc.enable()
        ended = run_pytest(loaded, batch=batch)
    finally:
        with holding_signals():
            batch.finish()
            if not batch.is_reported:
                batch.report(is_last=True)
    raise typer.Exit(ended)


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
    from harness.cluster.options import ClusterOptions

    options = ClusterOptions(address=address, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key)
    options.check()
    # Dask is not installed everywhere; the check above says so.
    from harness.cluster.worker import worker_command

    command = worker_command(options, guests=guests, folder=folder, name=name)
    os.execv(command[0], command)


@app.command()
def check(
    plans: Annotated[list[Path], typer.Argument(help="Plans, or folders of plans.")],
    driver: Annotated[
        Path | None,
        typer.Option(
            "--driver", metavar="FILE", help="Look at this .sys, as hil run would, and not at the profile's."
        ),
    ] = None,
) -> None:
    """Load plans and say what each would do, without running anything.

    A driver of your own is looked at too. What the guest lacks on this host is told and is no failure.
    """
    from harness.cli.check import Check, described

    checking = Check(None if driver is None else driver.absolute())
    for path in plan_files(plans):
        plan, missing = checking.load(path)
        for line in described(path, plan):
            typer.echo(line)
        for what in missing:
            typer.echo(printable(f"hil: on this host, {what}"), err=True)


@app.command()
def schema(kind: Annotated[Literal["plan", "guest"], typer.Argument(help="What kind of YAML file.")]) -> None:
    """Print the JSON Schema of a kind of YAML file, for editors."""
    import json

    from harness.guest.profile import profile_schema
    from harness.plan.plan import Plan

    found = Plan.model_json_schema() if kind == "plan" else profile_schema()
    typer.echo(json.dumps(found, indent=2))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(
    context: typer.Context,
    gate: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Only this one of {', '.join(GATES)}.")
    ] = None,  # noqa: PT028
) -> None:
    """Run the project's own tests, gate by gate; any further arguments are for pytest alone."""
    raise typer.Exit(run_own_tests(context.args, gate=gate))


def main() -> None:
    """Run the command line and exit."""
    # What is loaded stays. Looking through it for garbage, while it grows and once more at the end, takes a
    # third of the time that loading it takes.
    gc.disable()
    try:
        status = run_to_end(_command_line)
        if signal_received() is not None:
            # What was interrupted may have been an exec() of a library that was being loaded. Of that Python
            # makes a death by SIGINT in the end, whatever the status.
            logging.shutdown()
            sys.stderr.flush()
            os._exit(status)
        sys.exit(status)
    finally:
        gc.freeze()


def _command_line() -> None:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    # What a plan logs is in its evidence; here it would hide why the plan did not pass. What goes wrong on
    # the QMP wire is raised.
    handler.addFilter(lambda record: not is_of_a_plan(record) and not record.name.startswith("qemu."))
    logging.basicConfig(handlers=[handler], format="hil: %(message)s")
    app()
