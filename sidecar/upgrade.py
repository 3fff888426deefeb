"""Upgrades: a process of the program that is installed now takes over the listening sockets of this one.

Law: until the new process serves, this one goes on as if nothing had been; one upgrade at a time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import gevent
from gevent import monkey
from gevent.event import Event

from .net.inherit import VARIABLES, Heritage
from .net.notify import WATCHDOG_PID
from .packed import command, environment
from .runtime import Tasks

#: Seconds that a new process has until it serves.
SERVE_WITHIN: Final = 30.0
#: Seconds that it has to end by itself, and then again when it was asked to, until it is killed.
_END_WITHIN: Final = 2.0
_POLL: Final = 0.02

_posix_spawn: Final = monkey.get_original("os", "posix_spawn")

#: Held back until the new process listens to them: until then they would end it.
_WORDS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: What Python ignores, and the new process shall find as the system has it.
_IGNORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class Failed(Exception):
    """An upgrade came to nothing. The text says why."""


#: What process 1 knows of a child that it waited for: its status as waitpid tells it, or None.
Reaped = Callable[[int], int | None]


class Successor:
    """The process that shall replace this one. Raises Failed when it cannot be started."""

    def __init__(self, heritage: Heritage, reaped: Reaped | None = None) -> None:
        words = [*command(), *sys.argv[1:]]
        self._heritage = heritage
        self._reaped = reaped
        self._status: int | None = None  # as waitpid tells it
        try:
            self.pid = _spawn(words, heritage)
        except (OSError, ValueError) as error:
            heritage.release()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Failed(f"{words[0]} cannot be started: {reason}") from error
        heritage.started()

    def wait_served(self) -> frozenset[str]:
        """The keys of the places that it serves, once it does. Raises Failed; then it has ended."""
        try:
            return self._heritage.wait_served(SERVE_WITHIN)
        except TimeoutError as error:
            self.end()
            raise Failed(f"the new process did not serve within {SERVE_WITHIN:g} s") from error
        except (EOFError, OSError, ValueError) as error:
            self._wait_end()
            self.end()
            raise Failed(f"the new process {_told(self._status or 0)} before it served") from error

    def release(self) -> None:
        """Tell it that this process has left, or nothing when it has ended."""
        self._heritage.release()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.is_running():
            os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # Process 1 waits for everybody; it is about to know the status when it does not yet.
                self._status = self._reaped(self.pid) if self._reaped is not None else 0
            else:
                self._status = status if pid else None
        return self._status is None

    def end(self) -> None:
        """End it, politely at first, and wait for that."""
        self.signal(signal.SIGTERM)
        self._wait_end()
        self.signal(signal.SIGKILL)
        while self.is_running():
            gevent.sleep(_POLL)
        self.release()

    def _wait_end(self) -> None:
        for _ in range(round(_END_WITHIN / _POLL)):
            if not self.is_running():
                return
            gevent.sleep(_POLL)


class Upgrade:
    """The upgrades of this process.

    `gather` gives what a new process inherits. `on_served` is called when one serves: then `pid` is its id
    and `places` are the keys of what it serves, and no other upgrade begins.
    """

    def __init__(
        self,
        event: Callable[..., None],
        tasks: Tasks,
        gather: Callable[[], Heritage],
        on_served: Callable[[], None],
        reaped: Reaped | None = None,
    ) -> None:
        self._event = event
        self._tasks = tasks
        self._gather = gather
        self._on_served = on_served
        self._reaped = reaped
        self._successor: Successor | None = None
        self._settled = Event()
        self._settled.set()
        self._is_cancelled = False
        self.pid = 0
        self.places: frozenset[str] = frozenset()

    def request(self) -> None:
        """Begin one, unless one is in progress or done, or this process ends."""
        if self._is_cancelled:
            self._event("upgrade_ignored", reason="the process ends")
        elif self.pid:
            self._event("upgrade_ignored", reason=f"process {self.pid} has taken over")
        elif not self._settled.is_set():
            self._event("upgrade_ignored", reason="another upgrade is in progress")
        else:
            self._settled.clear()
            self._tasks.spawn("upgrade", self._run)

    def _run(self) -> None:
        try:
            successor = self._successor = Successor(self._gather(), self._reaped)
            self._event("upgrade_started", pid=successor.pid)
            places = successor.wait_served()
        except (Failed, OSError) as failed:
            self._successor = None
            reason = "the process was told to end" if self._is_cancelled else str(failed)
            self._event("upgrade_failed", reason=reason)
        else:
            if not self._is_cancelled:
                self.pid, self.places = successor.pid, places
                self._on_served()
        finally:
            # After a success nothing may go on: it would change what another process serves by now.
            if not self.pid:
                self._settled.set()

    def wait_settled(self) -> None:
        """Wait until no upgrade is in progress; for ever when one has succeeded."""
        self._settled.wait()

    def release(self) -> None:
        """Tell the process that has taken over that it is alone from now on."""
        if self._successor is not None:
            self._successor.release()

    def cancel(self) -> None:
        """This process ends: so does the one that has not taken over yet, and no upgrade begins any more."""
        self._is_cancelled = True
        if self._successor is not None and not self.pid:
            self._successor.signal(signal.SIGTERM)

    @property
    def is_ending(self) -> bool:
        """Whether a process that was cancelled still runs."""
        return self._is_cancelled and self._successor is not None and self._successor.is_running()

    def end(self) -> None:
        """Leave none behind that was cancelled."""
        if self.is_ending and self._successor is not None:
            self._successor.end()

    def kill(self) -> None:
        """Leave none behind that has not taken over, at once."""
        if self._successor is not None and not self.pid:
            with suppress(ProcessLookupError):
                os.kill(self._successor.pid, signal.SIGKILL)


def _spawn(words: list[str], heritage: Heritage) -> int:
    """Start it with what it inherits and the standard streams, and no other descriptor; its process id."""
    drop = {*VARIABLES, WATCHDOG_PID}
    variables = {name: value for name, value in environment().items() if name not in drop}
    wanted = heritage.descriptors
    # Those that this process was started with for a purpose unknown to it.
    others = [(os.POSIX_SPAWN_CLOSE, one) for one in _inheritable() if one > 2 and one not in wanted]
    try:
        for descriptor in wanted:
            os.set_inheritable(descriptor, True)
        # Not a fork: that would copy the page tables, which stops the hub for as long as that takes.
        # And not gevent's: that listens for the end of children only after the first has begun, and one that
        # ends at once would never be seen.
        return int(
            _posix_spawn(
                words[0],
                words,
                variables | heritage.variables(),
                file_actions=others,
                setsigmask=_WORDS,
                setsigdef=_IGNORED,
            )
        )
    finally:
        for descriptor in wanted:
            os.set_inheritable(descriptor, False)


def _inheritable() -> list[int]:
    found = []
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            # One of them is that of the listing, closed by now.
            with suppress(OSError):
                if os.get_inheritable(int(name)):
                    found.append(int(name))
    return found


def _told(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exited with status {code}" if code >= 0 else f"was killed by signal {-code}"
