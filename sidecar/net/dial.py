"""Connections outwards: from an address to a channel.

A numeric address and a UNIX socket never go near a resolver.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections import deque
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any, Final

import gevent
import gevent.socket
from gevent.event import Event
from gevent.pool import Group

from ..config.addresses import Address
from ..errors import Failure
from .channel import Channel

#: Reachable or not, the address has been refused; anything else is a failure of another kind.
_REFUSED: Final = frozenset((errno.ECONNREFUSED, errno.ENOENT))

#: Nothing is wrong with the address: this process, or the machine, has no descriptor left.
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE))

#: Seconds that an address has for itself before the next one is tried beside it (RFC 8305 section 8).
_HEAD_START: Final = 0.25

#: (family, socket address) as the system takes them.
Target = tuple[int, Any]


def numeric_target(address: Address) -> Target:
    """The one target of a numeric address or a UNIX socket. Raises ValueError for a name."""
    if address.is_unix:
        return _socket.AF_UNIX, address.path
    version = ip_address(address.host).version
    return (_socket.AF_INET6 if version == 6 else _socket.AF_INET), (address.host, address.port)


def dial(targets: list[Target], timeout: float) -> Channel:
    """A connection to the first target that accepts; `timeout` seconds for each (0: the system's).

    Raises Failure with connection_refused, connection_timeout or connection_failed; nothing was sent then.
    """
    failure = Failure("connection_failed", "no address", repeatable=True)
    for target in targets:
        try:
            return _connect(target, timeout)
        except Failure as error:
            failure = error
    raise failure


def dial_any(addresses: Sequence[Target], timeout: float) -> Channel:
    """A connection to the address that answers first, as RFC 8305 has it: "happy eyeballs".

    The families take turns, that of the first address begins. The next address is tried when the last one has
    failed, or after a quarter of a second beside it. `timeout` seconds for all together (0: the system's for
    each). Raises Failure as `dial` does: of the address that failed last.
    """
    if len(addresses) < 2:
        return dial(list(addresses), timeout)
    return _Race(_interleaved(addresses)).run(timeout)


def _interleaved(addresses: Sequence[Target]) -> list[Target]:
    first = [one for one in addresses if one[0] == addresses[0][0]]
    others = [one for one in addresses if one[0] != addresses[0][0]]
    return [one for one in chain.from_iterable(zip_longest(first, others)) if one is not None]


class _Race:
    """Attempts side by side. They belong to the greenlet that runs the race and do not outlive it."""

    def __init__(self, targets: list[Target]) -> None:
        self._waiting = deque(targets)
        self._attempts = Group()
        self._running = 0
        self._changed = Event()
        self._winner: Channel | None = None
        self._failure = Failure("connection_failed", "no address", repeatable=True)
        self._is_over = False

    def run(self, timeout: float) -> Channel:
        """The first connection. Raises Failure."""
        timer = gevent.get_hub().loop.timer(timeout) if timeout else None
        if timer is not None:
            timer.start(self._end, f"none of {len(self._waiting)} addresses within {timeout:g} s")
        try:
            while self._winner is None and not self._is_over:
                self._step(timeout)
            self._is_over = True
            self._attempts.kill()
        except BaseException:
            self._is_over = True
            self._attempts.kill(block=False)
            if self._winner is not None:
                self._winner.close()
            raise
        finally:
            if timer is not None:
                timer.close()
        if self._winner is None:
            raise self._failure
        return self._winner

    def _step(self, timeout: float) -> None:
        """Begin the next attempt and wait until there is a reason for the one behind it."""
        if self._waiting:
            self._running += 1
            self._attempts.spawn(self._attempt, self._waiting.popleft(), timeout)
        elif not self._running:
            self._is_over = True
            return
        self._changed.clear()
        self._changed.wait(_HEAD_START if self._waiting else None)

    def _attempt(self, target: Target, timeout: float) -> None:
        try:
            channel = _connect(target, timeout)
        except Failure as error:
            self._failure = error
        else:
            if self._winner is None and not self._is_over:
                self._winner = channel
            else:
                channel.close()
        finally:
            self._running -= 1
            self._changed.set()

    def _end(self, why: str) -> None:
        self._failure = Failure("connection_timeout", why, repeatable=True)
        self._is_over = True
        self._changed.set()


def _connect(target: Target, timeout: float) -> Channel:
    family, address = target
    try:
        sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    except OSError as error:
        reason = "descriptors_exhausted" if error.errno in _EXHAUSTED else "connection_failed"
        raise Failure(reason, error.strerror or str(error), repeatable=True) from error
    if family != _socket.AF_UNIX:
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    code = sock.connect_ex(address)
    channel = Channel(sock.detach())
    if code == errno.EINPROGRESS:
        try:
            code = channel.wait_connected(timeout)
        except BaseException:
            channel.close()
            raise
    if code == 0:
        return channel
    channel.close()
    if code in (-1, errno.ETIMEDOUT):
        raise Failure("connection_timeout", _written(target), repeatable=True)
    reason = "connection_refused" if code in _REFUSED else "connection_failed"
    raise Failure(reason, f"{_written(target)}: {os.strerror(code)}", repeatable=True)


def notice_death(channel: Channel, seconds: float) -> None:
    """Have a TCP connection break when nothing that was sent is confirmed for so many seconds."""
    sock = _socket.socket(fileno=channel.fileno())
    try:
        if sock.family != _socket.AF_UNIX:
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_USER_TIMEOUT, int(seconds * 1000))
    finally:
        sock.detach()


def _written(target: Target) -> str:
    """As the configuration has it."""
    family, address = target
    return str(Address(path=address) if family == _socket.AF_UNIX else Address(*address[:2]))
