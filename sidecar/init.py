"""What is left of process 1 of a container when another process has taken over: it cannot end before that.

Law: whatever it is told it passes on; whoever loses its parent it waits for; it ends when nobody is left.
The processes of this program are those of its process group: what else runs in the container came by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import gevent
from gevent.event import Event

#: These are for all processes; the others are for the newest.
_FOR_ALL: Final = frozenset((signal.SIGTERM, signal.SIGINT))
_ZOMBIE: Final = "Z"
_REMEMBERED: Final = 64


class Init:
    """Waits for children from the moment it is made: process 1 gets those that lost their parent."""

    def __init__(self) -> None:
        self._watcher = gevent.get_hub().loop.child(0)
        self._watcher.start(self._on_end)
        self._known: set[int] = set()
        self._statuses: dict[int, int] = {}  # of the last that ended, as waitpid tells it
        self._told: set[int] = set()
        self._changed = Event()
        self._is_stopping = False
        self._status = 0

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to those whom it concerns."""
        others = self._others()
        if number not in _FOR_ALL:
            others = others[-1:]
        else:
            self._is_stopping = True
            self._told.update(others)
        for pid in others:
            _send(pid, number)

    def status_of(self, pid: int) -> int | None:
        """How a child ended, as waitpid tells it; None: it is not known to have ended."""
        return self._statuses.get(pid)

    def run(self) -> int:
        """Stay until the others have ended; the status of the last, or 128 and the signal that killed it."""
        while self._others():
            self._changed.wait()
            self._changed.clear()
        self._watcher.stop()
        self._watcher.close()
        return self._status

    def _on_end(self) -> None:
        pid, status = self._watcher.rpid, self._watcher.rstatus
        self._statuses[pid] = status
        if len(self._statuses) > _REMEMBERED:
            del self._statuses[next(iter(self._statuses))]
        others = self._others()
        if pid in self._known:
            code = os.waitstatus_to_exitcode(status)
            self._status = code if code >= 0 else 128 - code
        if self._is_stopping:
            # One that was started by one that ended, and was not there when all were told.
            for late in set(others) - self._told:
                self._told.add(late)
                _send(late, signal.SIGTERM)
        self._changed.set()

    def _others(self) -> list[int]:
        """The other processes of this program, the oldest first."""
        group = _group(os.getpid())
        found = sorted((started, pid) for started, pid, its in _processes() if its == group)
        others = [pid for _, pid in found if pid != os.getpid()]
        self._known.update(others)
        return others


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _processes() -> Iterator[tuple[int, int, int]]:
    """(start, process id, process group) of whoever lives."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                fields = _fields(int(name))
                if fields[0] != _ZOMBIE:
                    yield int(fields[19]), int(name), int(fields[2])


def _group(pid: int) -> int:
    return int(_fields(pid)[2])


def _fields(pid: int) -> list[str]:
    """What proc_pid_stat(5) tells from the third field on; the second may hold anything."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
