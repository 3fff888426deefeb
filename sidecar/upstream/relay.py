# cython: language_level=3, annotation_typing=False
"""The body of a server's response on its way to the client, and the tunnel after a 101."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Broken, Failure, Malformed
from ..message import Attempt
from ..net.channel import Channel, Flow, pump
from ..wire.head import CLOSE, ResponseHead
from .pool import Connection, ServerPool


class Relay:
    """A response body that is still at the server; moved by compiled code, closed with its connection."""

    __slots__ = (
        "_attempt",
        "_connection",
        "_elapsed",
        "_head",
        "_pool",
        "bound",
        "moved",
        "read_timeout",
        "until",
        "upload",
    )

    def __init__(
        self,
        head: ResponseHead,
        connection: Connection,
        pool: ServerPool,
        attempt: Attempt,
        elapsed: Callable[[], float],
    ) -> None:
        self._head = head
        self._connection: Connection | None = connection
        self._pool = pool
        self._attempt = attempt
        self._elapsed = elapsed
        self.moved = 0
        self.read_timeout = 0.0
        self.bound = 0.0  # seconds for the whole exchange; 0: none
        self.until = 0.0  # monotonic moment when the whole exchange must be over; 0: never
        self.upload: Flow | None = None  # the rest of the request body, when the server answered early

    @property
    def is_whole_exchange(self) -> bool:
        """Whether the request body was sent completely before the response began."""
        return self.upload is None

    def send_to(self, client: Channel, framing: int, write_timeout: float) -> None:
        """Move the body to `client`, where its head is held. Raises Failure; neither side is usable then."""
        connection = self._connection
        assert connection is not None
        head = self._head
        flow = Flow(
            connection.channel, client, head.framing, head.length, framing, self.read_timeout, write_timeout
        )
        try:
            if self.upload is None:
                pump(flow, None, None, client, False, 0, self.until)
            else:
                # A client that leaves in the middle of its request must not hold the server's connection.
                pump(self.upload, flow, None, client, True, 0, self.until)
        except Broken as broken:
            raise self._failed(self._failure(broken)) from broken
        except Malformed as malformed:
            raise self._failed(Failure("malformed_response", malformed.rule)) from malformed
        self.moved = flow.moved
        self._attempt.total = self._elapsed()
        self._connection = None
        if head.keep_alive and (self.upload is None or (self.upload.done and self.upload.broken is None)):
            self._pool.release(connection)
        else:
            connection.close()

    def _failure(self, broken: Broken) -> Failure:
        if broken.side == "source":
            if broken.what == "timeout":
                is_over = self.bound > 0.0 and self._elapsed() >= self.bound
                return Failure("response_timeout" if is_over else "upstream_read_timeout")
            return Failure("response_incomplete")
        return Failure("client_write_timeout" if broken.what == "timeout" else "client_gone")

    def _failed(self, failure: Failure) -> Failure:
        self._attempt.reason = failure.reason
        self._attempt.total = self._elapsed()
        return failure

    def close(self) -> None:
        """Close the connection unless the body was moved completely."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Tunnel:
    """Both directions of an upgraded connection, byte for byte, each ended on its own."""

    __slots__ = ("_attempt", "_connection", "_elapsed", "_idle", "moved", "upload")

    def __init__(
        self, connection: Connection, attempt: Attempt, idle: float, elapsed: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._idle = idle
        self._elapsed = elapsed
        self.moved = 0
        self.upload = None

    is_whole_exchange = True

    def send_to(self, client: Channel, framing: int, write_timeout: float) -> None:
        """Relay until both sides have ended, or were silent for too long. A reset ends both."""
        server = self._connection.channel
        up = Flow(client, server, CLOSE, 0, CLOSE, 0, 0)
        down = Flow(server, client, CLOSE, 0, CLOSE, 0, 0)
        up.half_close = down.half_close = True
        try:
            client.flush(write_timeout)
            pump(up, down, None, None, False, self._idle)
        except Broken as broken:
            self._attempt.reason = "tunnel_idle" if broken.what == "timeout" else "tunnel_reset"
        self.moved = down.moved
        self._attempt.total = self._elapsed()

    def close(self) -> None:
        """Close the server's side."""
        self._connection.close()
