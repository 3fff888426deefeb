"""A real sidecar process for end-to-end tests, and beside it all that `streams` and `upstream` offer.

Nothing here sleeps: everything waits for something to happen, at most TIMEOUT seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .streams import (
    TIMEOUT,
    Answer,
    Ended,
    Stream,
    ask,
    client,
    closed_port,
    connect,
    free_port,
    raw_exchange,
)
from .upstream import ScriptedUpstream

__all__ = [
    "TIMEOUT",
    "Answer",
    "Ended",
    "ScriptedUpstream",
    "Sidecar",
    "Stream",
    "ask",
    "client",
    "closed_port",
    "command",
    "connect",
    "free_port",
    "raw_exchange",
    "start_sidecar",
]

#: Events that mean a bug; a test that provokes one says so in `allowed_bugs`.
_BUGS = frozenset({"task_died", "exchange_failed"})


class _Lines:
    """The lines of a pipe, read by a thread as they come."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._is_over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def join(self) -> None:
        self._thread.join(TIMEOUT)

    @property
    def text(self) -> str:
        with self._changed:
            return "\n".join(self._lines)

    def records(self) -> list[dict[str, Any]]:
        """The lines that are JSON objects."""
        with self._changed:
            return [json.loads(line) for line in self._lines if line.startswith("{")]

    def find(self, is_wanted: Callable[[dict[str, Any]], bool], count: int = 1) -> list[dict[str, Any]]:
        """Wait for `count` records; those there are when the time or the pipe is over."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = [record for record in self.records() if is_wanted(record)]
            return len(found) >= count or self._is_over

        with self._changed:
            self._changed.wait_for(enough, TIMEOUT)
        return found


class Sidecar:
    """A running sidecar. Use it in a `with` block: leaving it ends the process and checks how it ended."""

    def __init__(self, process: subprocess.Popen[bytes], conf: Path) -> None:
        assert process.stdout
        assert process.stderr
        self.process = process
        self.pid = process.pid
        self.conf = conf
        self.allowed_bugs: set[str] = set()  # of the events that fail a test unless it expects them
        self._access = _Lines(process.stdout)
        self._events = _Lines(process.stderr)

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._end()
            sys.stderr.write(self.log + "\n")

    @property
    def log(self) -> str:
        """All that the process wrote: access log, then events."""
        return f"{self._access.text}\n{self._events.text}"

    def address(self, listener: str) -> str:
        """Where a listener is bound; port 0 resolved."""
        return str(self.event("listener_bound", listener=listener)["address"])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        return [record for record in self._events.records() if record["event"] == name]

    def event(self, name: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for an event, or for the `count`th of its kind, that has these fields."""
        wanted = {"event": name, **fields}
        found = self._events.find(lambda record: wanted.items() <= _hashable(record).items(), count)
        assert len(found) >= count, f"no event {wanted}:\n{self.log}"
        return found[count - 1]

    def access(self, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for a line of the access log, or for the `count`th, that has these fields."""
        found = self._access.find(lambda record: fields.items() <= _hashable(record).items(), count)
        assert len(found) >= count, f"no access {fields}:\n{self.log}"
        return found[count - 1]

    def write(self, name: str, text: str) -> None:
        """Put a drop-in in its place in one step."""
        temporary = self.conf / f".{name}.tmp"
        temporary.write_text(text)
        temporary.rename(self.conf / name)

    def reload(self, name: str, text: str) -> None:
        """Put a drop-in in its place and wait until it is applied."""
        before = len(self.events("reload_applied"))
        self.write(name, text)
        self.event("reload_applied", before + 1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status, when the process ends by itself."""
        status = self.process.wait(TIMEOUT)
        self._access.join()
        self._events.join()
        return status

    def stop(self, status: int = 0) -> None:
        """End the process with SIGTERM; assert its exit status, and that no bug showed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            ended = self.wait()
        finally:
            self._end()
        assert ended == status, f"exit status {ended}, not {status}:\n{self.log}"
        bugs = {record.get("event") for record in self._events.records()} & _BUGS - self.allowed_bugs
        assert not bugs, f"{bugs}:\n{self.log}"

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._access.join()
        self._events.join()
        shutil.rmtree(self.conf, ignore_errors=True)


def _hashable(record: dict[str, Any]) -> dict[str, Any]:
    """Without the values that sets cannot hold; nobody looks for them by equality."""
    return {key: value for key, value in record.items() if not isinstance(value, list | dict)}


def command() -> list[str]:
    """What starts a sidecar: $SIDECAR_COMMAND, so that the same tests try a binary, else this Python."""
    return shlex.split(os.environ.get("SIDECAR_COMMAND", "")) or [sys.executable, "-m", "sidecar"]


def start_sidecar(
    conf_text: str | Mapping[str, str], *arguments: str, environment: Mapping[str, str] | None = None
) -> Sidecar:
    """A sidecar that serves one drop-in, or several by their names, and accepts connections.

    Raises AssertionError with its log when it does not.
    """
    files = {"test.ini": conf_text} if isinstance(conf_text, str) else conf_text
    conf = Path(tempfile.mkdtemp(prefix="sidecar-test-"))
    for name, text in files.items():
        (conf / name).write_text(text)
    process = subprocess.Popen(
        [*command(), "run", "--conf", str(conf), *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    sidecar = Sidecar(process, conf)
    try:
        if any("log_level" in text for text in files.values()):
            _await_listening(sidecar, [bind for text in files.values() for bind in _binds(text)])
        else:
            sidecar.event("started")
    except BaseException:
        sidecar._end()
        raise
    return sidecar


def _binds(text: str) -> list[str]:
    return re.findall(r"(?m)^bind\s*=\s*(\S+)", text)


def _await_listening(sidecar: Sidecar, addresses: Sequence[str]) -> None:
    """For a process whose log may not tell that it has started."""
    deadline = time.monotonic() + TIMEOUT
    for address in addresses:
        while True:
            assert sidecar.process.poll() is None, f"it has ended:\n{sidecar.log}"
            assert time.monotonic() < deadline, f"it does not listen on {address}:\n{sidecar.log}"
            with contextlib.suppress(OSError), connect(address):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                sidecar.process.wait(0.02)
