"""HTTP/2 (RFC 9113): one connection, many streams; each is a channel that speaks HTTP/1.1 to the inside."""

from collections.abc import Callable
from typing import Final

from ..wire.head import Limits
from .channel import Channel

PREFACE: Final[bytes]

class Stream(Channel):
    """One request and its response: heads are HTTP/1.1 heads, the body is bytes, its end is the stream's."""

    id: int  # 0 until a client's head is sent
    is_connect: bool  # a WebSocket inside of HTTP/2 (RFC 8441)
    is_refused: bool  # the peer did not act on it: it may be sent again
    is_open: bool
    @property
    def trailers(self) -> bytes: ...
    def open_websocket(self, key: bytes) -> None: ...
    def finish(self, trailers: bytes = b"") -> None: ...

class Multiplex:
    """One HTTP/2 connection. Times in seconds, 0: no bound."""

    channel: Channel
    is_client: bool
    refused: str  # the rule that the peer broke; "" while it broke none
    is_over: bool
    is_leaving: bool
    streams: dict[object, Stream]
    max_streams: int
    peer_streams: int
    peer_connect: bool  # the peer takes extended CONNECT (RFC 8441)
    handled: int  # streams that ended well
    def __init__(
        self,
        channel: Channel,
        limits: Limits,
        on_stream: Callable[[Stream], None] | None = None,  # None: we are the client
        *,
        max_streams: int = 128,
        window: int = 65535,  # bytes of a stream that are kept for whoever does not take them
        header_timeout: float = 0,
        write_timeout: float = 0,
        idle_timeout: float = 0,
        secure: bool = False,
    ) -> None: ...
    def run(self) -> None:
        """Read and serve until the connection is over; all its streams are over then too. Closes nothing."""
    def open(self) -> Stream | None:
        """A new stream for a request (clients); None when the connection takes no more now."""
    @property
    def is_ready(self) -> bool: ...
    @property
    def heard_at(self) -> float: ...
    def allow_idle(self, timeout: float) -> None: ...
    @property
    def room(self) -> int: ...
    def leave(self) -> None:
        """Take no more requests than are on their way; the connection ends when all are answered."""
    def kill(self) -> None:
        """End now: those who serve streams are cut off."""
    def watch(self, function: Callable[[], None] | None) -> None:
        """`function()` is called when there may be more room, or none any more (clients)."""
