"""Time, chance and tasks: what the rest takes by the front door, so that tests never wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gevent
import gevent.pool


class Clock(Protocol):
    """Two clocks: one that only moves forward, one that tells the date."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""

    def time(self) -> float:
        """Seconds since 1970, as the system believes."""


class SystemClock:
    """The clocks of the machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class FakeClock:
    """A clock that a test moves."""

    def __init__(self, now: float = 1_000.0, date: float = 1_700_000_000.0) -> None:
        self.now = now
        self.date = date

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return self.now

    def time(self) -> float:
        """Seconds since 1970, as the test says."""
        return self.date

    def advance(self, seconds: float) -> None:
        """Move both clocks."""
        self.now += seconds
        self.date += seconds


Random = random.Random


class Tasks:
    """Greenlets that belong to the process: what dies is reported, what runs is stopped at the end."""

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._group = gevent.pool.Group()
        self._on_error = on_error

    def spawn(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function` in a greenlet of its own; an exception that leaves it is reported, not lost."""
        return self._group.spawn(self._guard, name, function, args)

    def _guard(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a task; the report names it
            self._on_error(name, error)

    def stop(self) -> None:
        """Kill what still runs and wait for it."""
        self._group.kill()


class World(NamedTuple):
    """All of that, and the one who is told what happens."""

    tasks: Tasks
    clock: Clock
    random: random.Random
    event: Callable[..., None]
    pause: Callable[[float], Any] = gevent.sleep
