# SPDX-License-Identifier: MIT
"""Limits of containers and units are found wherever they are: on made-up hosts, and on this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.document.units import GIB, MIB
from harness.host.control_groups import Leave, leave

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MEMORY = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V1_CPU = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
NOTHING = Leave(memory_bytes=None, cores=None)
NO_LIMIT = 9223372036854771712


class Host:
    """A host made of files: what ``/proc`` says of a process, and control groups below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "self").mkdir()

    def process(self, *, cgroup: str, mountinfo: str) -> None:
        (self._folder / "self/cgroup").write_text(cgroup)
        (self._folder / "self/mountinfo").write_text(mountinfo)

    def group(self, path: str, **files: object) -> None:
        folder = self._folder / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    def leave(self) -> Leave:
        return leave(self._folder / "self", root=self._folder)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_smallest_limit_from_the_own_group_up_counts(host: Host) -> None:
    host.process(cgroup="0::/user.slice/job.scope\n", mountinfo=V2)
    host.group("user.slice/job.scope")
    assert host.leave() == NOTHING
    host.group("user.slice", memory__max=2 * GIB, memory__current=GIB, cpu__max="150000 100000")
    assert host.leave() == Leave(memory_bytes=GIB, cores=1.5)
    stat = f"anon {200 * MIB}\ninactive_file {100 * MIB}"
    own = {"memory__max": "max", "memory__current": 300 * MIB, "memory__stat": stat}
    host.group("user.slice/job.scope", **own, cpu__max="max 100000")
    assert host.leave() == Leave(memory_bytes=GIB, cores=1.5)
    host.group("user.slice/job.scope", memory__high=512 * MIB, cpu__max="50000 100000")
    assert host.leave() == Leave(memory_bytes=312 * MIB, cores=0.5)
    host.group("user.slice/job.scope", memory__max=400 * MIB)
    assert host.leave() == Leave(memory_bytes=200 * MIB, cores=0.5)


def test_a_group_that_is_full_leaves_nothing(host: Host) -> None:
    host.process(cgroup="0::/\n", mountinfo=V2)
    host.group("", memory__max=GIB, memory__current=2 * GIB)
    assert host.leave().memory_bytes == 0


def test_the_groups_of_others_do_not_count(host: Host) -> None:
    host.process(cgroup="0::/mine\n", mountinfo=V2)
    host.group("other", memory__max=MIB, memory__current=0, cpu__max="1000 100000")
    host.group("mine/below", memory__max=MIB, memory__current=0, cpu__max="1000 100000")
    assert host.leave() == NOTHING


def test_version_1_has_groups_of_their_own_for_each_controller(host: Host) -> None:
    host.process(
        cgroup="4:memory:/jobs/one\n3:cpu,cpuacct:/shares/two\n0::/\n",
        mountinfo=V1_MEMORY.format(root="/") + V1_CPU.format(root="/"),
    )
    unlimited = {"memory__limit_in_bytes": NO_LIMIT, "memory__usage_in_bytes": 8 * GIB}
    host.group("memory/jobs/one", **unlimited)
    host.group("cpu,cpuacct/shares/two", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert host.leave() == NOTHING
    stat = f"inactive_file {MIB}\ntotal_inactive_file {100 * MIB}"
    limited = {"memory__limit_in_bytes": GIB, "memory__usage_in_bytes": 600 * MIB, "memory__stat": stat}
    host.group("memory/jobs", **limited)
    host.group("cpu,cpuacct/shares", cpu__cfs_quota_us=300000, cpu__cfs_period_us=100000)
    assert host.leave() == Leave(memory_bytes=524 * MIB, cores=3.0)


def test_both_versions_may_be_mounted_at_once(host: Host) -> None:
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    host.process(
        cgroup="4:memory:/a\n0::/b\n",
        mountinfo=f"{V1_MEMORY.format(root='/')}{unified}9 9 0:1 / / rw - ext4 x rw\n",
    )
    host.group("memory/a", memory__limit_in_bytes=GIB, memory__usage_in_bytes=0)
    host.group("unified/b", cpu__max="200000 100000")
    assert host.leave() == Leave(memory_bytes=GIB, cores=2.0)


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        pytest.param("/docker/0123", "/docker/0123", id="its-group-is-what-is-mounted"),
        pytest.param("/docker/0123", "/", id="the-paths-are-the-hosts"),
        pytest.param("/", "/", id="a-namespace-of-its-own"),
        pytest.param("/../other", "/", id="outside-its-namespace"),
        pytest.param("/elsewhere", "/docker/0123", id="another-is-mounted"),
    ],
)
def test_in_a_container_its_limits_count(host: Host, path: str, mounted: str) -> None:
    host.process(cgroup=f"4:memory:{path}\n", mountinfo=V1_MEMORY.format(root=mounted))
    # All that a container sees is its own group, at the top.
    host.group("memory", memory__limit_in_bytes=GIB, memory__usage_in_bytes=0)
    assert host.leave() == Leave(memory_bytes=GIB, cores=None)


def test_a_mount_point_may_have_any_name(host: Host) -> None:
    mountinfo = V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040groups")
    host.process(cgroup="0::/a:b\n", mountinfo=mountinfo)
    host.group("my groups/a:b", memory__max=GIB, memory__current=0)
    assert host.leave().memory_bytes == GIB


def test_a_host_without_control_groups_limits_nothing(host: Host) -> None:
    assert host.leave() == NOTHING
    host.process(cgroup="", mountinfo="")
    assert host.leave() == NOTHING


def test_on_this_host_it_is_at_least_what_this_process_uses() -> None:
    found = leave()
    assert found.cores is None or found.cores > 0
    assert found.memory_bytes is None or 0 <= found.memory_bytes < os.sysconf("SC_PHYS_PAGES") * 4096 * 1024
