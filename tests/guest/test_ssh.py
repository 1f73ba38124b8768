# SPDX-License-Identifier: MIT
"""The connection to the guest against a real sshd: commands, programs, files, and every way it can break."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.deadline import Deadline
from harness.errors import (
    DeadlineExpiredError,
    GuestCommandError,
    GuestUnreachableError,
    UsageError,
)
from harness.wires.ssh import FileStatus, SshConnection
from tests.guest.sshd_server import Proxy, Sshd, free_port, make_keys, start_sshd


def soon() -> Deadline:
    return Deadline.after(20)


# -- commands --------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(argv=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=6))
def test_arguments_arrive_as_they_were_given(ssh: SshConnection, argv: list[str]) -> None:
    result = ssh.run(["printf", "%s\\0", *argv, "end"], deadline=soon())
    assert result.check().stdout.decode().split("\0") == [*argv, "end", ""]


def test_both_streams_are_read_together_and_the_status_is_kept(ssh: SshConnection) -> None:
    # More than the SSH window on each stream: reading one of them first would never end.
    script = "head -c 5000000 /dev/zero >&2 & head -c 5000000 /dev/zero; wait; exit 7"
    result = ssh.run(["sh", "-c", script], deadline=soon())
    assert (len(result.stdout), len(result.stderr), result.exit_status) == (5_000_000, 5_000_000, 7)


def test_a_command_gets_no_input(ssh: SshConnection) -> None:
    assert ssh.run(["cat"], deadline=soon()).stdout == b""


def test_check_names_the_command_its_status_and_its_last_words(ssh: SshConnection) -> None:
    result = ssh.run(["sh", "-c", "echo before >&2; echo broken >&2; exit 3"], deadline=soon())
    with pytest.raises(GuestCommandError, match=r"'sh -c .*' in the guest ended with exit status 3: broken$"):
        result.check()


def test_text_has_lf_line_ends_and_no_undecodable_bytes(ssh: SshConnection) -> None:
    assert ssh.run(["printf", "a\\r\\nb\\377"], deadline=soon()).text == "a\nb�"


def test_a_command_killed_by_a_signal_has_no_status(ssh: SshConnection) -> None:
    with pytest.raises(GuestCommandError, match="no exit status"):
        ssh.run(["sh", "-c", "kill -9 $$"], deadline=soon())
    assert ssh.run(["echo", "alive"], deadline=soon()).text == "alive\n"


def test_a_service_left_behind_does_not_hold_the_command(
    ssh: SshConnection, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    result = ssh.run(["sh", "-c", "sleep 30 & echo started $!; exit 4"], deadline=soon())
    assert time.monotonic() - started < 10
    assert (result.text.split()[0], result.exit_status) == ("started", 4)
    assert "holds its output open" in caplog.text
    ssh.run(["kill", result.text.split()[1]], deadline=soon()).check()


def test_a_command_that_is_too_slow_ends_with_its_deadline_and_the_connection_lives(
    ssh: SshConnection,
) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExpiredError, match="the end of 'sleep 30'"):
        ssh.run(["sleep", "30"], deadline=Deadline.after(0.5))
    assert time.monotonic() - started < 3
    assert ssh.run(["echo", "alive"], deadline=soon()).text == "alive\n"


def test_nothing_is_started_after_the_deadline(ssh: SshConnection, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExpiredError):
        ssh.run(["touch", str(tmp_path / "made")], deadline=Deadline.after(-1))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("argv", [[], ["echo", "\0"], ["echo", "\ud800"]])
def test_what_no_shell_can_take_is_refused(ssh: SshConnection, argv: list[str]) -> None:
    with pytest.raises(UsageError):
        ssh.run(argv, deadline=soon())


# -- programs talked to line by line ---------------------------------------------------------------------


def test_a_program_answers_line_by_line(ssh: SshConnection) -> None:
    with ssh.start(
        ["sh", "-c", 'while read a; do printf "<%s>\\r\\n" "$a"; done'], deadline=soon()
    ) as program:
        for word in ("one", "two words", ""):
            program.write_line(word, deadline=soon())
            assert program.read_line(deadline=soon()) == f"<{word}>"


def test_lines_that_come_together_are_kept_apart(ssh: SshConnection) -> None:
    with ssh.start(["printf", "a\\nb\\n\\nc\\n"], deadline=soon()) as program:
        assert [program.read_line(deadline=soon()) for _ in range(4)] == ["a", "b", "", "c"]


def test_a_silent_program_ends_the_wait_and_half_a_line_is_kept(ssh: SshConnection) -> None:
    with ssh.start(["sh", "-c", "printf half; read a; echo -whole"], deadline=soon()) as program:
        with pytest.raises(DeadlineExpiredError):
            program.read_line(deadline=Deadline.after(0.3))
        program.write_line("go", deadline=soon())
        assert program.read_line(deadline=soon()) == "half-whole"


def test_a_program_that_ends_early_says_why(ssh: SshConnection) -> None:
    with ssh.start(["sh", "-c", "echo cannot >&2; exit 9"], deadline=soon()) as program:
        with pytest.raises(GuestCommandError, match="ended early with exit status 9: cannot"):
            program.read_line(deadline=soon())
        with pytest.raises(GuestCommandError, match="ended early with exit status 9"):
            program.write_line("anything", deadline=soon())


def test_a_program_loses_its_input_with_the_block(ssh: SshConnection, tmp_path: Path) -> None:
    with ssh.start(["sh", "-c", f"cat; touch {tmp_path}/ended; echo"], deadline=soon()):
        pass
    script = f"i=0; until test -e {tmp_path}/ended || test $i = 100; do i=$((i+1)); sleep 0.1; done"
    ssh.run(["sh", "-c", script], deadline=soon())
    assert (tmp_path / "ended").exists()


# -- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 1, 32768, 32769, 3_000_001])
def test_a_file_comes_back_as_it_was_written(ssh: SshConnection, tmp_path: Path, size_bytes: int) -> None:
    path, data = str(tmp_path / "file"), bytes(range(251)) * (size_bytes // 251 + 1)
    ssh.write_file(path, data[:size_bytes], deadline=soon())
    assert Path(path).read_bytes() == data[:size_bytes]
    assert ssh.read_file(path, deadline=soon()) == data[:size_bytes]
    assert ssh.read_file(path, offset=size_bytes // 2, deadline=soon()) == data[size_bytes // 2 : size_bytes]
    assert ssh.read_file(path, offset=size_bytes + 1, deadline=soon()) == b""
    status = ssh.file_status(path, deadline=soon())
    assert status is not None
    assert status.size_bytes == size_bytes


def test_a_shorter_file_replaces_a_longer_one(ssh: SshConnection, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    ssh.write_file(path, b"longer", deadline=soon())
    ssh.write_file(path, b"new", deadline=soon())
    assert ssh.read_file(path, deadline=soon()) == b"new"


def test_a_missing_file_is_named_and_the_session_goes_on(ssh: SshConnection, tmp_path: Path) -> None:
    path = str(tmp_path / "missing")
    with pytest.raises(GuestCommandError, match=f"reading {path} in the guest: No such file"):
        ssh.read_file(path, deadline=soon())
    with pytest.raises(GuestCommandError, match="writing"):
        ssh.write_file(path + "/below", b"", deadline=soon())
    assert ssh.file_status(path, deadline=soon()) is None
    assert ssh.file_status(path, deadline=soon()) is None
    (tmp_path / "missing").write_bytes(b"123")
    changed_s = int((tmp_path / "missing").stat().st_mtime)
    assert ssh.file_status(path, deadline=soon()) == FileStatus(3, changed_s)


@pytest.mark.parametrize("size_bytes", [1, 32769, 3_000_001])
def test_a_file_for_which_there_is_no_room_is_named(ssh: SshConnection, size_bytes: int) -> None:
    with pytest.raises(GuestCommandError, match=r"^writing /dev/full in the guest: Failure$"):
        ssh.write_file("/dev/full", bytes(size_bytes), deadline=soon())
    assert ssh.file_status("/dev/full", deadline=soon()) is not None, "the session goes on"


def test_a_file_is_removed_once(ssh: SshConnection, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    ssh.remove_file(str(path), deadline=soon())
    assert not path.exists()
    with pytest.raises(GuestCommandError, match=f"^removing {path} in the guest: No such file$"):
        ssh.remove_file(str(path), deadline=soon())


def test_folders_are_made_with_their_parents_and_again(ssh: SshConnection, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    for _ in range(2):
        ssh.make_directories(str(path), deadline=soon())
        assert path.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(GuestCommandError, match="not a folder"):
        ssh.make_directories(str(tmp_path / "file"), deadline=soon())


def test_a_relative_path_is_refused(ssh: SshConnection) -> None:
    with pytest.raises(UsageError, match="not absolute"):
        ssh.read_file("driver.log", deadline=soon())


# -- connecting ------------------------------------------------------------------------------------------


def test_the_cheap_algorithms_are_chosen(own_sshd: Sshd) -> None:
    log = own_sshd.folder / "client.log"
    wire = logging.getLogger("harness.wires.ssh.wire")
    handler = logging.FileHandler(log)
    wire.addHandler(handler)
    wire.setLevel(logging.DEBUG)
    try:
        own_sshd.connect().close()
    finally:
        wire.removeHandler(handler)
        wire.setLevel(logging.NOTSET)
        handler.close()
    assert all(
        name in log.read_text() for name in ("Kex: ecdh-sha2-nistp256", "HostKey: ssh-ed25519", "aes128-")
    )


def test_the_server_may_come_up_late(tmp_path: Path) -> None:
    first = start_sshd(tmp_path)
    first.end()
    late: list[Sshd] = []
    timer = threading.Timer(0.7, lambda: late.append(start_sshd(tmp_path, port=first.port)))
    timer.start()
    try:
        with first.connect() as connection:
            assert connection.run(["echo", "up"], deadline=soon()).text == "up\n"
    finally:
        timer.join()
        late[0].end()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word, as a forwarded port of a booting guest does."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_server_that_never_comes_up_is_named_with_the_last_cause(
    sshd: Sshd, silent_port: int, kind: str
) -> None:
    port, cause = (free_port(), "refused") if kind == "refused" else (silent_port, "banner")
    started = time.monotonic()
    with pytest.raises(GuestUnreachableError, match=rf"127\.0\.0\.1:{port} did not answer .*{cause}"):
        sshd.connect(port=port, within_s=1.0)
    assert 0.5 < time.monotonic() - started < 4


def test_a_server_that_hangs_up_at_once_is_tried_again(sshd: Sshd) -> None:
    accepted = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            nonlocal accepted
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return
                accepted += 1

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(GuestUnreachableError, match="did not answer"):
            sshd.connect(port=int(listener.getsockname()[1]), within_s=1.0)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert accepted > 1


def test_a_connection_made_too_early_to_be_answered_is_given_up(sshd: Sshd) -> None:
    forwarder = Proxy(sshd.port, mute=1)
    try:
        with sshd.connect(port=forwarder.port) as connection:
            assert connection.run(["echo", "up"], deadline=soon()).text == "up\n"
    finally:
        forwarder.close()


def refusal(sshd: Sshd, *, key_file: Path | None = None, host_key: str | None = None) -> str:
    """Return why a login is refused; it must be at once, although there is much time."""
    started = time.monotonic()
    with pytest.raises(GuestUnreachableError) as caught:
        SshConnection.connect(
            "127.0.0.1",
            sshd.port,
            user=sshd.user,
            key_file=key_file or sshd.key_file,
            host_key=host_key or sshd.host_key,
            deadline=Deadline.after(60),
        )
    assert time.monotonic() - started < 10
    return str(caught.value)


def test_another_host_key_is_refused_at_once(sshd: Sshd, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other").with_suffix(".pub").read_text()
    said = refusal(sshd, host_key=other)
    assert "is not the guest: its host key is SHA256:" in said


def test_a_host_key_of_a_type_the_server_lacks_is_refused_at_once(sshd: Sshd, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other", "ecdsa").with_suffix(".pub").read_text()
    assert "no acceptable host key" in refusal(sshd, host_key=other)


def test_a_refused_user_key_is_final(sshd: Sshd, tmp_path: Path) -> None:
    assert "Authentication failed" in refusal(sshd, key_file=make_keys(tmp_path, "stranger"))


def test_keys_that_cannot_be_read_are_named(sshd: Sshd, tmp_path: Path) -> None:
    assert "No such file" in refusal(sshd, key_file=tmp_path / "missing")
    (tmp_path / "garbage").write_text("not a key")
    assert "cannot log in" in refusal(sshd, key_file=tmp_path / "garbage")
    for text in ("", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-rsa " + sshd.host_key.split()[1]):
        assert "'<type> <base64> [comment]'" in refusal(sshd, host_key=text or " ")


def test_nothing_is_said_on_stderr(sshd: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GuestUnreachableError):
        sshd.connect(port=free_port(), within_s=0.3)
    sshd.connect().close()
    assert capfd.readouterr().err == ""


# -- a guest that stops or dies --------------------------------------------------------------------------


def operations(connection: SshConnection, folder: Path, deadline: Deadline) -> dict[str, object]:
    """Return every operation on a connection as a call without arguments."""
    path = str(folder / "file")
    return {
        "run": lambda: connection.run(["true"], deadline=deadline),
        "start": lambda: connection.start(["true"], deadline=deadline),
        "status": lambda: connection.file_status(path, deadline=deadline),
        "read": lambda: connection.read_file(path, deadline=deadline),
        "write": lambda: connection.write_file(path, bytes(40_000_000), deadline=deadline),
        "remove": lambda: connection.remove_file(path, deadline=deadline),
        "folders": lambda: connection.make_directories(path, deadline=deadline),
    }


NAMES = ["run", "start", "status", "read", "write", "remove", "folders"]


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_guest_holds_nothing_beyond_its_deadline(
    own_sshd: Sshd, tmp_path: Path, name: str, warm: bool
) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    with own_sshd.connect() as connection:
        if warm:
            connection.file_status(str(tmp_path / "file"), deadline=soon())
        with own_sshd.stopped():
            started = time.monotonic()
            with pytest.raises(DeadlineExpiredError):
                operations(connection, tmp_path, Deadline.after(0.5))[name]()  # type: ignore[operator]
            assert time.monotonic() - started < 3
            connection.close()
            assert time.monotonic() - started < 4


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_connection_is_reported_at_once(sshd: Sshd, proxy: Proxy, tmp_path: Path, name: str) -> None:
    with sshd.connect(port=proxy.port) as connection:
        connection.file_status(str(tmp_path), deadline=soon())
        proxy.cut()
        started = time.monotonic()
        with pytest.raises(GuestUnreachableError, match=rf"127\.0\.0\.1:{proxy.port} was lost"):
            operations(connection, tmp_path, soon())[name]()  # type: ignore[operator]
        assert time.monotonic() - started < 5


def test_a_connection_lost_under_a_running_command(sshd: Sshd, proxy: Proxy) -> None:
    with sshd.connect(port=proxy.port) as connection:
        timer = threading.Timer(0.3, proxy.cut)
        timer.start()
        with pytest.raises(GuestUnreachableError, match="was lost at the end of 'sleep 30'"):
            connection.run(["sleep", "30"], deadline=soon())
        timer.join()


def test_a_killed_server_under_a_program(own_sshd: Sshd) -> None:
    with own_sshd.connect() as connection, connection.start(["cat"], deadline=soon()) as program:
        program.write_line("hello", deadline=soon())
        assert program.read_line(deadline=soon()) == "hello"
        own_sshd.kill_sessions()
        with pytest.raises(GuestUnreachableError):
            program.read_line(deadline=soon())
        with pytest.raises(GuestUnreachableError):
            program.write_line("hello", deadline=soon())


def test_a_file_session_that_timed_out_is_replaced(own_sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with own_sshd.connect() as connection:
        status = connection.file_status(str(tmp_path / "file"), deadline=soon())
        assert status is not None
        assert status.size_bytes == 5
        with own_sshd.stopped(), pytest.raises(DeadlineExpiredError):
            connection.read_file(str(tmp_path / "file"), deadline=Deadline.after(0.2))
        assert connection.read_file(str(tmp_path / "file"), deadline=soon()) == b"12345"


def test_a_closed_connection_leaves_no_thread(sshd: Sshd) -> None:
    before = set(threading.enumerate())
    with sshd.connect() as connection:
        connection.run(["true"], deadline=soon())
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
