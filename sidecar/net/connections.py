"""The greenlets of all client connections, and a bound on their number that a reload can move."""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

from gevent.pool import Group, Pool

from .channel import Channel

#: Told that the bound is reached (True), and that there is room again (False).
OnFull = Callable[[bool], None]

_COUNT: Final = struct.Struct("i")


class Connections(Pool):  # type: ignore[misc]
    """A pool of `size` greenlets. Listeners stop accepting when it is full, and go on when it has a place."""

    size: int

    def __init__(self, size: int, on_full: OnFull) -> None:
        super().__init__(size)
        self._on_full = on_full
        self._is_full = False  # as it was told
        self._room_at = _room_at(size)
        self._excess = 0  # connections beyond a bound that was lowered: those that leave free no place

    def resize(self, size: int) -> None:
        """Bound the number of connections; those there are go on, and count."""
        if size == self.size:
            return
        free = size - len(self)
        self.size = size
        self._room_at = _room_at(size)
        self._excess = max(0, -free)
        self._semaphore.counter = max(0, free - 1)
        if free > 0:
            self._semaphore.release()  # tells the listeners that wait
        self._tell()

    def add(self, greenlet: Any, blocking: bool = True, timeout: float | None = None) -> None:
        """Count a connection whose greenlet is about to start."""
        super().add(greenlet, blocking, timeout)
        if len(self) >= self.size:
            self._tell()

    def _discard(self, greenlet: Any) -> None:
        if self._excess:
            self._excess -= 1
            Group._discard(self, greenlet)
        else:
            super()._discard(greenlet)
        if self._is_full:
            self._tell()

    def _tell(self) -> None:
        count = len(self)
        is_full = count > self._room_at if self._is_full else count >= self.size
        if is_full != self._is_full:
            self._is_full = is_full
            self._on_full(is_full)


def unread(channel: Channel) -> int:
    """How many bytes the kernel has for a channel that nobody has read yet."""
    if channel.fileno() < 0:
        return 0
    answer: bytes = fcntl.ioctl(channel.fileno(), termios.FIONREAD, bytes(_COUNT.size))
    return int(_COUNT.unpack(answer)[0])


def _room_at(size: int) -> int:
    """How few connections are room again: at the bound itself, every one that comes or goes would be news."""
    return size - max(1, size // 10)
