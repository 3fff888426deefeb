"""Channels move bytes: one socket, its input buffer, and the greenlet that waits on it."""

from collections.abc import Callable
from typing import Final

from ..errors import SidecarError
from ..wire.head import Head

HEAD: Final[int]  # what read_head ends with: the head is complete,
CLOSED: Final[int]  # ended or reset before the first byte,
TORN: Final[int]  # … in the middle of the head,
IDLE: Final[int]  # no first byte in time,
SLOW: Final[int]  # not complete in time,
GONE: Final[int]  # the watched channel's peer left meanwhile
FINISHED: Final[int]
STOPPED: Final[int]

class Channel:
    """A connected socket, which it owns. One greenlet at a time may wait on it."""

    fd: int
    framed: bool  # frames messages by itself: a stream, whose descriptor is its connection's
    received: int
    sent: int
    parked: Callable[[Channel], None] | None
    def __init__(self, fd: int, readable: bool = False) -> None: ...
    def fileno(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def peer_finished(self) -> bool: ...
    def park(self, callback: Callable[[Channel], None], timeout: float) -> None: ...
    def unpark(self) -> bool: ...
    def read_head(self, head: Head, first: float, total: float, watch: Channel | None = None) -> int: ...
    def read(self, size: int, timeout: float) -> bytes: ...
    def fill(self, size: int, timeout: float) -> bool: ...
    def peek(self, offset: int = 0) -> bytes: ...
    def skip(self, size: int) -> None: ...
    def unread(self, data: bytes) -> None: ...
    def hold(self, data: bytes) -> None: ...
    def forget(self) -> None: ...
    def send(self, data: bytes, timeout: float) -> None: ...
    def flush(self, timeout: float) -> None: ...
    def wait_connected(self, timeout: float) -> int: ...
    def shutdown_write(self) -> None: ...
    def linger(self, timeout: float, limit: int = 67108864) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...

class Flow:
    """A body on its way from one channel to another, framed anew. Moves only when pumped."""

    source: Channel
    sink: Channel
    done: bool
    broken: SidecarError | None
    moved: int  # bytes of the body, framing excluded
    whole: bool  # nothing of the body has left the source's buffer: another flow can begin anew
    half_close: bool
    def __init__(
        self,
        source: Channel,
        sink: Channel,
        framing_in: int,
        length: int,
        framing_out: int,
        read_timeout: float,
        write_timeout: float,
        limit: int = -1,
    ) -> None: ...

def pump(
    a: Flow,
    b: Flow | None = None,
    stop: Channel | None = None,
    watch: Channel | None = None,
    lead: bool = False,
    idle: float = 0,
    until: float = 0,
) -> int: ...
