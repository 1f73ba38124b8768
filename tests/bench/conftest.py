# SPDX-License-Identifier: MIT
"""The bench of the reference guest, shared by all tests: its image is built if the cache has none."""

from __future__ import annotations

import pytest

from harness.guest.bench import Bench
from harness.plan.plan import Plan
from harness.run.session import Session

ONE_DIMM = """
vm: {vcpus: 1, max_vcpus: 4, memory: 1 GiB, slots: 4, max_memory: 8 GiB}
steps: [{plug: {dimms: [128 MiB]}, expect: {driver: [memory]}}]
"""


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(results=tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def plan(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plans") / "one-dimm.yaml"
    path.write_text(ONE_DIMM)
    return session.load(path)


@pytest.fixture(scope="session")
def bench(session: Session, plan: Plan) -> Bench:
    return session.bench(plan)
