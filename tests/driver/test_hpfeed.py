# SPDX-License-Identifier: MIT
"""hpfeed tells of the devices that Linux has taken in, each once, when they can be used."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.deadline import Deadline
from tests.driver.acpi_tree import BLOCK_BYTES, BOOT_BLOCKS, AcpiTree
from tests.driver.wine import DIE_WITH_PARENT, PnpFeed, Wine

WITHIN_S = 10.0
BOOT_BYTES = BOOT_BLOCKS * BLOCK_BYTES
ACCEPTS_ALL = "while read -r line; do echo ok 0; done"
REFUSES_CPU_2 = """while read -r line; do case $line in
"processor add_start 2 "*) echo ok 0xc000009a;; *) echo ok 0;; esac; done"""
VCPU = (
    r"\??\ACPI#GenuineIntel_-_Intel64_Family_6_Model_6_-_QEMU_Virtual_CPU#_{}"
    "#{{97fadb10-4e33-40ae-359c-8bef029dbdd0}}"
)
DIMM = r"\??\ACPI#PNP0C80#0x{:02x}#{{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}}"


class Hpfeed:
    """A running hpfeed and what it says on stderr."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._pending = b""

    def line(self) -> str:
        """Return the next line of its log, without the stamp."""
        assert self.process.stderr is not None
        deadline = Deadline.after(WITHIN_S)
        while b"\n" not in self._pending:
            if not select.select([self.process.stderr], [], [], deadline.remaining_s())[0]:
                deadline.check("a line of hpfeed")
                continue
            chunk = os.read(self.process.stderr.fileno(), 65536)
            assert chunk, "hpfeed has ended"
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        stamped = re.fullmatch(r"\[ *\d+\.\d{6}\] hpfeed: (.*)", line.decode())
        assert stamped, line
        return stamped[1]

    def requests(self, count: int) -> list[str]:
        """Return the next requests; each must have got its reply."""
        found = []
        for _ in range(count):
            found.append(self.line().removeprefix("> "))
            assert self.line().startswith("< ok")
        return found

    def get_ready(self) -> list[str]:
        """Wait until it watches; return what it asked before."""
        asked = self.requests(2)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"hpfeed: ready\n"
        return asked


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[AcpiTree]:
    with closing(AcpiTree(tmp_path)) as tree:
        yield tree


@pytest.fixture
def start(build_dir: Path, tree: AcpiTree) -> Iterator[Callable[..., Hpfeed]]:
    started = []

    def start(*command: str, feed: str = ACCEPTS_ALL, env: dict[str, str] | None = None) -> Hpfeed:
        process = subprocess.Popen(
            [
                *DIE_WITH_PARENT,
                str(build_dir / "hpfeed"),
                f"--sysfs={tree.sysfs}",
                f"--uevents={tree.uevents}",
                "--",
                *(command or ("sh", "-c", feed)),
            ],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return Hpfeed(process)

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def hpfeed(start: Callable[..., Hpfeed]) -> Hpfeed:
    """One that has told what was there at its start."""
    started = start()
    assert started.get_ready() == [f"system 1 {BOOT_BYTES} 4", f"existing processor {VCPU.format(0)}"]
    return started


def bring_in(tree: AcpiTree, hpfeed: Hpfeed, slot: int, *, online: str, **registered: str) -> list[str]:
    """Plug a vCPU and play Linux's part; return what hpfeed asked."""
    tree.plug_vcpu(slot)
    tree.register_cpu(slot, **registered)
    with closing(tree.online_request(slot)) as request:
        tree.uevent(f"add@/devices/system/cpu/cpu{slot}")
        asked = hpfeed.requests(1)
        assert request.wait(Deadline.after(WITHIN_S)) == "1"
    tree.set_online(online)
    return asked + hpfeed.requests(3)


@pytest.mark.parametrize("link", ["physical_node", "firmware_node"])
def test_vcpu_is_started_then_told(tree: AcpiTree, hpfeed: Hpfeed, link: str) -> None:
    assert bring_in(tree, hpfeed, 1, online="0-1", link=link) == [
        "processor add_start 1 0x00000000",
        f"system 2 {BOOT_BYTES} 4",
        "processor add_complete 1 0x00000000",
        f"arrive processor {VCPU.format(1)}",
    ]


def test_vcpu_waits_for_linux(tree: AcpiTree, hpfeed: Hpfeed) -> None:
    tree.plug_vcpu(2)
    tree.uevent("change@/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0010:00/LNXCPU:02")
    # A DIMM that is complete passes the vCPU that is not, so nothing was asked for the vCPU.
    tree.plug_dimm(0, blocks=1)
    tree.uevent("online@/devices/system/memory/memory4")
    assert hpfeed.requests(2)[1] == f"arrive memory {DIMM.format(0)}"
    tree.register_cpu(2)
    with closing(tree.online_request(2)) as request:
        assert hpfeed.requests(1) == ["processor add_start 2 0x00000000"]
        assert request.wait(Deadline.after(WITHIN_S)) == "1"


def test_refused_vcpu_stays_offline(tree: AcpiTree, start: Callable[..., Hpfeed]) -> None:
    hpfeed = start(feed=REFUSES_CPU_2)
    hpfeed.get_ready()
    tree.plug_vcpu(2)
    tree.register_cpu(2)
    with closing(tree.online_request(2)) as request:
        tree.uevent("add@/devices/system/cpu/cpu2")
        assert hpfeed.requests(1) == ["processor add_start 2 0x00000000"]
        assert hpfeed.line() == "a driver refused cpu2"
        # Whom it concerns is told by the PnP manager. The next thing told is another vCPU's arrival.
        assert bring_in(tree, hpfeed, 3, online="0,3")[-1] == f"arrive processor {VCPU.format(3)}"
        assert not request.asked()


def test_vcpu_that_linux_cannot_start_is_a_failure(tree: AcpiTree, hpfeed: Hpfeed) -> None:
    tree.plug_vcpu(1)
    tree.register_cpu(1, can_start=False)
    tree.uevent("add@/devices/system/cpu/cpu1")
    assert hpfeed.requests(1) == ["processor add_start 1 0x00000000"]
    assert hpfeed.line().startswith("Linux cannot bring cpu1 online: ")
    assert hpfeed.requests(1) == ["processor add_failure 1 0xc0000001"]


def test_dimm_is_told_once_when_all_its_blocks_are_online(tree: AcpiTree, hpfeed: Hpfeed) -> None:
    tree.plug_dimm(1, blocks=4, state="offline")
    for block in range(4, 8):
        tree.uevent(f"add@/devices/system/memory/memory{block}")
    # A vCPU is told while the DIMM waits.
    assert bring_in(tree, hpfeed, 1, online="0-1")[-1] == f"arrive processor {VCPU.format(1)}"
    tree.bring_memory_online()
    for block in range(4, 8):
        tree.uevent(f"online@/devices/system/memory/memory{block}")
    assert hpfeed.requests(2) == [
        f"system 2 {BOOT_BYTES + 4 * BLOCK_BYTES} 4",
        f"arrive memory {DIMM.format(1)}",
    ]
    # And not again: the next thing told is another vCPU.
    assert bring_in(tree, hpfeed, 2, online="0-2")[0] == "processor add_start 2 0x00000000"


@pytest.mark.parametrize(
    ("uid", "instance"), [("BANK.A-1", "BANK.A-1"), (None, "1"), ("", "1"), ("a#b", "1"), ("a b", "1")]
)
def test_the_instance_of_a_dimm_is_its_uid(
    tree: AcpiTree, hpfeed: Hpfeed, uid: str | None, instance: str
) -> None:
    tree.set_uid(1, uid)
    tree.plug_dimm(1, blocks=1)
    tree.uevent("online@/devices/system/memory/memory4")
    assert hpfeed.requests(2)[1] == f"arrive memory {DIMM.format(0).replace('0x00', instance)}"


def test_burst_is_told_in_the_order_of_slots(tree: AcpiTree, hpfeed: Hpfeed) -> None:
    tree.set_online("0-3")  # by somebody else, so that none has to wait
    for slot in (3, 1, 2):
        tree.plug_vcpu(slot)
        tree.register_cpu(slot)
    tree.plug_dimm(1, blocks=1)
    tree.plug_dimm(0, blocks=2)
    tree.uevent("add@/devices/system/cpu/cpu3")
    told = [request for request in hpfeed.requests(3 * 4 + 2 * 2) if request.startswith("arrive")]
    assert told == [f"arrive processor {VCPU.format(slot)}" for slot in (1, 2, 3)] + [
        f"arrive memory {DIMM.format(slot)}" for slot in (0, 1)
    ]


def test_removal_may_show_after_its_uevent(tree: AcpiTree, hpfeed: Hpfeed) -> None:
    bring_in(tree, hpfeed, 1, online="0-1")
    tree.set_online("0")
    tree.uevent("offline@/devices/system/cpu/cpu1")
    tree.uevent("remove@/devices/system/cpu/cpu1")
    tree.unplug_vcpu(1)
    assert hpfeed.requests(2) == [f"system 1 {BOOT_BYTES} 4", f"remove processor {VCPU.format(1)}"]


def test_uevents_of_others_are_nothing(tree: AcpiTree, hpfeed: Hpfeed) -> None:
    tree.plug_vcpu(1)
    tree.register_cpu(1)
    tree.set_online("0-1")
    tree.uevent("add@/devices/pci0000:00/0000:00:03.0")
    assert not select.select([hpfeed.process.stderr], [], [], 0.2)[0]
    tree.uevent("add@/devices/system/cpu/cpu1")
    assert hpfeed.requests(4)[-1] == f"arrive processor {VCPU.format(1)}"


@pytest.mark.parametrize("feed", ["exit 0", "read -r line; exit 3"])
def test_feed_that_ends_is_an_error(start: Callable[..., Hpfeed], feed: str) -> None:
    hpfeed = start(feed=feed)
    assert hpfeed.process.wait(WITHIN_S) == 1
    assert hpfeed.process.stdout.read() == b""
    assert "the feed" in hpfeed.process.stderr.read().decode()


def test_feed_that_ends_while_nothing_is_asked_is_noticed_at_once(
    start: Callable[..., Hpfeed], tmp_path: Path
) -> None:
    hpfeed = start(feed=f"echo $$ >{tmp_path}/feed; {ACCEPTS_ALL}")
    hpfeed.get_ready()
    os.kill(int((tmp_path / "feed").read_text()), signal.SIGKILL)
    assert hpfeed.process.wait(WITHIN_S) == 1
    assert hpfeed.line() == "the feed has ended"


def test_winepnp_that_is_not_running_is_an_error(start: Callable[..., Hpfeed]) -> None:
    hpfeed = start(feed="while read -r line; do echo error 0x00000002 winepnp is not running; done")
    assert hpfeed.process.wait(WITHIN_S) == 1
    assert b"winepnp does not take" in hpfeed.process.stderr.read()


@pytest.mark.parametrize("arguments", [[], ["--nonsense", "--", "true"], ["--"]])
def test_wrong_usage_is_said(build_dir: Path, arguments: list[str]) -> None:
    answer = subprocess.run([build_dir / "hpfeed", *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "usage: hpfeed" in answer.stderr


@pytest.mark.parametrize("option", ["--log", "--pid"])
def test_a_file_that_it_cannot_write_is_an_error(build_dir: Path, option: str) -> None:
    command = [build_dir / "hpfeed", option, "/nowhere/file", "--", "true"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "cannot write /nowhere/file: No such file or directory" in answer.stderr


def test_detached_it_goes_on_when_ready(build_dir: Path, tree: AcpiTree, tmp_path: Path) -> None:
    log = tmp_path / "log"
    files = [f"--log={tmp_path / 'copy'}", f"--pid={tmp_path / 'own-pid'}"]
    words = [f"--sysfs={tree.sysfs}", f"--uevents={tree.uevents}", *files, "--detach", "--"]
    feed = f"echo $PPID >{tmp_path}/pid; {ACCEPTS_ALL}"
    with log.open("wb") as stderr:
        answer = subprocess.run(
            [build_dir / "hpfeed", *words, "sh", "-c", feed],
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=WITHIN_S,
            check=False,
        )
    daemon = int((tmp_path / "pid").read_text())
    ended = os.pidfd_open(daemon)
    try:
        assert (answer.returncode, answer.stdout) == (0, b"hpfeed: ready\n")
        assert not select.select([ended], [], [], 0)[0]
        assert f"existing processor {VCPU.format(0)}" in log.read_text()
        assert (tmp_path / "copy").read_text() == log.read_text()
        assert (tmp_path / "own-pid").read_text() == f"{daemon}\n"
    finally:
        signal.pidfd_send_signal(ended, signal.SIGTERM)
        assert select.select([ended], [], [], WITHIN_S)[0]
        os.close(ended)


def test_detached_it_fails_in_the_foreground(build_dir: Path, tree: AcpiTree) -> None:
    words = [f"--sysfs={tree.sysfs}", f"--uevents={tree.uevents}", "--detach", "--"]
    answer = subprocess.run([build_dir / "hpfeed", *words, "false"], capture_output=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, b"")


def test_whole_chain_up_to_the_driver(
    tree: AcpiTree, start: Callable[..., Hpfeed], wine: Wine, pnp: PnpFeed, build_dir: Path
) -> None:
    driver = wine.install_driver(build_dir / "pnptest.sys", "pnptest", Behaviour=0)
    log = wine.host_path(r"C:\pnptest.log")
    log.unlink(missing_ok=True)
    hpfeed = start(*wine.feed_command, env=wine.environment)
    hpfeed.get_ready()
    assert driver.start()
    bring_in(tree, hpfeed, 1, online="0-1")
    tree.plug_dimm(0, blocks=2)
    tree.uevent("online@/devices/system/memory/memory4")
    hpfeed.requests(2)
    lines = log.read_text().splitlines()
    driver.stop()
    driver.uninstall()
    told = [line.partition(" ")[0] + " " + line.rpartition("link=")[2] for line in lines if "link=" in line]
    assert told == [f"C {VCPU.format(1)}", f"A {DIMM.format(0)}", f"B {DIMM.format(0)}"]
    assert lines[2] == f"memory known bytes={BOOT_BYTES}"
    for interface, link in (("processor", 0), ("processor", 1), ("memory", 0)):
        pnp.ok(f"remove {interface} {(VCPU if interface == 'processor' else DIMM).format(link)}")
