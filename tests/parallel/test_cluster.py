# SPDX-License-Identifier: MIT
"""The same plans on a cluster: real scheduler, real workers, one of them killed under a plan."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from harness.cluster import overdue
from harness.cluster.worker import END_WITHIN_S
from harness.deadline import Deadline
from harness.guest.profile import load_profile
from harness.plan.plan import load_plan
from tests.e2e.test_command_line import HIL, LONG, PASSING, call, qemu_pids, write_plan
from tests.parallel.dask_cluster import make_certificates, start_cluster
from tests.parallel.test_one_host import FAILING, TOO_LARGE, results_of, verdict_of

SLOW = "within: 8 s\nsteps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory, memory]}}]\n"

QTEST = load_profile(Path(__file__).resolve().parents[2] / "testplans/guests/qtest.yaml")
PAUSED = """guest: qtest
steps:
  - {plug: {dimms: [128 MiB]}, expect: {driver: []}}
  - {pause: 60 s, expect: {driver: []}}
"""


def write_plans(folder: Path, **plans: str) -> Path:
    """Write plans by name and return their folder."""
    folder.mkdir()
    for name, text in plans.items():
        write_plan(folder, f"{name}.yaml", text)
    return folder


def begun_on(folder: Path, *, besides: Sequence[str] = ()) -> Path:
    """Wait until a plug was answered on any worker but these, and return its log."""
    deadline = Deadline.after(120)
    while True:
        for log in folder.glob("*/**/evidence/qmp.jsonl"):
            if log.relative_to(folder).parts[0] not in besides and "ACPI_DEVICE_OST" in log.read_text():
                return log
        deadline.check("a plug on a worker")
        await_nothing()


def started(argv: Sequence[str], *, cwd: Path) -> subprocess.Popen[str]:
    """Start a command whose output is read at its end, all in one."""
    return subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def await_nothing() -> None:
    """Let a moment pass between two looks at a folder."""
    select.select([], [], [], 0.05)


def test_plans_run_over_tls_and_their_evidence_comes_back(tmp_path: Path) -> None:
    plans = write_plans(tmp_path / "testplans", a=FAILING, b=PASSING, c=PASSING, d=TOO_LARGE)
    tls = make_certificates(tmp_path / "home")
    with start_cluster(tmp_path / "cluster", "lab1", "lab2", tls=tls) as cluster:
        assert cluster.address.startswith("tls://")
        done = call(*HIL, "run", plans, *cluster.options(), "-r", "out", cwd=tmp_path)
        nobody = call(
            *HIL, "run", plans / "b.yaml", "-a", "kvm", *cluster.options(), "-r", "kvm", cwd=tmp_path
        )
        plain = cluster.address.replace("tls", "tcp")
        refused = call(*HIL, "run", plans / "b.yaml", "--cluster", plain, "-r", "plain", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    results = results_of(tmp_path / "out")
    assert [(plan["plan"], plan["outcome"]) for plan in results] == [
        ("a", "failed"),
        ("b", "passed"),
        ("c", "passed"),
        ("d", "error"),
    ]
    assert results.pop()["error"].startswith("no worker can run d: ")
    assert {plan["worker"] for plan in results} == {"lab1", "lab2"}
    assert [plan["lost_workers"] for plan in results] == [[], [], []]
    assert "no worker can run d: lab1 has memory of" in done.stdout
    for name in "abc":
        folder = tmp_path / "out" / name
        assert verdict_of(folder)["evidence"] == str(folder)
        assert "device_add" in (folder / "qmp.jsonl").read_text()
        assert "record=notification" in (folder / "driver.log").read_text()
    workers = [
        item.get("value")
        for item in ElementTree.parse(tmp_path / "out/junit.xml").iter("property")
        if item.get("name") == "worker"
    ]
    assert workers == [plan["worker"] for plan in results]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert nobody.returncode == 3
        assert "no worker can run b: lab1 has no KVM; lab2 has no KVM" in nobody.stdout
    assert refused.returncode == 3, "a client without a certificate must not get in"
    assert "no scheduler answers at tcp://" in refused.stdout
    assert "Traceback" not in done.stdout + done.stderr + nobody.stdout


def test_nothing_but_tls_listens_beyond_the_host(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "paused.yaml", PAUSED)
    tls = make_certificates(tmp_path / "home")
    with start_cluster(tmp_path / "cluster", "lab1", tls=tls) as cluster:
        argv = [*HIL, "run", str(plan), *cluster.options(), "-r", "out"]
        with subprocess.Popen(
            argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            begun_on(tmp_path / "cluster")
            parts = [cluster.scheduler, *cluster.workers.values(), process]
            processes = [psutil.Process(part.pid) for part in parts]
            processes += [child for parent in processes for child in parent.children(recursive=True)]
            names = [part.name() for part in processes]
            listening = {
                (one.laddr.ip, one.laddr.port)
                for part in processes
                for one in part.net_connections("inet")
                if one.status == psutil.CONN_LISTEN
            }
            open_to_others = {place for place in listening if not ip_address(place[0]).is_loopback}
            spoken = {port: speaks_tls(port, tls) for _ip, port in open_to_others}
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert said == "hil: ended by SIGINT\n", "a pause does not outlive its VM"
    assert any("qemu" in name for name in names), "the plan was under way"
    assert len(listening) >= 3, "scheduler, worker and their pages at least"
    assert set(spoken.values()) <= {True}, (listening, spoken)


def speaks_tls(port: int, tls: Path) -> bool:
    """Return whether who listens on a port of this host can be spoken to in TLS, and in nothing else."""
    context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
    context.check_hostname = False
    # As Python 3.13 is by itself.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(tls / "head.pem", tls / "head-key.pem")
    try:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10)):
            pass
    except ssl.SSLError:
        return False
    with socket.create_connection(("127.0.0.1", port), timeout=10) as clear:
        clear.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        try:
            return not clear.recv(100).startswith(b"HTTP/")
        except ConnectionError:
            return True


def test_a_plan_whose_worker_is_killed_runs_on_another_and_the_report_says_so(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "slow.yaml", SLOW)
    with start_cluster(tmp_path / "cluster", "alpha", "beta") as cluster:
        argv = [*HIL, "run", str(plan), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            log = begun_on(tmp_path / "cluster")
            lost = log.relative_to(tmp_path / "cluster").parts[0]
            cluster.workers[lost].send_signal(signal.SIGKILL)
            output, _ = process.communicate(timeout=120)
        # Its QEMU died with it.
        assert qemu_pids(tmp_path / "cluster" / lost) == []
    other = {"alpha": "beta", "beta": "alpha"}[lost]
    assert process.returncode == 1, output
    (result,) = results_of(tmp_path / "out")
    assert (result["outcome"], result["worker"], result["lost_workers"]) == ("failed", other, [lost])
    assert f"slow was run again on {other}: lost while running it: {lost}" in output
    assert verdict_of(tmp_path / "out/slow")["lost_workers"] == [lost]
    junit = (tmp_path / "out/junit.xml").read_text()
    assert f'name="lost_workers" value="{lost}"' in junit


def impatient(**seconds: float) -> list[str]:
    """Return the command of ``hil`` that waits so long for what a cluster does not say."""
    places = {
        "worker_s": "silence.SILENT_WITHIN_S",
        "build_s": "overdue.BUILD_WITHIN_S",
        "alone_s": "cluster.WORKER_WITHIN_S",
        "scheduler_s": "cluster.SCHEDULER_WITHIN_S",
        "answer_s": "scheduler.ANSWER_WITHIN_S",
        "stop_s": "crew.STOP_WITHIN_S",
    }
    program = (
        "from harness.cluster import cluster, overdue, scheduler, silence; from harness.run import crew;"
        " from harness.cli.app import main; "
    )
    changes = "".join(f"{places[name]} = {value}; " for name, value in seconds.items())
    return [sys.executable, "-c", f"{program}{changes}main()"]


def test_a_plan_whose_worker_was_frozen_runs_on_another_and_the_report_says_so(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "slow.yaml", SLOW)
    with start_cluster(tmp_path / "cluster", "alpha", "beta") as cluster:
        argv = [*impatient(worker_s=10), "run", str(plan), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            frozen = begun_on(tmp_path / "cluster").relative_to(tmp_path / "cluster").parts[0]
            cluster.workers[frozen].send_signal(signal.SIGSTOP)
            output, _ = process.communicate(timeout=200)
        # It ends by itself, and its VM with it, once it is let run.
        cluster.workers[frozen].send_signal(signal.SIGCONT)
        cluster.workers[frozen].wait(6 * END_WITHIN_S)
        assert qemu_pids(tmp_path / "cluster" / frozen) == []
    other = {"alpha": "beta", "beta": "alpha"}[frozen]
    assert process.returncode == 1, output
    (result,) = results_of(tmp_path / "out")
    assert (result["outcome"], result["worker"], result["lost_workers"]) == ("failed", other, [frozen])
    assert f"slow was run again on {other}: lost while running it: {frozen}" in output


def test_a_plan_under_which_two_workers_were_frozen_is_an_error(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "slow.yaml", SLOW)
    with start_cluster(tmp_path / "cluster", "alpha", "beta", "gamma") as cluster:
        argv = [*impatient(worker_s=10), "run", str(plan), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            frozen: list[str] = []
            for _ in range(2):
                log = begun_on(tmp_path / "cluster", besides=frozen)
                frozen.append(log.relative_to(tmp_path / "cluster").parts[0])
                cluster.workers[frozen[-1]].send_signal(signal.SIGSTOP)
            output, _ = process.communicate(timeout=200)
    assert process.returncode == 3, output
    error = f"slow was given up: {frozen[0]} fell silent, {frozen[1]} fell silent"
    assert [(plan["outcome"], plan["error"]) for plan in results_of(tmp_path / "out")] == [("error", error)]


def test_the_last_worker_that_was_frozen_is_not_waited_for(tmp_path: Path) -> None:
    plans = write_plans(tmp_path / "testplans", a=SLOW, b=PASSING)
    with start_cluster(tmp_path / "cluster", "alpha") as cluster:
        argv = [*impatient(worker_s=10, alone_s=1), "run", str(plans), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            begun_on(tmp_path / "cluster")
            cluster.workers["alpha"].send_signal(signal.SIGSTOP)
            output, _ = process.communicate(timeout=200)
    assert process.returncode == 3, output
    told = {plan["plan"]: plan["error"] for plan in results_of(tmp_path / "out")}
    assert told["a"] == "no worker can run a: there is none; alpha fell silent"
    assert told["b"].startswith("no worker can run b: there is none")


def test_a_plan_that_hangs_on_two_workers_that_live_is_an_error(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "hangs.yaml", PAUSED)
    longest_s = 10
    build_s = overdue.BUILD_WITHIN_S + longest_s - overdue.longest_s(load_plan(plan), QTEST.deadlines)
    with start_cluster(tmp_path / "cluster", "alpha", "beta") as cluster:
        argv = [*impatient(build_s=build_s), "run", str(plan), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            output, _ = process.communicate(timeout=200)
        for worker in cluster.workers.values():
            worker.wait(6 * END_WITHIN_S)
        assert qemu_pids(tmp_path / "cluster") == []
    assert process.returncode == 3, output
    (result,) = results_of(tmp_path / "out")
    did_not = "did not end it in 10 s, longer than its deadlines allow"
    errors = [f"hangs was given up: {a} {did_not}, {b} {did_not}" for a, b in permutations(("alpha", "beta"))]
    assert result["outcome"] == "error"
    assert result["error"] in errors


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_scheduler_that_was_frozen_is_not_waited_for(tmp_path: Path, interrupted: bool) -> None:
    plans = write_plans(tmp_path / "testplans", a=LONG, b=PASSING)
    with start_cluster(tmp_path / "cluster", "alpha") as cluster:
        hil = impatient(answer_s=1, scheduler_s=600 if interrupted else 5)
        argv = [*hil, "run", str(plans), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            begun_on(tmp_path / "cluster")
            cluster.scheduler.send_signal(signal.SIGSTOP)
            if interrupted:
                process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=100)
    assert process.returncode == (130 if interrupted else 3), output
    assert [plan["plan"] for plan in results_of(tmp_path / "out")] == ["a", "b"]
    if not interrupted:
        a, b = (plan["error"] for plan in results_of(tmp_path / "out"))
        assert a == f"the scheduler {cluster.address} has not answered for 5 s"
        # The second may be handed over a moment after the scheduler fell silent.
        assert b in (a, f"the scheduler {cluster.address} did not answer within 1 s")
    assert "Traceback" not in output


def test_a_plan_that_pytest_timeout_ends_ends_on_its_worker_too(tmp_path: Path) -> None:
    qtest = PAUSED.replace("60 s", "1 s")
    plans = write_plans(tmp_path / "testplans", a=PAUSED, b=qtest)
    with start_cluster(tmp_path / "cluster", "alpha") as cluster:
        options = ["--timeout", "15", "--hil-cluster", cluster.address, "--hil-results", "out"]
        done = call(sys.executable, "-m", "pytest", plans, *options, cwd=tmp_path)
        assert qemu_pids(tmp_path / "cluster") == [], done.stdout + done.stderr
    assert done.returncode == 1, done.stdout + done.stderr
    told = [(plan["plan"], plan["outcome"], plan["error"]) for plan in results_of(tmp_path / "out")]
    assert told == [("a", "error", "interrupted"), ("b", "passed", None)], done.stdout
    assert "ACPI_DEVICE_OST" in (tmp_path / "out/a/qmp.jsonl").read_text()


def test_ctrl_c_does_not_wait_for_a_worker_that_was_frozen(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "long.yaml", LONG)
    with start_cluster(tmp_path / "cluster", "alpha") as cluster:
        argv = [*impatient(answer_s=1, stop_s=1), "run", str(plan), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            begun_on(tmp_path / "cluster")
            cluster.workers["alpha"].send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert [(plan["outcome"], plan["error"]) for plan in results_of(tmp_path / "out")] == [
        ("error", "interrupted; it did not end within 1 s")
    ]
    assert "Traceback" not in output


def test_ctrl_c_ends_the_vms_on_the_workers_and_reports_what_finished(tmp_path: Path) -> None:
    plans = write_plans(tmp_path / "testplans", a=PASSING, b=LONG)
    with start_cluster(tmp_path / "cluster", "alpha") as cluster:
        argv = [*HIL, "run", str(plans), *cluster.options(), "-r", "out"]
        with started(argv, cwd=tmp_path) as process:
            deadline = Deadline.after(120)
            while not (tmp_path / "out/a/verdict.json").exists():
                deadline.check("the end of the first plan")
                await_nothing()
            begun_on(tmp_path / "cluster")
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        assert qemu_pids(tmp_path / "cluster") == []
        # The worker is fit for the next run.
        again = call(*HIL, "run", plans / "a.yaml", *cluster.options(), "-r", "again", cwd=tmp_path)
    assert process.returncode == 130, output
    assert [(plan["plan"], plan["error"]) for plan in results_of(tmp_path / "out")] == [
        ("a", None),
        ("b", "interrupted"),
    ]
    assert (tmp_path / "out/b/qmp.jsonl").exists()
    assert again.returncode == 0, again.stdout


def test_a_worker_ends_when_it_is_told_to_while_its_scheduler_ends(tmp_path: Path) -> None:
    with start_cluster(tmp_path / "cluster", "alpha") as cluster:
        for process in (cluster.scheduler, cluster.workers["alpha"]):
            process.terminate()
        cluster.scheduler.wait(END_WITHIN_S)
        cluster.workers["alpha"].wait(3 * END_WITHIN_S)


def test_a_worker_that_hangs_while_it_ends_is_ended(tmp_path: Path) -> None:
    program = """
import threading, types
from distributed import Status
from harness.cluster import worker as cluster_worker
cluster_worker.END_WITHIN_S = 0.1
worker = types.SimpleNamespace(status=Status.running)
cluster_worker.dask_setup(worker)
print("running", flush=True)
input()
worker.status = Status.closing
threading.Event().wait()
"""
    argv = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert process.poll() is None
        _, said = process.communicate("end\n", timeout=60)
    assert process.returncode == 1
    assert "the worker did not end within 0.1 s" in said


def test_a_scheduler_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    plans = write_plans(tmp_path / "testplans", a=PASSING, b=PASSING)
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    done = subprocess.run(
        [*HIL, "run", str(plans), "--cluster", "tcp://127.0.0.1:1", "-r", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    # Where CI is set, pytest's own summary repeats each in full.
    beginning = "error     no scheduler answers at tcp://127.0.0.1:1"
    assert sum(line.startswith(beginning) for line in done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["run", "worker"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["tcp://head:8786"], "plain TCP is refused"),
        (["tcp://192.0.2.1:8786"], "use tls://192.0.2.1:8786"),
        (["ucx://head:8786"], "is no address of a scheduler"),
        (["head:8786"], "is no address of a scheduler"),
        (["tls://head"], "is no address of a scheduler"),
        (["tls://head:port"], "an address looks like tls://head:8786"),
        (["tls://head:8786"], "needs --tls-ca, --tls-cert, --tls-key"),
        (["tls://head:8786", "--tls-ca", "plan.yaml"], "--tls-cert and --tls-key must be given too"),
        (
            ["tls://head:8786", "--tls-ca", "gone.pem", "--tls-cert", "plan.yaml", "--tls-key", "plan.yaml"],
            "--tls-ca: gone.pem: no such file",
        ),
    ],
)
def test_what_is_not_safe_or_whole_is_refused(
    command: str, options: list[str], says: str, tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, "plan.yaml", PASSING)
    argv = ["run", str(plan), "--cluster", *options] if command == "run" else ["worker", *options]
    done = call(*HIL, *argv, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls-ca", "plan.yaml"], "certificates without a cluster"),
        (["--cluster", "tcp://127.0.0.1:1", "-n", "2"], "is for this host"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], says: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "plan.yaml", PASSING)
    done = call(*HIL, "run", plan, *options, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert says in done.stderr


def test_without_dask_it_says_how_to_install_it(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "plan.yaml", PASSING)
    program = "import sys; sys.modules['distributed'] = None; from harness.cli.app import main; main()"
    argv = [sys.executable, "-c", program, "run", str(plan), "--cluster", "tcp://127.0.0.1:8786"]
    done = call(*argv, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "pip install 'hil-hotplug[cluster]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
