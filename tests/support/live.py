"""A real sidecar process for tests: started on a folder of drop-ins, watched through its logs, ended by pid.

Law: nothing sleeps for a fixed time; whoever waits polls a condition and names it when the deadline is over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support.command import ROOT, command
from tests.support.confined import confined

#: Seconds that a process may take to serve, and to end when nothing keeps it.
START: Final = 15.0
END: Final = 10.0

_POLL: Final = 0.005
#: Below the ports that the kernel gives to outgoing connections: a port that was free stays free.
# Each of the processes that run the suite together has its own: from the choice to the use there is a moment.
_SHARE: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARES: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS: Final = range(20_000 + _SHARE, 32_000, _SHARES)
#: … and none is chosen twice, or a test would have one for two of its servers. Another run starts elsewhere.
_UNUSED: Final = cycle(random.sample(_PORTS, len(_PORTS)))
T = TypeVar("T")


def until(condition: Callable[[], T], what: str, timeout: float = 5.0) -> T:
    """The first true value of `condition`. Raises AssertionError, naming `what`, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(_POLL)


def until_steady(value: Callable[[], Any], what: str, still: float = 0.3, timeout: float = 10.0) -> Any:
    """The value once it has not changed for `still` seconds."""
    seen, since = value(), time.monotonic()

    def is_steady() -> bool:
        nonlocal seen, since
        now = value()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since >= still

    until(is_steady, what, timeout)
    return seen


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, another one each time."""
    return next(port for port in _UNUSED if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listening_inode(port: int) -> str:
    """The inode of the socket that listens on `port` of IPv4; empty: nobody does."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[3] == "0A" and int(columns[1].partition(":")[2], 16) == port:
            return columns[9]
    return ""


class Conf:
    """A folder of drop-ins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, text: str) -> Path:
        """Write a drop-in; the lines of `text` may be indented alike. Nobody sees it half written."""
        lines = text.strip("\n").splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        file, beside = self.path / name, self.path / f".{name}.new"
        beside.write_text("".join(f"{line[indent:]}\n" for line in lines))
        return beside.replace(file)

    def remove(self, name: str) -> None:
        """Remove a drop-in."""
        (self.path / name).unlink()


class Sidecar:
    """One process. Its access log is `exchanges`, what it tells of itself `events`."""

    def __init__(
        self, conf: Path, folder: Path, arguments: Sequence[str] = (), without: Sequence[str] = ()
    ) -> None:
        """Start it on `conf`, with its output in `folder`; `without`: the words of `confined`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*confined(*without), *command(), "run", "--conf", str(conf), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that serves: what was started becomes it, also when it is packed."""
        return self.process.pid

    # -- what it says

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it reported so far, of one name or all."""
        return [event for event in _objects(self._err) if name in ("", event.get("event"))]

    def exchanges(self) -> list[dict[str, Any]]:
        """The lines of the access log so far."""
        return list(_objects(self._out))

    def complaints(self) -> list[str]:
        """Lines of stderr that are no events."""
        return [line for line in self._err.read_text().splitlines() if not line.startswith("{")]

    def wait_event(self, name: str, count: int = 1, timeout: float = 5.0) -> list[dict[str, Any]]:
        """The events of `name`, once there are `count` of them."""

        def found() -> list[dict[str, Any]]:
            events = self.events(name)
            if len(events) < count:
                status = self.process.poll()
                assert status is None, f"exited with {status} before {count} x {name}"
                return []
            return events

        return until(found, f"{count} x event {name}", timeout)

    def wait_exchanges(self, count: int, timeout: float = 5.0) -> list[dict[str, Any]]:
        """The lines of the access log, once there are `count`."""

        def found() -> list[dict[str, Any]]:
            lines = self.exchanges()
            return lines if len(lines) >= count else []

        return until(found, f"{count} lines in the access log", timeout)

    def log(self) -> str:
        """The end of all that it wrote, for the report of a failed test."""
        status = self.process.poll()
        parts = [f"exit status: {'running' if status is None else status}"]
        for file in (self._err, self._out):
            parts += [f"-- {file.name}", file.read_text(errors="replace")[-6000:]]
        return "\n".join(parts)

    # -- what it costs

    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pss(self) -> int:
        """Bytes of memory, its share of what is shared included."""
        return _kilobytes(Path(f"/proc/{self.pid}/smaps_rollup"), "Pss:")

    def rss(self) -> int:
        """Bytes of resident memory."""
        return _kilobytes(Path(f"/proc/{self.pid}/status"), "VmRSS:")

    def forget_peak(self) -> None:
        """Let `peak` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Largest resident memory in bytes since `forget_peak`."""
        return _kilobytes(Path(f"/proc/{self.pid}/status"), "VmHWM:")

    # -- its end

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)

    def wait_exit(self, timeout: float = END) -> int:
        """Its exit status."""
        return self.process.wait(timeout)

    def stop(self) -> None:
        """End it, politely at first; nothing of its session is left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                # A second one ends what drains.
                self.process.terminate()
        try:
            self.process.wait(END)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Live:
    """What a test starts its sidecars with."""

    def __init__(self, folder: Path, started: list[Sidecar]) -> None:
        self.folder = folder
        self.conf = Conf(folder / "conf.d")
        self.port = free_port()
        self._started = started

    def launch(
        self, *arguments: str, conf: Path | None = None, without: Sequence[str] = (), config: str = ""
    ) -> Sidecar:
        """Start one on the drop-ins so far (and `config`, as 10-test.ini) without waiting for it."""
        if config:
            self.conf.write("10-test.ini", config)
        place = self.folder / f"run{len(self._started)}"
        sidecar = Sidecar(conf or self.conf.path, place, arguments, without)
        self._started.append(sidecar)
        return sidecar

    def start(
        self, config: str = "", *arguments: str, descriptors: int = 0, without: Sequence[str] = ()
    ) -> Sidecar:
        """Start one with a listener `public` on `port` and `config`; it serves when this returns.

        `descriptors` is its hard limit; 0: as it is.
        """
        self.listen()
        limits = [f"descriptors={descriptors}"] if descriptors else []
        sidecar = self.launch(*arguments, without=[*without, *limits], config=config)
        sidecar.wait_event("started", timeout=START)
        return sidecar

    def listen(self, options: str = "") -> None:
        """Write the listener `public`, with more options if need be."""
        file = self.conf.path / "00-listener.ini"
        if options or not file.exists():
            file.write_text(f"[listener public]\nbind = 127.0.0.1:{self.port}\n{options}\n")


def tell(*arguments: str, without: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """What a command that serves nothing says, like `check`; in the root of the checkout."""
    return subprocess.run(
        [*confined(*without), *command(), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )


def _objects(file: Path) -> Iterable[dict[str, Any]]:
    for line in file.read_bytes().splitlines(keepends=True):
        # The last line may be half written.
        if line.startswith(b"{") and line.endswith(b"\n"):
            yield json.loads(line)


def _kilobytes(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{file} has no {name}")
