# SPDX-License-Identifier: MIT
"""What is asked of a Dask scheduler, each with a deadline: one that was frozen keeps its connections open."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distributed import Client, Security

from harness.cluster.options import ClusterOptions
from harness.cluster.resources import Resources
from harness.cluster.worker import interrupt, topic
from harness.errors import BenchError

CONNECT_WITHIN_S = 10.0
ANSWER_WITHIN_S = 10.0
CLOSE_WITHIN_S = 5.0


class Scheduler:
    """A connection to a scheduler, for one run.

    :ivar client: Dask's own, to submit tasks with.
    """

    def __init__(self, options: ClusterOptions, *, run: str) -> None:
        """Connect, and wait for a first worker.

        :raise BenchError: scheduler or worker are not there in time.
        """
        self.address = options.address
        self._run = run
        self.client = _connect(options)

    def workers(self) -> dict[str, Mapping[str, Any]]:
        """Return what the scheduler knows of each worker, by address.

        :raise BenchError: it does not answer.
        """
        workers: dict[str, Mapping[str, Any]] = self._ask("identity", n_workers=-1)["workers"]
        return workers

    def begun(self) -> list[tuple[int, str]]:
        """Return which plans of the run were begun on which workers, in that order.

        :raise BenchError: it does not answer.
        """
        events = self._ask("events", topic=topic(self._run))
        return [(event["number"], event["name"]) for _at, event in events]

    def remove(self, worker_address: str) -> None:
        """Let the scheduler forget a worker; what it was to do is done by others.

        :raise BenchError: it does not answer.
        """
        self._ask("unregister", address=worker_address, stimulus_id=f"hil-{self._run}")

    def interrupt(self, number: int | None = None) -> None:
        """End the VMs of the run, or of one of its plans, on every worker that answers soon."""
        asking = threading.Thread(target=self._interrupt, args=(number,), name="harness-end", daemon=True)
        asking.start()
        asking.join(ANSWER_WITHIN_S)

    def close(self) -> None:
        """End the connection."""
        self.client.close(timeout=CLOSE_WITHIN_S)

    def _interrupt(self, number: int | None) -> None:
        with suppress(Exception):
            self.client.run(interrupt, self._run, number, on_error="ignore")

    def _ask(self, operation: str, **arguments: object) -> Any:
        question = getattr(self.client.scheduler, operation)
        try:
            return self.client.sync(question, callback_timeout=ANSWER_WITHIN_S, **arguments)
        except TimeoutError as err:
            raise BenchError(
                f"the scheduler {self.address} did not answer within {ANSWER_WITHIN_S:g} s"
            ) from err
        except OSError as err:
            raise BenchError(f"the scheduler {self.address} did not answer: {err}") from err


def resources_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Resources]:
    """Return what each worker has announced, by name."""
    return dict(sorted((str(worker["name"]), worker["resources"]) for worker in workers.values()))


def _connect(options: ClusterOptions) -> Client:
    security = None
    if options.is_encrypted:
        files = {
            "tls_ca_file": options.tls_ca,
            "tls_client_cert": options.tls_cert,
            "tls_client_key": options.tls_key,
        }
        given = {name: os.fspath(file) for name, file in files.items() if file is not None}
        security = Security(require_encryption=True, **given)
    try:
        client = Client(options.address, security=security, timeout=CONNECT_WITHIN_S, set_as_default=False)
    except (OSError, TimeoutError, RuntimeError, ValueError) as err:
        raise BenchError(f"no scheduler answers at {options.address}: {err}") from err
    try:
        client.wait_for_workers(1, timeout=CONNECT_WITHIN_S)
    except TimeoutError as err:
        client.close(timeout=CLOSE_WITHIN_S)
        raise BenchError(
            f"{options.address} has no worker; start one with: hil worker {options.address}"
        ) from err
    return client
