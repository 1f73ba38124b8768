# SPDX-License-Identifier: MIT
"""Where plans are run: so many at once on this host, or on a cluster."""

from __future__ import annotations

from pathlib import Path

from harness.cluster.options import ClusterOptions
from harness.errors import BenchError, UsageError
from harness.run.crew import Crew, NoCrew, Workers, parse_workers
from harness.run.local_crew import LocalCrew
from harness.run.session import Session


def check_where(
    *,
    workers: str | None,
    cluster: str | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    qemu: str | None,
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
    if qemu is not None:
        raise UsageError("a choice of QEMU is for this host; HIL_QEMU makes it for a worker of a cluster")
    options = ClusterOptions(address=cluster, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key)
    options.check()
    return options


def crew_of(where: Workers | ClusterOptions, session: Session) -> Crew:
    """Return who runs plans there; one that gives every plan the same error if the cluster cannot be had."""
    if not isinstance(where, ClusterOptions):
        return LocalCrew(session, workers=where)
    # Dask takes half a second to import and is not installed everywhere.
    from harness.cluster.cluster import ClusterCrew

    try:
        return ClusterCrew(where, session)
    except BenchError as err:
        return NoCrew(err)
