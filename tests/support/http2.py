"""An HTTP/2 client made of raw frames, which may break every rule, and a connection that the test serves.

Header compression is that of the package `hpack`, so nothing here shares code with what is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import gevent
import hpack

from sidecar.net.channel import Channel
from sidecar.net.h2 import PREFACE, Multiplex, Stream
from sidecar.wire.head import Limits, RequestHead
from tests.support.streams import TIMEOUT, Peer, outcome, tcp_pair

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 32

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

#: Settings by number.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, WINDOW, FRAME_SIZE, LIST_SIZE, CONNECT = 1, 2, 3, 4, 5, 6, 8

Fields = Sequence[tuple[str, str]]
GET: Final[Fields] = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test"))
POST: Final[Fields] = ((":method", "POST"), *GET[1:])


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """The code of RST_STREAM, the increment of WINDOW_UPDATE."""
        return int.from_bytes(self.payload[:4], "big")


class Answer(NamedTuple):
    """What came on one stream until its end."""

    heads: list[list[tuple[str, str]]]  # interim ones, then the final one
    body: bytes
    trailers: list[tuple[str, str]]
    code: int  # that it was reset with; -1: it ended well

    @property
    def status(self) -> int:
        """Of the final head; 0: there was none."""
        return int(self.heads[-1][0][1]) if self.heads else 0

    @property
    def fields(self) -> dict[str, str]:
        """Of the final head, by name."""
        return dict(self.heads[-1])


class Wire(Protocol):
    """What carries bytes."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", size: int = -1) -> bytes:
    """The bytes of a frame; `size`: what its head says, if not the truth."""
    length = len(payload) if size < 0 else size
    return struct.pack("!I", length)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, payload=b"".join(struct.pack("!HI", *pair) for pair in pairs))


def number(kind: int, stream: int, value: int) -> bytes:
    """A RST_STREAM or WINDOW_UPDATE frame."""
    return frame(kind, 0, stream, struct.pack("!I", value))


class Client:
    """A client on a connection. What it sends is up to the test; it answers nothing by itself."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.seen: list[Frame] = []  # all that came
        self._aside: dict[int, list[tuple[Frame, list[tuple[str, str]]]]] = {}  # what `answer` met meanwhile

    def greet(self, *pairs: tuple[int, int]) -> None:
        """The preface, and SETTINGS."""
        self.wire.send(PREFACE + settings(*pairs))

    def send(self, *frames: bytes) -> None:
        """Send bytes."""
        self.wire.send(b"".join(frames))

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        """A compressed field block."""
        return bytes(self.encoder.encode(list(fields)))

    def headers(self, stream: int, fields: Iterable[tuple[str, str]] = GET, ends: bool = True) -> bytes:
        """A HEADERS frame."""
        return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, self.block(fields))

    def ask(self, stream: int, fields: Iterable[tuple[str, str]] = GET, body: bytes | None = None) -> None:
        """Send a request; a body is one DATA frame."""
        head = self.headers(stream, fields, body is None)
        self.send(head if body is None else head + frame(DATA, END_STREAM, stream, body))

    def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        try:
            head = self.wire.read(9)
            if len(head) < 9:
                return None
            size = int.from_bytes(head[:3], "big")
            kind, flags, stream = struct.unpack("!BBI", head[3:])
            payload = self.wire.read(size)
        except ConnectionResetError:
            return None
        self.seen.append(Frame(kind, flags, stream, payload))
        return self.seen[-1]

    def until(self, kind: int, stream: int = -1, flags: int = 0) -> Frame:
        """The next frame of this kind, and of this stream and with these flags if they are given."""
        while one := self.next():
            if one.kind == kind and stream in (-1, one.stream) and one.flags & flags == flags:
                return one
        raise AssertionError(f"ended without a frame of kind {kind} on stream {stream}: {self.seen[-5:]}")

    def ended_with(self) -> tuple[int, str]:
        """The code and the rule of the GOAWAY that ends the connection; (-1, ""): it ended without one."""
        told = (-1, "")
        while one := self.next():
            if one.kind == GOAWAY:
                told = (int.from_bytes(one.payload[4:8], "big"), one.payload[8:].decode())
        return told

    def reset_with(self, stream: int) -> int:
        """The code of the RST_STREAM for this stream, which may have come already."""
        for one in self.seen:
            if one.kind == RST_STREAM and one.stream == stream:
                return one.number
        return self.until(RST_STREAM, stream).number

    def is_alive(self) -> bool:
        """Whether a PING is answered, now that everything before it has been taken."""
        self.send(frame(PING, payload=b"areyouup"))
        while one := self.next():
            if one.kind == PING and one.flags & ACK and one.payload == b"areyouup":
                return True
        return False

    def answer(self, stream: int, opens: bool = False) -> Answer:
        """What comes on this stream until its end. `opens`: widen the windows as bytes come."""
        heads: list[list[tuple[str, str]]] = []
        trailers: list[tuple[str, str]] = []
        body = b""
        for one, fields in self._of(stream):
            if one.kind == RST_STREAM:
                return Answer(heads, body, trailers, one.number)
            if one.kind == DATA:
                body += one.payload
                if opens and one.payload:
                    size = len(one.payload)
                    self.send(number(WINDOW_UPDATE, 0, size), number(WINDOW_UPDATE, stream, size))
            elif one.kind == HEADERS:
                if heads and heads[-1][0][1] >= "200":
                    trailers = fields
                else:
                    heads.append(fields)
            if one.kind in (DATA, HEADERS) and one.flags & END_STREAM:
                return Answer(heads, body, trailers, -1)
        raise AssertionError(f"the connection ended before stream {stream}: {self.seen[-5:]}")

    def _of(self, stream: int) -> Iterator[tuple[Frame, list[tuple[str, str]]]]:
        """The frames of a stream with their fields. Those of others, which come in any order, wait aside."""
        yield from self._aside.pop(stream, ())
        while one := self.next():
            fields = self._fields(one) if one.kind == HEADERS else []
            if one.stream == stream:
                yield one, fields
            elif one.stream:
                self._aside.setdefault(one.stream, []).append((one, fields))

    def _fields(self, first: Frame) -> list[tuple[str, str]]:
        block, one = first.payload, first
        while not one.flags & END_HEADERS:
            following = self.next()
            assert following is not None and following.kind == CONTINUATION
            block, one = block + following.payload, following
        return [(str(name), str(value)) for name, value in self.decoder.decode(block)]


HI: Final = b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi"


def greet(stream: Stream) -> None:
    """Answer "hi" to whatever is asked, and look at no body."""
    stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
    stream.send(HI, TIMEOUT)
    stream.finish()


def wait_for_body(stream: Stream) -> None:
    """Answer "hi" when the request is complete."""
    stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
    while stream.read(65536, TIMEOUT):
        pass
    stream.send(HI, TIMEOUT)
    stream.finish()


class Served(Client):
    """A connection to a Multiplex of this process, whose streams `serve` serves."""

    def __init__(
        self,
        serve: Callable[[Stream], None] = greet,
        *,
        buffers: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        ours, theirs = tcp_pair(**(buffers or {}))
        self.peer = Peer(theirs)
        super().__init__(self.peer)
        self.channel = Channel(ours.detach(), True)
        limits = options.pop("limits", Limits())
        self.failed: list[Exception] = []
        self.multiplex = Multiplex(self.channel, limits, self._guard(serve), **options)
        self.reader = gevent.spawn(self._run)

    def _guard(self, serve: Callable[[Stream], None]) -> Callable[[Stream], None]:
        """Errors of a handler belong to the test, not to the hub's report."""

        def guarded(stream: Stream) -> None:
            try:
                serve(stream)
            except Exception as error:  # noqa: BLE001 - whatever it is
                self.failed.append(error)

        return guarded

    def _run(self) -> None:
        try:
            self.multiplex.run()
        finally:
            self.channel.close()

    @property
    def refused(self) -> str:
        """The rule that ended the connection, once it is over."""
        outcome(self.reader)
        return self.multiplex.refused

    def close(self) -> None:
        """End both sides."""
        self.peer.close()
        self.multiplex.kill()
        self.reader.kill(timeout=TIMEOUT)

    def __enter__(self) -> Served:
        self.greet()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
