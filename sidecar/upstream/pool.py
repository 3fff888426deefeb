# cython: language_level=3, annotation_typing=False
"""One server's connections: urllib3 pools them, ours is the socket underneath.

urllib3's documented hooks are replaced: `ConnectionCls` connects a channel, `QueueCls` is a plain stack. One
hub uses a pool, so the stack needs no lock, and the liveness of a connection is the channel's own knowledge.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, Final, Protocol

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from ..config.addresses import Address
from ..net.channel import Channel
from ..runtime import SystemClock
from ..wire.head import RequestHead
from .dialer import Dialer, Secure, say
from .rest import Rest

#: A connection that ends this much before its time was ended by the server, not by our timer.
_ALMOST: Final = 0.99


class AnyConnection(Protocol):
    """What an exchange has of a server: a connection, or a stream of one that is shared."""

    channel: Channel

    @property
    def waited(self) -> float:
        """Seconds that it had rested when it was taken."""

    @property
    def is_shared(self) -> bool:
        """Whether others have used it before."""

    @property
    def is_refused(self) -> bool:
        """Whether the server has said that it did not act on the request."""

    def prepare_upgrade(self, head: RequestHead) -> bool:
        """The request that is about to be sent asks for another protocol; whether the server is asked, too.

        Raises Failure: it would not understand.
        """

    def close(self) -> None:
        """End it; what is not complete is cut off."""


class AnyPool(Protocol):
    """Connections to one server."""

    rest: Rest

    def acquire(self, now: float, careful: bool = False) -> AnyConnection | None:
        """One that is there already, or None. `careful`: for what must not be sent twice."""

    def dial(self, timeout: float, first: bytes = b"") -> AnyConnection:
        """A new one in at most so many seconds; with `first`, which the server hears first, nobody else's.

        Raises Failure.
        """

    def release(self, connection: Any) -> None:
        """Take it back after an exchange that ended cleanly."""

    def connect(self, timeout: float) -> Channel:
        """TCP alone. Raises Failure."""

    def open(self, timeout: float, first: bytes = b"") -> Channel:
        """A connection of its own on which nothing was asked, TLS included. Raises Failure."""

    def ask(self, timeout: float, first: bytes = b"") -> Channel:
        """The same for one request, whose end ends it. Raises Failure."""

    def resize(self, keepalive: int, keepalive_timeout: float) -> None:
        """Keep so many that rest from now on, for so many seconds."""

    def refresh(self) -> None:
        """Close what rests and take no more of what is in use: whom is trusted has changed."""

    def close(self) -> None:
        """Close what rests; attempts in progress go on."""


class Link:
    """What counts of a connection between two exchanges. Moments are of the monotonic clock."""

    __slots__ = ("channel", "era", "expire", "rested", "waited")

    def __init__(self, channel: Channel, era: int, expire: Callable[[Channel], None]) -> None:
        self.channel = channel
        self.era = era  # that of the pool when it was opened
        self.expire = expire
        self.rested = 0.0  # the moment it came back
        self.waited = 0.0  # seconds that it had rested when it was taken last


class Connection(HTTPConnection):
    """A connection of urllib3 whose socket is a channel."""

    channel: Channel
    link: Link
    open_with: Callable[[float, bytes], Channel]
    first: bytes  # what the server hears before all else
    is_refused = False
    is_shared = False

    def __init__(self, *args: Any, open_with: Callable[[float, bytes], Channel], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open_with = open_with
        self.first = b""

    @property
    def waited(self) -> float:
        """Seconds that it had rested when it was taken last."""
        return self.link.waited

    def prepare_upgrade(self, head: RequestHead) -> bool:
        """The request says it all."""
        return True

    def _new_conn(self) -> Any:
        self.channel = self.open_with(float(self.timeout or 0), self.first)
        return self.channel

    @property
    def is_connected(self) -> bool:
        """Whether the server has neither ended the connection nor sent something unasked."""
        return self.sock is not None and self.channel.unpark()


class Stack:
    """The queue of a pool: last in, first out, so that connections beyond the need grow old and leave.

    urllib3 makes it; the pool gives it `rest` and `now`.
    """

    __slots__ = ("era", "is_closed", "items", "maxsize", "now", "rest")

    def __init__(self, maxsize: int) -> None:
        self.rest = Rest(0.0)
        self.now: Callable[[], float] = SystemClock.monotonic
        self.maxsize = maxsize
        self.items: list[Connection] = []
        self.era = 0
        self.is_closed = False

    def get(self, block: bool = True, timeout: float | None = None) -> Connection:
        """The connection used last. Raises queue.Empty."""
        if not self.items:
            raise queue.Empty
        return self.items.pop()

    def put(self, item: Connection | None, block: bool = True, timeout: float | None = None) -> None:
        """Take a connection; urllib3 also puts None for each place. Raises queue.Full."""
        if item is None:
            return
        if len(self.items) >= self.maxsize:
            raise queue.Full
        self.items.append(item)

    def take(self, now: float, careful: bool) -> Connection | None:
        """One that is still alive, or None. `careful`: for what must not be sent twice."""
        items = self.items
        while items:
            connection = items.pop()
            link = connection.link
            seconds = now - link.rested
            if link.channel.unpark() and (not careful or self.rest.is_safe(seconds)):
                link.waited = seconds
                return connection
            connection.close()
        return None

    def give(self, connection: Connection) -> None:
        """Take back a connection whose exchange ended cleanly."""
        items, rest = self.items, self.rest
        link = connection.link
        channel = link.channel
        # Bytes behind the response belong to nobody: the server and we disagree about where it ends.
        if len(items) >= self.maxsize or channel.pending or channel.peer_finished:
            connection.close()
            return
        if self.is_closed or link.era != self.era:
            connection.close()
            return
        if link.waited > rest.proven:
            rest.survived(link.waited)
        items.append(connection)
        link.rested = self.now()
        channel.park(link.expire, rest.limit)

    def expire(self, channel: Channel) -> None:
        """A resting connection heard from its server, or rested long enough: it is of no more use."""
        for connection in self.items:
            if connection.channel is channel:
                self.items.remove(connection)
                connection.close()
                seconds = self.now() - connection.link.rested
                if seconds < self.rest.limit * _ALMOST:
                    self.rest.closed(seconds)
                return

    def resize(self, maxsize: int) -> None:
        """Keep so many."""
        self.maxsize = maxsize
        while len(self.items) > maxsize:
            self.items.pop(0).close()

    def refresh(self) -> None:
        """Close what rests; what is in use is closed when it comes back, and what is new is kept again."""
        self.era += 1
        while self.items:
            self.items.pop().close()


class ServerPool(HTTPConnectionPool):
    """Connections to one server."""

    ConnectionCls = Connection
    QueueCls = Stack  # type: ignore[assignment]
    pool: Stack  # type: ignore[assignment]

    def __init__(
        self,
        address: Address,
        keepalive: int,
        keepalive_timeout: float,
        other: Address | None = None,
        now: Callable[[], float] = SystemClock.monotonic,
        secure: Secure | None = None,
    ) -> None:
        """`address` is numeric or a UNIX socket, `other` the same server's in the other family."""
        self.address = address
        self.rest = Rest(keepalive_timeout)
        self._dialer = Dialer([one for one in (address, other) if one is not None], secure, now)
        super().__init__(
            address.host or "localhost",
            address.port or None,
            maxsize=keepalive,
            block=False,
            open_with=self._dialer.open,
        )
        self.pool.rest = self.rest
        self.pool.now = now

    def connect(self, timeout: float) -> Channel:
        """TCP alone, a connection of its own, in at most so many seconds. Raises Failure."""
        return self._dialer.connect(timeout)

    def open(self, timeout: float, first: bytes = b"") -> Channel:
        """The same, with TLS if the server speaks it; `first` has been said. Raises Failure."""
        channel = self._dialer.open(timeout, first)
        if first and self._dialer.secure is None:
            try:
                say(channel, b"", timeout)
            except BaseException:
                channel.close()
                raise
        return channel

    #: A connection of its own serves one request as well.
    ask = open

    def acquire(self, now: float, careful: bool = False) -> Connection | None:
        """An idle connection that is still alive, or None. `careful`: for what must not be sent twice."""
        return self.pool.take(now, careful)

    def dial(self, timeout: float, first: bytes = b"") -> Connection:
        """A new connection; `timeout` in seconds. Raises Failure."""
        pool = self.pool
        era = pool.era
        connection: Connection = self._new_conn()  # type: ignore[assignment]
        connection.timeout = timeout
        connection.first = first
        connection.connect()
        connection.link = Link(connection.channel, era, pool.expire)
        return connection

    def release(self, connection: Connection) -> None:
        """Take back a connection whose exchange ended cleanly."""
        self.pool.give(connection)

    def resize(self, keepalive: int, keepalive_timeout: float) -> None:
        """Keep so many idle connections from now on, and new ones for so many seconds."""
        self.rest.allow(keepalive_timeout)
        self.pool.resize(keepalive)

    def refresh(self) -> None:
        """Close what rests; what is in use is closed when it comes back, and what is new is kept again."""
        self.pool.refresh()

    def close(self) -> None:
        """Close what rests; what is in use is closed when it comes back."""
        self.pool.is_closed = True
        self.pool.refresh()
