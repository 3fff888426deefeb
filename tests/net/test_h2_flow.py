"""Flow control of HTTP/2 towards clients: windows both ways, and nobody who waits stalls another."""

from __future__ import annotations

import struct

import gevent
import pytest

from sidecar.errors import Broken
from sidecar.net.flow import Flow, pump
from sidecar.net.h2 import Stream
from sidecar.wire.head import CHUNKED, CLOSE, Limits, RequestHead
from tests.support import http2
from tests.support.http2 import (
    DATA,
    END_STREAM,
    HEADERS,
    POST,
    WINDOW_UPDATE,
    Served,
    frame,
    number,
    settings,
)
from tests.support.streams import TIMEOUT, ScriptedPeer, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

HEAD = b"HTTP/1.1 200 \r\n\r\n"
WIDE = 262144


def read_head(stream: Stream) -> RequestHead:
    head = RequestHead(Limits())
    stream.read_head(head, TIMEOUT, TIMEOUT)
    return head


def download(stream: Stream) -> None:
    """Send as many bytes as the path says."""
    size = int(read_head(stream).path[1:])
    stream.hold(HEAD)
    stream.send(bytes(size), TIMEOUT)
    stream.finish()


def get(size: int) -> list[tuple[str, str]]:
    return [(":method", "GET"), (":scheme", "http"), (":path", f"/{size}"), (":authority", "test")]


def received(client: Served, stream: int) -> int:
    """Bytes of DATA that came for a stream so far."""
    return sum(len(one.payload) for one in client.seen if one.kind == DATA and one.stream == stream)


# -- what we send


@pytest.mark.parametrize("window", [0, 1, 10, 16384, 65535])
def test_no_more_is_sent_than_a_stream_may(window: int) -> None:
    with Served(download) as client:
        client.send(settings((http2.WINDOW, window)))
        client.ask(1, get(100_000))
        client.until(HEADERS, 1)
        client.is_alive()
        settle()
        client.is_alive()
        assert received(client, 1) == window


def test_no_more_is_sent_than_the_connection_may() -> None:
    with Served(download) as client:
        client.send(settings((http2.WINDOW, 1_000_000)))
        client.ask(1, get(100_000))
        client.ask(3, get(100_000))
        while received(client, 1) + received(client, 3) < 65535:
            client.next()
        client.is_alive()
        assert received(client, 1) + received(client, 3) == 65535
        client.send(number(WINDOW_UPDATE, 0, 200_000))
        while received(client, 1) + received(client, 3) < 200_000:
            client.next()


def test_a_body_passes_a_tiny_window() -> None:
    with Served(download) as client:
        client.send(settings((http2.WINDOW, 300)))
        client.ask(1, get(20_000))
        answer = client.answer(1, opens=True)
    assert (len(answer.body), answer.code) == (20_000, -1)


def test_a_window_that_shrinks_below_nothing_is_waited_for() -> None:
    """RFC 9113 section 6.9.2: what was sent counts, so the window may be negative."""
    with Served(download) as client:
        client.ask(1, get(100_000))
        while received(client, 1) < 65535:
            client.next()
        client.send(settings((http2.WINDOW, 100)), number(WINDOW_UPDATE, 0, 1_000_000))
        client.send(number(WINDOW_UPDATE, 1, 65435 + 5))
        while received(client, 1) < 65540:
            client.next()
        client.is_alive()
        assert received(client, 1) == 65540


def test_settings_open_the_windows_of_streams_that_wait() -> None:
    with Served(download) as client:
        client.send(settings((http2.WINDOW, 0)))
        client.ask(1, get(5))
        client.until(HEADERS, 1)
        client.send(settings((http2.WINDOW, 5)))
        assert client.until(DATA, 1).payload == bytes(5)


def test_a_stream_that_nobody_reads_stalls_no_other() -> None:
    with Served(download) as client:
        client.send(number(WINDOW_UPDATE, 0, 10_000_000))
        client.ask(1, get(1_000_000))
        for stream in range(3, 43, 2):
            client.ask(stream, get(50_000))
            assert len(client.answer(stream).body) == 50_000
        assert received(client, 1) == 65535


def test_streams_share_a_connection_that_is_slow() -> None:
    """Two large bodies and a client that reads little: both come on."""
    with Served(download, buffers={"send_buffer": 4096, "receive_buffer": 4096}) as client:
        client.send(settings((http2.WINDOW, 0x7FFFFFFF)), number(WINDOW_UPDATE, 0, 0x7FFF0000))
        for stream in (1, 3, 5):
            client.ask(stream, get(4_000_000))
        seen = 0
        while seen < 3_000_000:
            one = client.next()
            assert one is not None
            seen += len(one.payload)
        shares = [received(client, stream) for stream in (1, 3, 5)]
    assert min(shares) > 700_000


def test_heads_pass_a_window_that_is_closed() -> None:
    """The window is for DATA alone, also when the connection was full meanwhile."""
    with Served(download, buffers={"send_buffer": 4096, "receive_buffer": 4096}) as client:
        client.send(number(WINDOW_UPDATE, 0, 10_000_000), settings((http2.WINDOW, 10_000_000)))
        client.ask(1, get(3_000_000))
        client.until(HEADERS, 1)
        settle()
        client.send(settings((http2.WINDOW, 0)))
        client.ask(3, get(10))
        assert client.until(HEADERS, 3).flags & END_STREAM == 0


def test_whoever_opens_no_window_gets_no_more_time_than_others() -> None:
    ended = []

    def impatient(stream: Stream) -> None:
        read_head(stream)
        try:
            stream.send(HEAD + bytes(100_000), 0.02)
        except Broken as broken:
            ended.append((broken.side, broken.what))
            stream.abort()

    with Served(impatient) as client:
        client.ask(1)
        assert client.reset_with(1) == http2.INTERNAL_ERROR
        assert client.is_alive()
    assert ended == [("sink", "timeout")]


# -- what we receive


class Upload:
    """A handler that reads when it is told to."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.read = 0
        self.may_read = gevent.event.Event()

    def __call__(self, stream: Stream) -> None:
        read_head(stream)
        self.streams.append(stream)
        self.may_read.wait()
        while data := stream.read(65536, TIMEOUT):
            self.read += len(data)
        stream.send(HEAD, TIMEOUT)
        stream.finish()


def test_no_more_is_kept_for_a_stream_than_its_window() -> None:
    upload = Upload()
    with Served(upload, window=20_000) as client:
        client.send(client.headers(1, POST, False), frame(DATA, 0, 1, bytes(16384)))
        assert client.is_alive()
        client.send(frame(DATA, 0, 1, bytes(20_000 - 16384)))
        assert client.is_alive()
        client.send(frame(DATA, 0, 1, b"x"))
        assert client.reset_with(1) == http2.FLOW_CONTROL_ERROR
        assert client.is_alive()
        upload.may_read.set()


def test_a_window_opens_when_somebody_takes_what_came() -> None:
    upload = Upload()
    upload.may_read.set()
    with Served(upload, window=20_000) as client:
        client.send(client.headers(1, POST, False), frame(DATA, 0, 1, bytes(9_999)))
        assert client.is_alive()
        client.send(frame(DATA, 0, 1, b"x"))
        assert client.until(WINDOW_UPDATE, 1).number == WIDE - 10_000
        client.send(frame(DATA, END_STREAM, 1))
        assert client.answer(1).status == 200
    assert upload.read == 10_000


def test_padding_costs_window_and_gives_it_back() -> None:
    upload = Upload()
    with Served(upload, window=600) as client:
        client.send(client.headers(1, POST, False))
        for _ in range(4):
            client.send(frame(DATA, http2.PADDED, 1, b"\xff" + b"x" + bytes(255)))
        opened = client.until(WINDOW_UPDATE, 1)
        assert opened.number >= 512
        upload.may_read.set()


def test_the_connections_window_never_closes() -> None:
    """Streams have windows of their own, and what nobody takes must not stop the others."""
    upload = Upload()
    upload.may_read.set()
    with Served(upload) as client:
        client.send(client.headers(1, POST, False))
        sent, window = 0, 65535
        updates = 0
        while sent < 9_000_000:
            while window >= 16384:
                client.send(frame(DATA, 0, 1, bytes(16384)))
                window -= 16384
                sent += 16384
            one = client.until(WINDOW_UPDATE)
            if one.stream:
                window += one.number
            elif sent:
                updates += 1
        assert updates >= 2
        client.send(frame(DATA, END_STREAM, 1))
        assert client.answer(1).status == 200
    assert upload.read == sent


def test_a_body_flows_both_ways_through_tiny_windows() -> None:
    """An echo through flows: neither direction waits for the end of the other."""

    def echo(stream: Stream) -> None:
        read_head(stream)
        stream.hold(HEAD)
        flow = Flow(stream, stream, CHUNKED, 0, CLOSE, TIMEOUT, TIMEOUT)
        pump(flow)

    with Served(echo, window=500) as client:
        client.send(settings((http2.WINDOW, 100)))
        client.send(client.headers(1, POST, False))
        body = b""
        for at in range(40):
            client.send(frame(DATA, 0, 1, struct.pack("!I", at) * 25))
            while len(body) < 100 * (at + 1):
                one = client.until(DATA, 1)
                body += one.payload
                client.send(
                    number(WINDOW_UPDATE, 1, len(one.payload)), number(WINDOW_UPDATE, 0, len(one.payload))
                )
        client.send(frame(DATA, END_STREAM, 1))
        assert client.answer(1).code == -1
    assert body == b"".join(struct.pack("!I", at) * 25 for at in range(40))


def test_a_flow_ends_a_stream_with_its_trailers() -> None:
    def forward(stream: Stream) -> None:
        read_head(stream)
        with ScriptedPeer(readable=True) as app:
            app.send_all(b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")
            stream.hold(HEAD)
            pump(Flow(app.channel, stream, CHUNKED, 0, CHUNKED, TIMEOUT, TIMEOUT))

    with Served(forward) as client:
        client.ask(1)
        answer = client.answer(1)
    assert (answer.body, answer.trailers, answer.code) == (b"hello", [("x-sum", "7")], -1)


def test_a_requests_trailers_reach_whoever_frames_anew() -> None:
    sent: list[bytes] = []

    def forward(stream: Stream) -> None:
        read_head(stream)
        with ScriptedPeer(tcp=True) as app:
            pump(Flow(stream, app.channel, CHUNKED, 0, CHUNKED, TIMEOUT, TIMEOUT))
            app.channel.close()
            sent.append(app.read_all())
        stream.send(HEAD, TIMEOUT)
        stream.finish()

    with Served(forward) as client:
        trailers = [("x-sum", "7"), ("content-length", "5"), ("authorization", "x")]
        client.send(client.headers(1, POST, False), frame(DATA, 0, 1, b"hello"), client.headers(1, trailers))
        assert client.answer(1).status == 200
    assert sent == [b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"]


def test_the_end_of_a_body_costs_no_frame_of_its_own() -> None:
    with Served(download) as client:
        client.ask(1, get(10))
        assert client.until(DATA, 1).flags & END_STREAM
        client.ask(3, get(0))
        assert client.until(HEADERS, 3).flags & END_STREAM
        assert not [one for one in client.seen if one.kind == DATA and not one.payload]


def test_streams_that_end_while_the_connection_is_full_are_forgotten() -> None:
    with Served(download, buffers={"send_buffer": 4096, "receive_buffer": 4096}) as client:
        client.send(settings((http2.WINDOW, 10_000_000)), number(WINDOW_UPDATE, 0, 100_000_000))
        for stream in range(1, 21, 2):
            client.ask(stream, get(3_000_000))
        client.until(HEADERS, 1)
        settle()
        client.send(*[number(http2.RST_STREAM, stream, 8) for stream in range(1, 21, 2)])
        wait_until(lambda: not client.multiplex.streams)
        assert client.is_alive()
