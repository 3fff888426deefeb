# cython: language_level=3, annotation_typing=False
"""The body of a server's response on its way to the client, and the tunnel after a 101."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ..errors import Broken, Failure, Malformed
from ..message import Attempt, Request
from ..net.channel import Channel
from ..net.flow import Flow, pump
from ..wire.body import ChunkedDecoder
from ..wire.grpc import field, status
from ..wire.head import CHUNKED, CLOSE, LENGTH, ResponseHead
from .pool import AnyConnection
from .server import Server

if TYPE_CHECKING:
    from ..net.h2 import Stream

_PIECE: Final = 65536  # bytes of a body that are read at once to be forgotten


class Exchange(Protocol):
    """What knows the time of an attempt."""

    def elapsed(self) -> float:
        """Seconds since it began."""

    def is_over(self) -> bool:
        """Whether the bound of the whole exchange is reached."""


class Relay:
    """A response body that is still at the server; moved by compiled code, closed with its connection."""

    __slots__ = (
        "_attempt",
        "_connection",
        "_exchange",
        "_head",
        "_server",
        "call",
        "idle",
        "is_last",
        "moved",
        "read_timeout",
        "until",
        "upload",
    )

    def __init__(
        self,
        head: ResponseHead,
        connection: AnyConnection,
        server: Server,
        attempt: Attempt,
        exchange: Exchange,
    ) -> None:
        self._head = head
        self._connection: AnyConnection | None = connection
        self._server = server
        self._attempt = attempt
        self._exchange = exchange
        self.moved = 0
        self.read_timeout = 0.0
        self.idle = 0.0  # seconds of silence in both directions; 0: each has its own bound
        self.call: Request | None = None  # a call of gRPC, which is told how it ended
        self.until = 0.0  # monotonic moment when the whole exchange must be over; 0: never
        self.is_last = False  # the connection is of no further use, whatever the head says
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
                pump(flow, None, None, client, False, self.idle, self.until)
            else:
                # It is for nobody else any more.
                self.upload.forget()
                # A client that leaves in the middle of its request must not hold the server's connection.
                pump(self.upload, flow, None, client, True, self.idle, self.until)
        except Broken as broken:
            raise self._failed(self._failure(broken)) from broken
        except Malformed as malformed:
            raise self._failed(Failure("malformed_response", malformed.rule)) from malformed
        self.moved = flow.moved
        self._attempt.total = self._exchange.elapsed()
        if self.call is not None:
            stream: Stream = connection.channel  # type: ignore[assignment]
            self.call.grpc_status = status(field(stream.trailers, b"grpc-status"))
        is_sent = self.upload is None or (self.upload.done and self.upload.broken is None)
        self._finish(connection, is_sent)

    def drain(self, limit: int) -> None:
        """Read the body and forget it, if it has at most `limit` bytes. Raises Failure."""
        connection, head = self._connection, self._head
        if connection is None or head.framing not in (LENGTH, CHUNKED) or head.length > limit:
            return
        try:
            channel = connection.channel
            if not (self._skip_stream(channel, limit) if channel.framed else self._skip(channel, limit)):
                return
        except (Broken, Malformed) as error:
            raise Failure("response_incomplete") from error
        self._attempt.total = self._exchange.elapsed()
        self._finish(connection, self.upload is None)

    def _skip(self, channel: Channel, limit: int) -> bool:
        """Read the body by its framing; False when it is longer than `limit` bytes, or cut short."""
        decoder = ChunkedDecoder() if self._head.framing == CHUNKED else None
        left = limit if decoder is not None else self._head.length
        while left > 0 if decoder is None else not decoder.done:
            if not (data := channel.read(min(left, _PIECE), self.read_timeout)) or left <= 0:
                return False
            left -= len(data)
            if decoder is not None and decoder.feed(data)[1] < len(data):
                return False
        return True

    def _skip_stream(self, channel: Channel, limit: int) -> bool:
        """The same where the end of the stream is that of the body."""
        left = limit
        while data := channel.read(_PIECE, self.idle or self.read_timeout):
            left -= len(data)
            if left < 0:
                return False
        return True

    def _finish(self, connection: AnyConnection, is_sent: bool) -> None:
        """The body is complete. The connection may rest if that of the request is, too."""
        self._connection = None
        if self._head.keep_alive and is_sent and not self.is_last:
            self._server.pool.release(connection)
        else:
            connection.close()
        self._server.give_back()

    def _failure(self, broken: Broken) -> Failure:
        if broken.side == "source":
            if broken.what == "timeout":
                is_over = self._exchange.is_over()
                return Failure("response_timeout" if is_over else "upstream_read_timeout")
            return Failure("response_incomplete")
        return Failure("client_write_timeout" if broken.what == "timeout" else "client_gone")

    def _failed(self, failure: Failure) -> Failure:
        self._attempt.reason = failure.reason
        self._attempt.total = self._exchange.elapsed()
        return failure

    def close(self) -> None:
        """Close the connection, and give back the server, unless the body was moved completely."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._server.give_back()


class Tunnel:
    """Both directions of an upgraded connection, byte for byte, each ended on its own."""

    __slots__ = ("_attempt", "_connection", "_exchange", "_idle", "_server", "moved", "upload")

    def __init__(
        self, connection: AnyConnection, server: Server, attempt: Attempt, idle: float, exchange: Exchange
    ) -> None:
        self._connection = connection
        self._server = server
        self._attempt = attempt
        self._idle = idle
        self._exchange = exchange
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
        self._attempt.total = self._exchange.elapsed()

    def close(self) -> None:
        """Close the server's side, and give the server back."""
        self._connection.close()
        self._server.give_back()
