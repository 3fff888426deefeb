# cython: language_level=3, annotation_typing=False
"""One server's HTTP/2 connections: requests share them, as many at one time as the server takes.

Laws. A connection stands when the server's SETTINGS are there: from then on its limit is known. The oldest
one with room is taken, so that those beyond the need become idle and leave. Who waits for a connection shares
the dial with others, and one that gives up takes nobody's away. A stream that ends ends nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from gevent.event import Event

from ..errors import Failure
from ..net.channel import Channel
from ..net.dial import notice_death
from ..net.h2 import Multiplex, Stream
from ..runtime import SystemClock, Tasks
from ..wire.head import Limits, RequestHead
from .dialer import Dialer, say
from .rest import Rest

#: Streams that a server is thought to take until one has said (RFC 9113 section 6.5.2 recommends as many).
_USUAL: Final = 100
#: Seconds for which nothing that was sent is confirmed or taken: the server is gone, or the way to it.
_DEAD: Final = 20.0
#: A server that has said nothing for so many seconds while a request waited gets no more on that connection.
_SILENT: Final = 5.0
#: These tell of the one who dialed, who may have had less time than others.
_LATE: Final = frozenset(("connection_timeout", "tls_timeout"))
_LEAST: Final = 0.001
#: Seconds by which a wait may end before its deadline.
_SLACK: Final = 0.01
_WEBSOCKET: Final = b"websocket"


class StreamConnection:
    """One stream, in the place of a connection."""

    __slots__ = ("_line", "_now", "_opened", "channel", "is_shared", "waited")

    def __init__(self, line: Line, stream: Stream, now: Callable[[], float]) -> None:
        self._line = line
        self._now = now
        self._opened = now()
        self.channel: Channel = stream
        self.is_shared = line.is_used
        self.waited = 0.0
        line.is_used = True

    @property
    def is_refused(self) -> bool:
        """Whether the server has said that it did not act on the request."""
        stream: Stream = self.channel  # type: ignore[assignment]
        return stream.is_refused

    def prepare_upgrade(self, head: RequestHead) -> bool:
        """Have a WebSocket asked for in the way of HTTP/2 (RFC 8441). Raises Failure: the server has none.

        False: it is another protocol, which HTTP/2 does not know, so nobody is asked (RFC 9110 section 7.8).
        """
        if (head.upgrade or b"").lower() != _WEBSOCKET:
            return False
        if not self._line.multiplex.peer_connect:
            raise Failure("upgrade_failed", "the server takes no WebSockets in HTTP/2 (RFC 8441)")
        stream: Stream = self.channel  # type: ignore[assignment]
        stream.open_websocket(head.get(b"sec-websocket-key") or b"")
        return True

    def close(self) -> None:
        """End the stream; what is not complete is reset."""
        channel = self.channel
        multiplex = self._line.multiplex
        if channel.received == 0 and multiplex.heard_at < self._opened < self._now() - _SILENT:
            # Nobody was heard since it was asked: who comes next should not wait as long.
            multiplex.leave()
        channel.close()


class Line:
    """One connection. `is_own`: it belongs to one request."""

    __slots__ = ("is_own", "is_used", "multiplex")

    def __init__(self, multiplex: Multiplex, is_own: bool) -> None:
        self.multiplex = multiplex
        self.is_own = is_own
        self.is_used = False


class _Dial:
    """A connection that is on its way, and who waits for it."""

    __slots__ = ("failure", "first", "is_own", "line", "over", "timeout", "waiting")

    def __init__(self, timeout: float, first: bytes, is_own: bool) -> None:
        self.timeout = timeout
        self.first = first
        self.is_own = is_own
        self.waiting = 0
        self.over = Event()
        self.line: Line | None = None
        self.failure: Failure | None = None

    def fail(self, failure: Failure) -> None:
        """There will be none."""
        if not self.over.is_set():
            self.failure = failure
            self.over.set()


class MultiplexedPool:
    """Connections to one server that speaks HTTP/2, over TLS or with prior knowledge."""

    def __init__(
        self,
        dialer: Dialer,
        limits: Limits,
        keepalive: int,
        keepalive_timeout: float,
        tasks: Tasks,
        now: Callable[[], float] = SystemClock.monotonic,
    ) -> None:
        """`limits`: of response heads; `keepalive`: connections that may rest, for so many seconds."""
        self.rest = Rest(keepalive_timeout)
        self.closed = False
        self._dialer = dialer
        self._limits = limits
        self._keepalive = keepalive
        self._tasks = tasks
        self._now = now
        self._lines: list[Line] = []  # that take requests, the oldest first
        self._dials: list[_Dial] = []
        self._usual = _USUAL

    # -- for requests

    def acquire(self, now: float, careful: bool = False) -> StreamConnection | None:
        """A stream on a connection that stands; None: there is none with room.

        Also for what must not be sent twice: a server that ends a connection says what it did not act on.
        """
        for line in self._lines:
            stream = line.multiplex.open()
            if stream is not None:
                return StreamConnection(line, stream, self._now)
        return None

    def dial(self, timeout: float, first: bytes = b"") -> StreamConnection:
        """A stream in at most so many seconds, on a connection that others share. Raises Failure.

        With `first`, which the server hears before all else, the connection is for this one stream.
        """
        if first:
            return self._own(timeout, first)
        until = self._now() + timeout if timeout else 0.0
        while True:
            connection = self.acquire(0.0)
            if connection is not None:
                return connection
            left = until - self._now() if until else 0.0
            if until and left <= 0.0:
                raise self._too_late(timeout)
            dial = self._dial_with_room() or self._begin(left, b"", False)
            self._wait(dial, left, timeout)
            connection = self.acquire(0.0)
            if connection is not None:
                return connection
            if dial.failure is not None and not (until and dial.failure.reason in _LATE):
                # Each its own: an exception keeps the trace of who raised it.
                raise Failure(dial.failure.reason, dial.failure.detail, repeatable=True)

    def release(self, connection: StreamConnection) -> None:
        """The exchange ended cleanly: so does the stream."""
        connection.channel.close()

    def connect(self, timeout: float) -> Channel:
        """TCP alone. Raises Failure."""
        return self._dialer.connect(timeout)

    def open(self, timeout: float, first: bytes = b"") -> Channel:
        """A connection of its own on which only `first` was said, with TLS if need be. Raises Failure."""
        channel = self._dialer.open(timeout, first)
        try:
            if first:
                say(channel, b"", timeout)
        except BaseException:
            channel.close()
            raise
        return channel

    def ask(self, timeout: float, first: bytes = b"") -> Channel:
        """A stream on a connection of its own, which ends with it. Raises Failure."""
        return self._own(timeout, first).channel

    # -- for the roster

    def resize(self, keepalive: int, keepalive_timeout: float) -> None:
        """Keep so many idle connections from now on, for so many seconds."""
        self._keepalive = keepalive
        if keepalive_timeout != self.rest.longest:
            self.rest.allow(keepalive_timeout)
            for line in self._lines:
                line.multiplex.allow_idle(keepalive_timeout)
        for line in list(self._lines):
            self._changed(line)

    def refresh(self) -> None:
        """Take no more requests on connections that stand; they end with those that are on their way."""
        for line in self._lines:
            line.multiplex.leave()
        self._lines.clear()

    def close(self) -> None:
        """End what is idle; streams go on, and their connections end with them."""
        self.closed = True
        self.refresh()

    # -- connections

    def _too_late(self, timeout: float) -> Failure:
        return Failure("connection_timeout", f"no stream within {timeout:g} s", repeatable=True)

    def _dial_with_room(self) -> _Dial | None:
        for dial in self._dials:
            if dial.waiting < self._usual:
                return dial
        return None

    def _begin(self, timeout: float, first: bytes, is_own: bool) -> _Dial:
        dial = _Dial(timeout, first, is_own)
        if not is_own:
            self._dials.append(dial)
        # A task: who began it may leave before the others.
        self._tasks.spawn("http2 connection", self._run, dial)
        return dial

    def _wait(self, dial: _Dial, left: float, timeout: float) -> None:
        dial.waiting += 1
        try:
            if not dial.over.wait(left or None):
                raise self._too_late(timeout)
        finally:
            dial.waiting -= 1

    def _own(self, timeout: float, first: bytes) -> StreamConnection:
        dial = self._begin(timeout, first, True)
        try:
            self._wait(dial, timeout, timeout)
            if dial.failure is not None:
                raise dial.failure
            assert dial.line is not None
            stream = dial.line.multiplex.open()
            if stream is None:
                raise Failure("connection_terminated", "at its start", repeatable=True)
            return StreamConnection(dial.line, stream, self._now)
        except BaseException:
            self._leave_unused(dial)
            raise

    def _leave_unused(self, dial: _Dial) -> None:
        """Nobody wants it any more: it ends as soon as it is there."""
        dial.fail(Failure("connection_terminated", "given up", repeatable=True))
        if dial.line is not None:
            dial.line.multiplex.leave()

    def _run(self, dial: _Dial) -> None:
        """A connection from its dial to its end."""
        try:
            channel, multiplex, until = self._opened(dial)
        except Failure as failure:
            dial.fail(failure)
            return
        finally:
            if dial.line is None:
                self._forget(dial)
        try:
            multiplex.run()
            is_late = bool(until) and self._now() >= until - _SLACK
            dial.fail(self._too_late(dial.timeout) if is_late else _never_stood(multiplex))
        finally:
            multiplex.watch(None)
            channel.close()
            self._forget(dial)

    def _opened(self, dial: _Dial) -> tuple[Channel, Multiplex, float]:
        """(channel, what runs on it, when its SETTINGS are due; 0.0: at any time). Raises Failure."""
        until = self._now() + dial.timeout if dial.timeout else 0.0
        channel = self._dialer.open(dial.timeout, dial.first)
        try:
            left = max(until - self._now(), _LEAST) if until else 0.0
            if dial.first:
                say(channel, b"", left)
            notice_death(channel, _DEAD)
            multiplex = Multiplex(
                channel,
                self._limits,
                header_timeout=left,
                write_timeout=_DEAD,
                idle_timeout=self.rest.longest,
                secure=self._dialer.secure is not None,
            )
            line = dial.line = Line(multiplex, dial.is_own)
            multiplex.watch(partial(self._stands, dial, line))
            return channel, multiplex, until
        except BaseException:
            channel.close()
            raise

    def _stands(self, dial: _Dial, line: Line) -> None:
        """News of a connection whose SETTINGS have not been seen yet."""
        multiplex = line.multiplex
        if not multiplex.is_ready:
            return
        multiplex.watch(partial(self._changed, line))
        if dial.over.is_set() or (self.closed and not dial.waiting):
            multiplex.leave()
            return
        if not line.is_own:
            self._usual = max(1, multiplex.peer_streams)
            self._lines.append(line)
            if not multiplex.peer_streams:
                text = "the server takes no requests (SETTINGS_MAX_CONCURRENT_STREAMS is 0)"
                dial.fail(Failure("connection_failed", text, repeatable=True))
        self._dials = [one for one in self._dials if one is not dial]
        dial.over.set()

    def _changed(self, line: Line) -> None:
        """A stream has ended, or the server has said something about the connection."""
        multiplex = line.multiplex
        if multiplex.is_leaving or multiplex.is_over:
            if line in self._lines:
                self._lines.remove(line)
        elif not multiplex.streams and line.is_used and (self.closed or line.is_own or self._has_enough()):
            multiplex.leave()

    def _has_enough(self) -> bool:
        """Whether more connections rest than may."""
        if len(self._lines) <= self._keepalive:
            return False
        return sum(not line.multiplex.streams for line in self._lines) > self._keepalive

    def _forget(self, dial: _Dial) -> None:
        self._dials = [one for one in self._dials if one is not dial]
        if dial.line in self._lines:
            self._lines.remove(dial.line)
        dial.fail(Failure("connection_terminated", "at its start", repeatable=True))


def _never_stood(multiplex: Multiplex) -> Failure:
    """Why a connection ended before the server's SETTINGS came, if it did."""
    if multiplex.refused:
        return Failure("not_http2", f"the server said something else ({multiplex.refused})", repeatable=True)
    return Failure("connection_terminated", "at its start", repeatable=True)
