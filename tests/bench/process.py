"""Processes that the benchmark starts, pins to a core, waits for and ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
_POLL = 0.001


class BenchError(Exception):
    """The benchmark cannot measure, or must not believe what it measured."""


def cores() -> tuple[int, int]:
    """The core of the proxy, and the core of the load and the upstream; the same one if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside is born on `core`; a child inherits the affinity of its parent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raise the limit of open files as far as is allowed, for this process and its children; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


class Server:
    """One server process and its descendants, with its output in a file."""

    def __init__(
        self, name: str, port: int, pid: int, process: subprocess.Popen[bytes], output: Path
    ) -> None:
        self.name = name
        self.port = port
        self.pid = pid
        self._process = process
        self._output = output

    @classmethod
    def start(
        cls, name: str, port: int, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> Server:
        """Start `command` in `folder` and return when its port accepts connections.

        Raises `BenchError`, with the end of its output, if it exits or does not listen in time.
        """
        server = cls.spawn(name, port, command, environment, folder)
        try:
            server.await_(server.accepts)
        except BaseException:
            server.stop()
            raise
        return server

    @classmethod
    def spawn(
        cls, name: str, port: int, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> Server:
        """Start `command` in `folder` and wait for nothing."""
        output = folder / f"{name}.out"
        # In a session of its own: a key pressed in the terminal ends the benchmark, which ends this.
        with output.open("ab") as sink:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        return cls(name, port, process.pid, process, output)

    def await_(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds.

        Raises `BenchError`, with the end of its output, if it exits or that does not come in time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} exited with {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} does not listen after {START_TIMEOUT:g} s:\n{self.tail()}")
            time.sleep(_POLL)

    def accepts(self) -> bool:
        """Whether its port takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def answers(self) -> bool:
        """Whether a request gets the status 200."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            return answer.split(b" ")[1:2] == [b"200"]
        return False

    def tail(self) -> str:
        """The end of what the process wrote."""
        return self._output.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End the process politely, then kill what is left of its session."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # What it started and left behind is still in its session; usually there is nothing.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of one answer.

        Raises `BenchError` if no whole answer comes.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as failure:
            raise BenchError(f"{self.name}: {method} {path}: {failure!r}\n{self.tail()}") from failure
        finally:
            connection.close()
