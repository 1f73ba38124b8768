# SPDX-License-Identifier: MIT
"""A private Wine that drivers are loaded into: no VM, no display, nothing of the user's own Wine."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness.deadline import Deadline

WINE = "/usr/lib/wine/wine64"
WINESERVER = "/usr/lib/wine/wineserver64"
LOAD_ORDER_GROUP = "hpnotify"
SERVICES_KEY = r"HKLM\SYSTEM\CurrentControlSet\Services"
COMMAND_WITHIN_S = 30.0
REPLY_WITHIN_S = 10.0
BOOT_WITHIN_S = 120.0
MOST_STARTS = 3
NOT_STARTED = "ShellExecuteEx failed: Internal error"  #: what Wine prints in the place of the program

# Children die with the tests, also when those are killed.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


class WineError(Exception):
    """Wine did not do what a test relies on."""


class PnpFeed:
    """A running pnpfeed.exe, or whatever speaks its protocol: a request line in, a reply line out."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pending = b""

    def send(self, request: str) -> None:
        """Send a request without waiting for its reply; :meth:`reply` fetches it."""
        assert self._process.stdin is not None
        self._process.stdin.write(request.encode(errors="surrogateescape") + b"\n")
        self._process.stdin.flush()

    def reply(self, deadline: Deadline | None = None) -> str:
        """Return the next reply.

        :raise WineError: when the feed ended.
        :raise DeadlineExpiredError: when no reply came in time.
        """
        assert self._process.stdout is not None
        deadline = deadline or Deadline.after(REPLY_WITHIN_S)
        while b"\n" not in self._pending:
            readable, _, _ = select.select([self._process.stdout], [], [], deadline.remaining_s())
            if not readable:
                deadline.check("a reply of pnpfeed")
                continue
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise WineError(f"pnpfeed ended with status {self._process.wait()}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def request(self, request: str, deadline: Deadline | None = None) -> str:
        """Send a request and return its reply, whatever it is."""
        self.send(request)
        return self.reply(deadline)

    def ok(self, request: str, deadline: Deadline | None = None) -> str:
        """Send a request and return what its reply says after ``ok``.

        :raise WineError: when the reply is an error.
        """
        reply = self.request(request, deadline)
        if reply != "ok" and not reply.startswith("ok "):
            raise WineError(f"{request}: {reply}")
        return reply[3:]

    def state(self) -> dict[str, int]:
        """Return winepnp's counters by name."""
        return {name: int(value) for name, value in (word.split("=") for word in self.ok("state").split())}

    def close(self) -> None:
        """End the feed; it ends by itself at the end of its input."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(COMMAND_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class InstalledDriver:
    """A driver service of that name in that Wine."""

    wine: Wine
    name: str

    def start(self) -> bool:
        """Load the driver; return whether its DriverEntry succeeded."""
        answer = self.wine.sc("start", self.name)
        if answer.returncode != 0:
            print(f"sc start {self.name}: {answer.stderr or answer.stdout}")  # noqa: T201
        return answer.returncode == 0

    def stop(self) -> bool:
        """Ask for its unload and return whether the service is stopped then."""
        answer = self.wine.sc("stop", self.name)
        return (_state(answer.stdout) or self.state()) == "STOPPED"

    def state(self) -> str:
        """Return the service's state, such as ``RUNNING`` or ``STOPPED``."""
        answer = self.wine.sc("query", self.name)
        state = _state(answer.stdout)
        if state is None:
            raise WineError(f"sc query {self.name} says {answer.stdout!r}")
        return state

    def set_parameters(self, **parameters: int | str) -> None:
        """Write values below the service's Parameters key; they count from the next start on."""
        key = rf"{SERVICES_KEY}\{self.name}\Parameters"
        for name, value in parameters.items():
            kind = "REG_DWORD" if isinstance(value, int) else "REG_SZ"
            self.wine.reg("add", key, "/v", name, "/t", kind, "/d", str(value), "/f")

    def uninstall(self) -> None:
        """Delete the service and its parameters."""
        self.wine.sc("delete", self.name)


def _state(answer: str) -> str | None:
    found = re.search(r"STATE\s+: \d+\s+(\w+)", answer)
    return found[1] if found else None


class Wine:
    """One Wine prefix with one wineserver, both gone at the end of the ``with`` block.

    :param folder: an empty folder for it.
    :param pnp_manager: ``winepnp.sys``, which is running in it.
    :param pnp_feed: ``pnpfeed.exe``.
    """

    def __init__(self, folder: Path, *, pnp_manager: Path, pnp_feed: Path) -> None:
        self._prefix = folder / "prefix"
        self._log = folder / "wine.log"
        self._pnp_manager = pnp_manager
        self._pnp_feed = pnp_feed
        self._server: subprocess.Popen[bytes] | None = None
        self._feed: PnpFeed | None = None
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "WINEPREFIX": str(self._prefix),
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
        }

    def __enter__(self) -> Wine:
        self._prefix.mkdir()
        self._start_server()
        try:
            self._boot()
            self.install_driver(self._pnp_manager, "winepnp")
            self._load_pnp_manager()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_server()
        shutil.rmtree(self._prefix)  # 700 MB

    @property
    def environment(self) -> dict[str, str]:
        """What a program that runs Wine itself needs to find this one."""
        return self._environment | {"WINEDEBUG": "-all"}

    @property
    def feed_command(self) -> tuple[str, ...]:
        """The command that runs pnpfeed.exe."""
        return (WINE, str(self._pnp_feed))

    @property
    def drive_c(self) -> Path:
        """Where drive C lies on the host."""
        return self._prefix / "drive_c"

    def reboot(self) -> None:
        """End every Wine process and start afresh: only winepnp is loaded then; registry and files stay.

        :raise WineError: it did not end by itself, so the registry may lack what was last written. It is
            started afresh all the same.
        """
        try:
            self._stop_server()
        finally:
            self._start_server()
            self._boot()
            self._load_pnp_manager()

    def run(
        self, *argv: str | Path, stdin: str = "", debug: str = "-all", deadline: Deadline | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a Windows program to its end, with those debug channels of Wine on its stderr.

        :raise WineError: when Wine does not start it.
        :raise subprocess.TimeoutExpired: when it did not end in time.
        """
        deadline = deadline or Deadline.after(COMMAND_WITHIN_S)
        for _ in range(MOST_STARTS):
            result = subprocess.run(
                [*DIE_WITH_PARENT, WINE, *map(str, argv)],
                env=self._environment | {"WINEDEBUG": debug},
                input=stdin,
                capture_output=True,
                text=True,
                timeout=deadline.remaining_s(),
                check=False,
            )
            if NOT_STARTED not in result.stdout:
                return result
            # Seen once in some thousand programs on a busy host. It has not run, so it can be run again.
            print(f"Wine did not start {argv[0]}: {result.stdout}")  # noqa: T201
        raise WineError(f"Wine does not start {argv[0]}: {result.stdout}")

    def sc(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run sc.exe. Wine's ends with 0 or not, and says on stderr which Win32 error it was.

        :raise WineError: when it dies without a word.
        """
        for _ in range(MOST_STARTS):
            result = self.run("sc.exe", *words, debug="-all,err+sc")
            said = result.stderr or result.stdout
            if result.returncode == 0 or said:
                return result
            # As in run(): it has not come so far as to say what is wrong.
            print(f"sc {' '.join(words)} died with status {result.returncode}")  # noqa: T201
        raise WineError(f"sc {' '.join(words)} dies with status {result.returncode}")

    def reg(self, *words: str) -> None:
        """Run reg.exe.

        :raise WineError: when it failed.
        """
        answer = self.run("reg.exe", *words)
        if answer.returncode != 0:
            raise WineError(f"reg {' '.join(words)}: {answer.stdout}")

    def host_path(self, windows_path: str) -> Path:
        """Return where a path such as ``C:\\ProgramData\\x`` lies on the host."""
        drive, _, rest = windows_path.partition(":\\")
        if drive.upper() != "C":
            raise WineError(f"{windows_path} is not on drive C")
        return self.drive_c.joinpath(*rest.split("\\"))

    def install_driver(self, path: Path, name: str, **parameters: int | str) -> InstalledDriver:
        """Copy a driver in and make a service of it, in the load order group that shares one process."""
        windows_path = rf"C:\hil\{name}.sys"
        target = self.host_path(windows_path)
        target.parent.mkdir(exist_ok=True)
        # Never in place: an image that Wine has kept mapped would lose its relocations under it.
        shutil.copyfile(path, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)
        words = ["type=", "kernel", "start=", "demand", "binPath=", windows_path, "group=", LOAD_ORDER_GROUP]
        if self.sc("create", name, *words).returncode != 0:
            raise WineError(f"sc create {name} failed")
        driver = InstalledDriver(self, name)
        driver.set_parameters(**parameters)
        return driver

    def feed(self) -> PnpFeed:
        """Return the running pnpfeed.exe of this Wine."""
        if self._feed is None:
            self._feed = self.start_feed()
        return self._feed

    def ask(self, request: str) -> str:
        """Send one line to the PnP manager's feed and return its reply, whatever it is."""
        return self.feed().request(request)

    def start_feed(self) -> PnpFeed:
        """Start one more pnpfeed.exe, which is the caller's to close."""
        process = subprocess.Popen(
            [*DIE_WITH_PARENT, *self.feed_command],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return PnpFeed(process)

    def driver_entry_failure(self, name: str) -> int | None:
        """Return the status with which a driver last failed to load, if it ever did."""
        pattern = rf"failed to create driver L\"[^\"]*\\{re.escape(name)}\": ([0-9a-f]{{8}})"
        statuses = re.findall(pattern, self._log.read_text(errors="replace"), re.IGNORECASE)
        return int(statuses[-1], 16) if statuses else None

    def _boot(self) -> None:
        # The first program boots Wine, before it runs, and creates the prefix if need be.
        # Wine's services inherit these files and keep them open, so no pipes here. Of all of Wine's messages
        # they are to write only the one that has the status of a driver that did not load.
        with self._log.open("ab") as log:
            subprocess.run(
                [*DIE_WITH_PARENT, WINE, "cmd.exe", "/c", "exit"],
                env=self._environment | {"WINEDEBUG": "-all,err+ntoskrnl"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                timeout=BOOT_WITHIN_S,
                check=True,
            )

    def _load_pnp_manager(self) -> None:
        if self.sc("start", "winepnp").returncode != 0:
            raise WineError(f"winepnp.sys does not load: {self.driver_entry_failure('winepnp')}")

    def _start_server(self) -> None:
        # Persistent: else drivers are unloaded when the last program ends. In the foreground: our child.
        self._server = subprocess.Popen(
            [*DIE_WITH_PARENT, WINESERVER, "--foreground", "--persistent"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _stop_server(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        feed, self._feed = self._feed, None
        try:
            # Ends the processes of this prefix and no others; it itself waits for that.
            subprocess.run([WINESERVER, "--kill"], env=self._environment, timeout=BOOT_WITHIN_S, check=False)
            server.wait(BOOT_WITHIN_S)
        except subprocess.TimeoutExpired as err:
            raise WineError(f"wineserver --kill: Wine did not end within {BOOT_WITHIN_S} s") from err
        finally:
            # Without their server the others end, too.
            server.kill()
            server.wait()
            if feed is not None:
                feed.close()
