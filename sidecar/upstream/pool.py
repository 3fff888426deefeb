# cython: language_level=3, annotation_typing=False
"""One server's connections: urllib3 pools them, ours is the socket underneath.

urllib3's documented hooks are replaced: `ConnectionCls` connects a channel, `QueueCls` is a plain stack. One
hub uses a pool, so the stack needs no lock, and the liveness of a connection is the channel's own knowledge.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from ..config.addresses import Address
from ..net.channel import Channel
from ..net.dial import dial, numeric_target, resolve


class Connection(HTTPConnection):
    """A connection of urllib3 whose socket is a channel."""

    channel: Channel
    connect_with: Callable[[float], Channel]
    expire: Callable[[Channel], None]

    def __init__(self, *args: Any, connect_with: Callable[[float], Channel], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connect_with = connect_with

    def _new_conn(self) -> Any:
        self.channel = self.connect_with(float(self.timeout or 0))
        return self.channel

    @property
    def is_connected(self) -> bool:
        """Whether the server has neither ended the connection nor sent something unasked."""
        return self.sock is not None and self.channel.unpark()


class Stack:
    """The queue of a pool: last in, first out, so that connections beyond the need grow old and leave."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.items: list[Connection] = []

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


class ServerPool(HTTPConnectionPool):
    """Connections to one server."""

    ConnectionCls = Connection
    QueueCls = Stack  # type: ignore[assignment]
    pool: Stack  # type: ignore[assignment]

    def __init__(self, address: Address, keepalive: int, keepalive_timeout: float) -> None:
        self.address = address
        self.keepalive_timeout = keepalive_timeout
        self.closed = False
        self._target = numeric_target(address)
        super().__init__(
            address.host or "localhost",
            address.port or None,
            maxsize=keepalive,
            block=False,
            connect_with=self._connect,
        )

    def _connect(self, timeout: float) -> Channel:
        return dial([self._target] if self._target else resolve(self.address), timeout)

    def acquire(self) -> Connection | None:
        """An idle connection that is still alive, or None."""
        items = self.pool.items
        while items:
            connection = items.pop()
            if connection.channel.unpark():
                return connection
            connection.close()
        return None

    def dial(self, timeout: float) -> Connection:
        """A new connection; `timeout` in seconds. Raises Failure."""
        connection: Connection = self._new_conn()  # type: ignore[assignment]
        connection.timeout = timeout
        connection.connect()
        connection.expire = self._expire
        return connection

    def release(self, connection: Connection) -> None:
        """Take back a connection whose exchange ended cleanly."""
        items = self.pool.items
        channel = connection.channel
        # Bytes behind the response belong to nobody: the server and we disagree about where it ends.
        if self.closed or len(items) >= self.pool.maxsize or channel.pending or channel.peer_finished:
            connection.close()
            return
        items.append(connection)
        channel.park(connection.expire, self.keepalive_timeout)

    def _expire(self, channel: Channel) -> None:
        """A resting connection heard from its server, or rested long enough: it is of no more use."""
        for connection in self.pool.items:
            if connection.channel is channel:
                self.pool.items.remove(connection)
                connection.close()
                return

    def close(self) -> None:
        """Close what rests; what is in use is closed when it comes back."""
        self.closed = True
        while self.pool.items:
            self.pool.items.pop().close()
