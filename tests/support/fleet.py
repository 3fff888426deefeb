"""Servers and clients in processes of their own: started, told, stopped, killed, and asked what they did."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from tests.support import counting_server, load_generator
from tests.support.peers import Stream

#: Neither the environment nor site-packages: these processes start in a few milliseconds.
_PYTHON: Final = [sys.executable, "-I", "-S"]
_PATIENCE: Final = 30.0


class Server:
    """A `counting_server`: one that may be killed and comes back at its port, with its journal."""

    def __init__(
        self, name: str, folder: Path, *words: str, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.name = name
        self.host = address
        self.port = port
        self.journal = folder / f"journal.{name}"
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        """As the configuration has it."""
        return f"{self.host}:{self.port}"

    def _command(self) -> list[str]:
        """The program and what it is told, all but the words of the test."""
        words = [self.name, self.host, str(self.port), str(self.journal)]
        return [*_PYTHON, counting_server.__file__, *words]

    def start(self) -> None:
        """Start it; it listens when this returns."""
        self._process = subprocess.Popen(
            [*self._command(), *self._words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        with self._process.stdout as said:
            self.port = int(said.readline())

    def kill(self) -> None:
        """Kill it: what it does ends at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def tell(self, target: str) -> None:
        """What it is to do from now on, past the sidecar."""
        with Stream(socket.create_connection((self.host, self.port), _PATIENCE)) as stream:
            assert stream.ask("GET", target).status == 200

    def executed(self) -> list[str]:
        """The requests that it executed so far, in their order."""
        return self.journal.read_text().split() if self.journal.exists() else []

    @property
    def size(self) -> int:
        """Bytes of the journal: quick to ask, and more with each request."""
        return self.journal.stat().st_size if self.journal.exists() else 0


S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def servers(
    folder: Path, *names: str, words: Iterable[str] = (), kind: type[S] = Server
) -> Iterator[list[S]]:
    """Servers of these names; they are gone at the end."""
    with contextlib.ExitStack() as stack:
        started = []
        for name in names:
            server = kind(name, folder, *words)
            stack.callback(server.kill)
            started.append(server)
        yield started


def repeated(servers: Iterable[Server], of: str = "p") -> list[str]:
    """The requests that were executed more than once, of those whose id begins with `of`."""
    counts = Counter(each for server in servers for each in server.executed())
    return [each for each, count in counts.items() if count > 1 and each.startswith(of)]


class Report(NamedTuple):
    """What a `load_generator` met. `failures`: (id, status, or what else was wrong)."""

    sent: int
    seconds: float
    failures: list[tuple[str, str]]
    late: int  # most requests that were due and had no free connection
    median_ms: float
    p99_ms: float
    max_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.sent / self.seconds

    def failed(self, of: str) -> dict[str, str]:
        """Those whose id begins with `of`."""
        return {each: what for each, what in map(tuple, self.failures) if each.startswith(of)}

    def __str__(self) -> str:
        """For the one who runs the test."""
        failed = f"{len(self.failed('g'))} GET and {len(self.failed('p'))} POST failed"
        times = f"median {self.median_ms} ms, p99 {self.p99_ms} ms, longest {self.max_ms} ms"
        return f"{self.sent} requests, {self.rate:.0f}/s, {failed}, {times}, late {self.late}"


class Load:
    """Clients that ask until the `with` block ends; then `report` is there."""

    def __init__(self, port: int, pace: int | str = 2000, connections: int = 32, gets: int = 2) -> None:
        """`pace`: requests a second, or `seconds-seconds` between waves; every `gets`-th is a GET."""
        self._arguments = [str(port), str(pace), str(connections), str(gets)]
        self.report = Report(0, 1.0, [], 0, 0.0, 0.0, 0.0)

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            [*_PYTHON, load_generator.__file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            out, _err = self._process.communicate(timeout=_PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
        if kind is None:
            self.report = Report(**json.loads(out))
