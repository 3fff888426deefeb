"""A sidecar and the processes that replace it, and what a service manager gives them, played by the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.support.command import ROOT, command
from tests.support.live import START, Live, Sidecar, until
from tests.support.peers import Message, Stream, request

#: Becomes the command with the sockets given as 3, 4, …, as a service manager starts it.
_ACTIVATE: Final = """
import fcntl, os, sys
names, fds = sys.argv[1], [int(word) for word in sys.argv[2].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds]
for at, fd in enumerate(high):
    os.dup2(fd, 3 + at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)))
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Line(Sidecar):
    """One process and its heirs, which write to the same files; all end with the test."""

    def __init__(
        self,
        live: Live,
        *arguments: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        """Start it on the drop-ins of `live`. `prefix`: words before the command; `inherit`: descriptors."""
        folder = live.folder / "line"
        folder.mkdir()
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._conf = str(live.conf.path)
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*prefix, *command(), "run", "--conf", self._conf, *arguments],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=inherit,
            )
        live._started.append(self)

    def serving(self, count: int = 1) -> int:
        """The process that was the `count`-th to serve, once it does."""
        told = until(lambda: self._told("started", count), f"process {count} serves", START)
        return int(told[count - 1]["pid"])

    def seen(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """The events of a name, once there are so many, whichever process tells them."""
        return until(lambda: self._told(name, count), f"{count} x event {name}", START)

    def _told(self, name: str, count: int) -> list[dict[str, Any]]:
        found = self.events(name)
        return found if len(found) >= count else []

    def upgrade(self) -> int:
        """Ask the process that serves for an upgrade; the process that serves then."""
        count = max(1, len(self.events("started")))
        os.kill(self.serving(count), signal.SIGUSR2)
        return self.serving(count + 1)

    def stop(self) -> None:
        """End all of them."""
        for event in self.events("upgrade_started"):
            end(int(event["pid"]), self._conf)
        super().stop()


def is_alive(pid: int, word: str = "") -> bool:
    """Whether the process runs (and has the word in its command line)."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(line) and word.encode() in line


def end(pid: int, word: str) -> None:
    """Kill a process that is no child of this one, if it still has the word in its command line."""
    if is_alive(pid, word):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid, word), f"the end of process {pid}")


def activation(sockets: Mapping[int, str] | Sequence[tuple[int, str]]) -> list[str]:
    """The words before a command that give it (descriptor, name) as a service manager does."""
    pairs = list(sockets.items()) if isinstance(sockets, Mapping) else list(sockets)
    names = ":".join(name for _, name in pairs)
    return [sys.executable, "-c", _ACTIVATE, names, ",".join(str(fd) for fd, _ in pairs)]


class Manager:
    """The notify socket of a service manager."""

    def __init__(self, address: str) -> None:
        """At a path, or at an abstract address that begins with @."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._sock.settimeout(START)
        self.address = address

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Be gone; the file stays, as after a crash."""
        self._sock.close()

    def read(self) -> tuple[int, dict[str, str]]:
        """The next message: who sent it, and what it says."""
        data, control, _, _ = self._sock.recvmsg(65536, socket.CMSG_SPACE(12))
        ((_, _, credentials),) = control
        lines = [line.partition("=") for line in data.decode().splitlines()]
        return int.from_bytes(credentials[:4], sys.byteorder), {name: value for name, _, value in lines}

    def expect(self, name: str) -> tuple[int, dict[str, str]]:
        """The next message that is no ping, which must hold `name`; or the next ping."""
        while True:
            pid, message = self.read()
            if name in message:
                return pid, message
            assert message == {"WATCHDOG": "1"}, f"{name} was expected, and {message} came"

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        self._sock.settimeout(seconds)
        try:
            self._sock.recv(65536)
        except TimeoutError:
            return True
        finally:
            self._sock.settimeout(START)
        return False


class Load:
    """Clients that ask until it is enough: `kept` on connections they keep, `single` on one for each request.

    A connection may end only after a response that said so. `where`: a port, a socket file, or what connects.
    """

    def __init__(
        self,
        where: int | str | Callable[[], Stream],
        kept: int = 4,
        single: int = 4,
        target: str = "/hello",
    ) -> None:
        self._connect = where if callable(where) else partial(Stream.connect, where)
        self._target = target
        self._enough = threading.Event()
        self._counts = [0] * (kept + single)
        self.errors: list[str] = []
        self.closes = 0  # responses that ended a kept connection
        self._threads = [
            threading.Thread(target=self._run, args=(at, at < kept), daemon=True)
            for at in range(kept + single)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        """Requests that were answered as they should be."""
        return sum(self._counts)

    def wait(self, count: int) -> None:
        """Until so many were answered, or one was not."""
        until(lambda: self.done >= count or self.errors, f"{count} requests", 60)

    def stop(self) -> None:
        """End each client after its request."""
        self._enough.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a request never ended"

    def _run(self, at: int, is_kept: bool) -> None:
        fields = {} if is_kept else {"Connection": "close"}
        asked = request("GET", self._target, **fields)
        while not self._enough.is_set():
            try:
                with self._connect() as stream:
                    while self._ask(at, stream, asked) and not self._enough.is_set():
                        pass
            except Exception as error:  # noqa: BLE001 - counted; the test tells them
                self.errors.append(f"{'kept' if is_kept else 'single'}: {type(error).__name__}: {error}")

    def _ask(self, at: int, stream: Stream, asked: bytes) -> bool:
        """One request; whether the connection goes on."""
        stream.send(asked)
        answer: Message = stream.read_message()
        assert answer.status == 200, answer.start
        self._counts[at] += 1
        is_last = answer.fields.get("connection") == "close"
        if is_last and b"close" not in asked:
            self.closes += 1
        return not is_last
