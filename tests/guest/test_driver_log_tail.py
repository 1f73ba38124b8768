# SPDX-License-Identifier: MIT
"""Following a log over SFTP: it grows, is torn, vanishes, shrinks, is replaced, has gaps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import DriverLogError, GuestUnreachableError
from harness.evidence.record import find_gaps
from harness.guest.driver_log_tail import MOST_BYTES, DriverLogTail, SeenRecord
from harness.wires.ssh import SshConnection


def soon() -> Deadline:
    return Deadline.after(20)


def line(seq: int, record: str = "baseline", rest: str = "") -> bytes:
    if record == "load":
        rest = " format=1 driver=hpnotify/1.0.0 qpc_hz=10000000 interfaces=both synchronous=0"
    return (
        f"seq={seq} record={record} time_100ns={seq * 7 + 1} qpc={seq} active_processors=1 "
        f"memory_bytes=1073741824 lost=0{rest}\n"
    ).encode()


def load() -> bytes:
    return line(0, "load") + line(1)


def numbers(seen: list[SeenRecord]) -> list[int]:
    return [one.record.seq for one in seen]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "hpnotify.log"


@pytest.fixture
def tail(ssh: SshConnection, log: Path) -> DriverLogTail:
    return DriverLogTail(ssh, str(log))


def append(log: Path, data: bytes) -> None:
    with log.open("ab") as file:
        file.write(data)


def replace(log: Path, data: bytes) -> None:
    """Put another file in its place, later by the clock of the guest."""
    other = log.with_suffix(".new")
    other.write_bytes(data)
    later_s = log.stat().st_mtime + 5
    os.utime(other, (later_s, later_s))
    other.replace(log)


def test_a_log_that_does_not_exist_yet_is_empty(tail: DriverLogTail, log: Path) -> None:
    assert tail.poll(deadline=soon()) == []
    log.write_bytes(load())
    assert numbers(tail.poll(deadline=soon())) == [0, 1]


def test_every_record_comes_once_while_the_log_grows(tail: DriverLogTail, log: Path) -> None:
    seen: list[SeenRecord] = []
    before_s = time.monotonic()
    for seq in range(40):
        append(log, line(seq, "load" if seq == 0 else "baseline"))
        seen += tail.poll(deadline=soon())
        assert tail.poll(deadline=soon()) == []
    assert numbers(seen) == list(range(40))
    assert tail.data == log.read_bytes()
    times = [before_s, *(one.seen_at_s for one in seen), time.monotonic()]
    assert times == sorted(times)


def test_a_torn_line_waits_for_its_rest(tail: DriverLogTail, log: Path) -> None:
    whole = load() + line(2)
    got: list[int] = []
    for start in range(0, len(whole), 37):
        append(log, whole[start : start + 37])
        got += numbers(tail.poll(deadline=soon()))
        assert got == list(range(whole[: start + 37].count(b"\n")))
        assert tail.pending == whole[: start + 37].rpartition(b"\n")[2]


def test_a_long_log_comes_whole(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load() + b"".join(line(seq) for seq in range(2, 5000)))
    assert numbers(tail.poll(deadline=soon())) == list(range(5000))


def test_a_log_without_end_is_not_read(tail: DriverLogTail, log: Path) -> None:
    append(log, load())
    assert numbers(tail.poll(deadline=soon())) == [0, 1]
    with log.open("r+b") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DriverLogError, match=r"has grown to 8388609 bytes, more than the 8388608"):
        tail.poll(deadline=soon())
    assert tail.data == load()


def test_a_gap_is_handed_on_to_who_judges(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load())
    seen = tail.poll(deadline=soon())
    append(log, line(5))
    seen += tail.poll(deadline=soon())
    assert [gap.missing for gap in find_gaps(one.record for one in seen)] == [3]


def test_a_second_load_is_no_gap(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load() + load())
    assert find_gaps(one.record for one in tail.poll(deadline=soon())) == []


def test_a_vanished_log(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load())
    tail.poll(deadline=soon())
    log.unlink()
    with pytest.raises(DriverLogError, match="vanished"):
        tail.poll(deadline=soon())


def test_a_log_that_shrank(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load())
    tail.poll(deadline=soon())
    os.truncate(log, 10)
    with pytest.raises(DriverLogError, match=f"shrank from {len(load())} to 10 bytes"):
        tail.poll(deadline=soon())


@pytest.mark.parametrize("more", [b"", line(2)], ids=["of the same size", "longer"])
def test_a_log_replaced_by_another(tail: DriverLogTail, log: Path, more: bytes) -> None:
    log.write_bytes(load())
    tail.poll(deadline=soon())
    replace(log, load().replace(b"qpc=1", b"qpc=7") + more)
    with pytest.raises(DriverLogError, match="replaced"):
        tail.poll(deadline=soon())


def test_a_log_that_was_only_touched_is_the_same(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load())
    tail.poll(deadline=soon())
    replace(log, load())
    assert tail.poll(deadline=soon()) == []
    append(log, line(2))
    assert numbers(tail.poll(deadline=soon())) == [2]


def test_what_is_no_driver_log(tail: DriverLogTail, log: Path) -> None:
    log.write_bytes(load() + b"\x00\x01\n")
    with pytest.raises(DriverLogError, match="line 3"):
        tail.poll(deadline=soon())


def test_a_log_that_is_a_folder(tail: DriverLogTail, log: Path) -> None:
    log.mkdir()
    with pytest.raises(DriverLogError, match="cannot be read"):
        tail.poll(deadline=soon())


def test_a_lost_guest_is_not_blamed_on_the_log(own_sshd, log: Path) -> None:  # type: ignore[no-untyped-def]
    log.write_bytes(load())
    with own_sshd.connect() as connection:
        tail = DriverLogTail(connection, str(log))
        tail.poll(deadline=soon())
        own_sshd.kill_sessions()
        with pytest.raises(GuestUnreachableError):
            tail.poll(deadline=soon())
