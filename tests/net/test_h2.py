"""HTTP/2 connections towards clients: what RFC 9113 demands of each frame, with the error code it names."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import gevent
import pytest

from sidecar.net.channel import Channel
from sidecar.net.h2 import PREFACE, REFUSALS, Multiplex, Stream
from sidecar.wire.head import Limits, RequestHead
from tests.support import http2
from tests.support.http2 import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GET,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    POST,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Served,
    frame,
    number,
    settings,
)
from tests.support.streams import TIMEOUT, Peer, outcome, tcp_pair, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def client() -> Iterator[Served]:
    with Served() as one:
        yield one


def wait_for_body(stream: Stream) -> None:
    """A handler that answers when the request is complete."""
    stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
    while stream.read(65536, TIMEOUT):
        pass
    stream.send(http2.HI, TIMEOUT)
    stream.finish()


# -- the beginning


def test_the_first_frame_is_settings_with_the_limits() -> None:
    with Served(max_streams=7, limits=Limits(2000), window=100_000) as client:
        first = client.next()
    assert first is not None and (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    pairs = dict(struct.iter_unpack("!HI", first.payload))
    assert pairs == {
        http2.MAX_STREAMS: 7,
        http2.CONNECT: 1,
        http2.WINDOW: 100_000,
        http2.LIST_SIZE: 2000,
    }


def test_settings_are_acknowledged(client: Served) -> None:
    client.send(settings((http2.WINDOW, 70_000), (0x99, 5)))
    for _ in range(2):  # those of the greeting, too
        assert client.until(SETTINGS, flags=ACK).payload == b""


def test_a_ping_comes_back_with_what_it_said(client: Served) -> None:
    client.send(frame(PING, payload=b"12345678"))
    assert client.until(PING) == (PING, ACK, 0, b"12345678")


@pytest.mark.parametrize("piece", [1, 2, 9, 10])
def test_it_does_not_matter_how_bytes_are_cut(piece: int) -> None:
    client = Served(wait_for_body)
    try:
        body = frame(DATA, PADDED, 1, b"\3one\0\0\0") + frame(DATA, END_STREAM, 1, b"two")
        data = PREFACE + settings() + client.headers(1, POST, False) + body
        client.peer.send_pieces(data, piece)
        assert client.answer(1).body == b"hi"
    finally:
        client.close()


def test_all_can_come_at_once(client: Served) -> None:
    client.send(*[client.headers(stream) for stream in range(1, 201, 2)])
    for stream in range(1, 201, 2):
        client.until(HEADERS, stream)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", PREFACE[:-1] + b"x", b"PRI * HTTP/3"]
)
def test_another_preface_is_refused(first: bytes) -> None:
    client = Served()
    client.send(first)
    assert client.ended_with() == (PROTOCOL_ERROR, "bad_preface")
    client.close()


def test_the_preface_is_followed_by_settings() -> None:
    client = Served()
    client.send(PREFACE, frame(PING, payload=b"12345678"))
    assert client.ended_with() == (PROTOCOL_ERROR, "missing_settings")
    client.close()


def test_an_acknowledgement_is_no_beginning() -> None:
    client = Served()
    client.send(PREFACE, frame(SETTINGS, ACK))
    assert client.ended_with() == (PROTOCOL_ERROR, "missing_settings")
    client.close()


# -- what ends the connection

_OPEN = (http2.Client(Peer.__new__(Peer))).headers  # a fresh table: the first block of a connection


def _head(stream: int = 1, ends: bool = False) -> bytes:
    return http2.Client(Peer.__new__(Peer)).headers(stream, POST, ends)


def _block() -> bytes:
    return http2.Client(Peer.__new__(Peer)).block(POST)


CONNECTION_ERRORS = {
    # frames in general (4.1, 4.2)
    "a frame that is larger than we take": (
        frame(DATA, 0, 1, size=16385),
        FRAME_SIZE_ERROR,
        "frame_too_large",
    ),
    "a large frame that nobody knows": (frame(0x77, 0, 0, size=16385), FRAME_SIZE_ERROR, "frame_too_large"),
    # DATA (6.1)
    "DATA on no stream": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR, "bad_stream_id"),
    "DATA on a stream that was never there": (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR, "bad_stream_id"),
    "DATA on a stream of ours": (frame(DATA, 0, 2, b"x"), PROTOCOL_ERROR, "bad_stream_id"),
    "padding that is all of the DATA": (
        _head() + frame(DATA, PADDED, 1, b"\1"),
        PROTOCOL_ERROR,
        "bad_padding",
    ),
    "padding that is more than the DATA": (
        _head() + frame(DATA, PADDED, 1, b"\x09abc"),
        PROTOCOL_ERROR,
        "bad_padding",
    ),
    "padded DATA without a length": (
        _head() + frame(DATA, PADDED, 1),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    # HEADERS (6.2, 5.1.1)
    "HEADERS on no stream": (frame(HEADERS, END_HEADERS, 0, _block()), PROTOCOL_ERROR, "bad_stream_id"),
    "HEADERS with an even number": (_head(2), PROTOCOL_ERROR, "bad_stream_id"),
    "a number that is lower than before": (_head(5) + _head(3), STREAM_CLOSED, "headers_after_end"),
    "padding that is more than the HEADERS": (
        frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff" + _block()),
        PROTOCOL_ERROR,
        "bad_padding",
    ),
    "padded HEADERS without a length": (
        frame(HEADERS, PADDED | END_HEADERS, 1),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    "HEADERS too short for their priority": (
        frame(HEADERS, WITH_PRIORITY | END_HEADERS, 1, b"\0\0\0\0"),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    # field blocks (4.3, 6.10)
    "another frame within a field block": (
        frame(HEADERS, 0, 1, _block()) + frame(PING, payload=b"12345678"),
        PROTOCOL_ERROR,
        "missing_continuation",
    ),
    "a frame that nobody knows within a field block": (
        frame(HEADERS, 0, 1, _block()) + frame(0x77),
        PROTOCOL_ERROR,
        "missing_continuation",
    ),
    "another stream's CONTINUATION": (
        frame(HEADERS, 0, 1, _block()) + frame(CONTINUATION, END_HEADERS, 3),
        PROTOCOL_ERROR,
        "missing_continuation",
    ),
    "other HEADERS within a field block": (
        frame(HEADERS, 0, 1, _block()) + frame(HEADERS, END_HEADERS, 3, _block()),
        PROTOCOL_ERROR,
        "missing_continuation",
    ),
    "CONTINUATION of nothing": (
        frame(CONTINUATION, END_HEADERS, 1, _block()),
        PROTOCOL_ERROR,
        "unexpected_continuation",
    ),
    "CONTINUATION behind the end": (
        _head() + frame(CONTINUATION, END_HEADERS, 1, b""),
        PROTOCOL_ERROR,
        "unexpected_continuation",
    ),
    "a field block that cannot be read": (
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
        COMPRESSION_ERROR,
        "hpack_integer_too_large",
    ),
    "an index that is not in the table": (
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xc6"),
        COMPRESSION_ERROR,
        "hpack_index",
    ),
    # PRIORITY (6.3)
    "PRIORITY on no stream": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR, "bad_stream_id"),
    "PRIORITY of another size": (
        _head() + frame(PRIORITY, 0, 1, bytes(4)),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    # RST_STREAM (6.4)
    "RST_STREAM on no stream": (number(RST_STREAM, 0, 8), PROTOCOL_ERROR, "bad_stream_id"),
    "RST_STREAM on a stream that was never there": (
        number(RST_STREAM, 1, 8),
        PROTOCOL_ERROR,
        "bad_stream_id",
    ),
    "RST_STREAM of another size": (
        _head() + frame(RST_STREAM, 0, 1, bytes(3)),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    # SETTINGS (6.5)
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR, "bad_stream_id"),
    "SETTINGS of a size that is no multiple of 6": (
        frame(SETTINGS, 0, 0, b"123"),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    "an acknowledgement that says something": (
        frame(SETTINGS, ACK, 0, bytes(6)),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    "ENABLE_PUSH above 1": (settings((http2.ENABLE_PUSH, 2)), PROTOCOL_ERROR, "bad_setting"),
    "INITIAL_WINDOW_SIZE above 2^31 - 1": (
        settings((http2.WINDOW, 1 << 31)),
        FLOW_CONTROL_ERROR,
        "bad_setting",
    ),
    "MAX_FRAME_SIZE below 2^14": (settings((http2.FRAME_SIZE, 16383)), PROTOCOL_ERROR, "bad_setting"),
    "MAX_FRAME_SIZE above 2^24 - 1": (settings((http2.FRAME_SIZE, 1 << 24)), PROTOCOL_ERROR, "bad_setting"),
    "ENABLE_CONNECT_PROTOCOL above 1": (settings((http2.CONNECT, 2)), PROTOCOL_ERROR, "bad_setting"),
    # PUSH_PROMISE (6.6, 8.4)
    "PUSH_PROMISE from a client": (
        _head() + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + _block()),
        PROTOCOL_ERROR,
        "unasked_push",
    ),
    # PING (6.7)
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR, "bad_stream_id"),
    "PING of another size": (frame(PING, 0, 0, bytes(6)), FRAME_SIZE_ERROR, "bad_frame_size"),
    # GOAWAY (6.8)
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR, "bad_stream_id"),
    "GOAWAY that is too short": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR, "bad_frame_size"),
    # WINDOW_UPDATE (6.9)
    "WINDOW_UPDATE by nothing": (number(WINDOW_UPDATE, 0, 0), PROTOCOL_ERROR, "empty_window_update"),
    "WINDOW_UPDATE of another size": (
        frame(WINDOW_UPDATE, 0, 0, bytes(3)),
        FRAME_SIZE_ERROR,
        "bad_frame_size",
    ),
    "WINDOW_UPDATE on a stream that was never there": (
        number(WINDOW_UPDATE, 1, 1),
        PROTOCOL_ERROR,
        "bad_stream_id",
    ),
    "a connection's window above 2^31 - 1": (
        number(WINDOW_UPDATE, 0, 0x7FFFFFFF),
        FLOW_CONTROL_ERROR,
        "window_overflow",
    ),
}


@pytest.mark.parametrize(("data", "code", "rule"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS.keys())
def test_it_ends_the_connection(data: bytes, code: int, rule: str) -> None:
    counted = REFUSALS.get(rule, 0)
    with Served(wait_for_body) as client:
        client.send(data)
        assert client.ended_with() == (code, rule)
        assert client.refused == rule
        assert REFUSALS[rule] == counted + 1


def test_a_window_of_settings_overflows_a_streams() -> None:
    """A stream's window of its own and the one of SETTINGS count together (RFC 9113 section 6.9.2)."""
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), number(WINDOW_UPDATE, 1, 100_000))
        client.send(settings((http2.WINDOW, 0x7FFFFFFF)))
        assert client.ended_with() == (FLOW_CONTROL_ERROR, "window_overflow")


# -- what ends a stream

_TRAILERS = [("x-sum", "1")]


def _malformed_trailers(client: Served) -> bytes:
    return client.headers(1, POST, False) + client.headers(1, [(":path", "/"), *_TRAILERS])


STREAM_ERRORS = {
    "DATA behind the end": (lambda c: c.headers(1) + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    "HEADERS behind the end": (lambda c: c.headers(1) + c.headers(1, _TRAILERS), STREAM_CLOSED),
    "trailers that do not end the stream": (
        lambda c: c.headers(1, POST, False) + c.headers(1, _TRAILERS, False),
        PROTOCOL_ERROR,
    ),
    "trailers with a pseudo-field": (_malformed_trailers, PROTOCOL_ERROR),
    "WINDOW_UPDATE by nothing": (
        lambda c: c.headers(1, POST, False) + number(WINDOW_UPDATE, 1, 0),
        PROTOCOL_ERROR,
    ),
    "a window above 2^31 - 1": (
        lambda c: c.headers(1, POST, False) + number(WINDOW_UPDATE, 1, 0x7FFFFFFF),
        FLOW_CONTROL_ERROR,
    ),
    "more bytes than Content-Length": (
        lambda c: c.headers(1, [*POST, ("content-length", "1")], False) + frame(DATA, 0, 1, b"xx"),
        PROTOCOL_ERROR,
    ),
    "fewer bytes than Content-Length": (
        lambda c: c.headers(1, [*POST, ("content-length", "2")], False) + frame(DATA, END_STREAM, 1, b"x"),
        PROTOCOL_ERROR,
    ),
    "trailers before all of Content-Length": (
        lambda c: c.headers(1, [*POST, ("content-length", "2")], False) + c.headers(1, _TRAILERS),
        PROTOCOL_ERROR,
    ),
    "DATA on a stream that the client reset": (
        lambda c: c.headers(1, POST, False) + number(RST_STREAM, 1, 8) + frame(DATA, 0, 1, b"x"),
        STREAM_CLOSED,
    ),
}


def wait_for_ever(stream: Stream) -> None:
    """A handler that answers nothing until the stream is over."""
    stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
    while True:
        stream.read(1, TIMEOUT)
        wait_until(lambda: not stream.is_open or stream.peer_finished)
        if stream.peer_finished:
            return


@pytest.mark.parametrize(("make", "code"), STREAM_ERRORS.values(), ids=STREAM_ERRORS.keys())
def test_it_ends_the_stream_alone(make, code: int) -> None:  # type: ignore[no-untyped-def]
    with Served(wait_for_ever) as client:
        client.send(make(client))
        assert client.reset_with(1) == code
        assert client.is_alive()


def test_headers_on_a_stream_that_ended_end_the_connection(client: Served) -> None:
    client.ask(1)
    assert client.answer(1).status == 200
    client.ask(1)
    assert client.ended_with() == (STREAM_CLOSED, "headers_after_end")


def test_what_was_on_its_way_as_we_ended_a_stream_is_no_fault() -> None:
    """An answer before the end of the request: its body and trailers come and are forgotten."""
    with Served() as client:
        client.send(client.headers(1, POST, False))
        client.until(RST_STREAM, 1)
        client.send(*[frame(DATA, 0, 1, b"x") for _ in range(1500)], client.headers(1, _TRAILERS))
        client.send(number(WINDOW_UPDATE, 1, 1000), number(RST_STREAM, 1, 8))
        assert client.is_alive()
        client.ask(3)
        assert client.answer(3).status == 200


def test_a_request_that_ended_is_answered_without_a_reset(client: Served) -> None:
    client.ask(1)
    assert client.answer(1) == ([[(":status", "200"), ("content-length", "2")]], b"hi", [], -1)
    client.is_alive()
    assert not [one for one in client.seen if one.kind == RST_STREAM]


def test_an_early_answer_tells_that_the_rest_is_not_wanted(client: Served) -> None:
    client.send(client.headers(1, POST, False))
    assert client.answer(1).body == b"hi"
    assert client.reset_with(1) == NO_ERROR


# -- what is ignored

IGNORED = {
    "frames that nobody knows": frame(0x77, 255, 0, b"abc") + frame(0x77, 255, 1, b"abc"),
    "settings that nobody knows": settings((0x77, 1), (0xFFFF, 0xFFFFFFFF)),
    "flags that nobody knows": frame(PING, 0xFE, 0, b"12345678"),
    "the reserved bit": number(WINDOW_UPDATE, 0x80000000, 0x80000000 | 1000),
    "a priority": frame(PRIORITY, 0, 1, bytes(5)),
    "a priority of a stream that was never there": frame(PRIORITY, 0, 99, bytes(5)),
    "a stream that depends on itself": frame(PRIORITY, 0, 1, struct.pack("!IB", 1, 9)),
    "PRIORITY_UPDATE of RFC 9218": frame(0x10, 0, 0, struct.pack("!I", 1) + b"u=0, i"),
    "an unasked answer to a PING": frame(PING, ACK, 0, b"12345678"),
    "an acknowledgement of SETTINGS": frame(SETTINGS, ACK),
    "pushes that are allowed": settings((http2.ENABLE_PUSH, 1)),
    "GOAWAY": frame(GOAWAY, 0, 0, bytes(8) + b"why"),
}


@pytest.mark.parametrize("data", IGNORED.values(), ids=IGNORED.keys())
def test_it_disturbs_nobody(data: bytes) -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), data, frame(DATA, END_STREAM, 1, b"x"))
        assert client.answer(1).body == b"hi"


def test_headers_with_priority_and_padding_are_read(client: Served) -> None:
    payload = b"\5" + struct.pack("!IB", 0x80000001, 200) + client.block(GET) + bytes(5)
    client.send(frame(HEADERS, PADDED | WITH_PRIORITY | END_HEADERS | END_STREAM, 1, payload))
    assert client.answer(1).status == 200


def test_a_field_block_in_many_frames_is_read(client: Served) -> None:
    block = client.block([*GET, ("x-long", "a" * 100)])
    pieces = [block[at : at + 10] for at in range(0, len(block), 10)]
    client.send(frame(HEADERS, END_STREAM, 1, pieces[0]))
    client.send(*[frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:]])
    client.send(frame(CONTINUATION, END_HEADERS, 1))
    assert client.answer(1).status == 200


def test_the_tables_stay_the_same_whoever_wants_the_block() -> None:
    """What a refused stream said is known to the next."""
    with Served(wait_for_body, max_streams=1) as client:
        client.send(client.headers(1, POST, False))
        client.send(client.headers(3, [*GET, ("x-kept", "yes")]))
        assert client.reset_with(3) == REFUSED_STREAM
        client.send(frame(DATA, END_STREAM, 1))
        assert client.answer(1).status == 200
        client.ask(5, [*GET, ("x-kept", "yes")])
        assert client.answer(5).status == 200


# -- the end


def test_leave_ends_a_connection_that_serves_nothing(client: Served) -> None:
    """GOAWAY for nothing yet, a PING, and when its answer shows that the client knows, the last GOAWAY."""
    client.ask(1)
    client.answer(1)
    client.multiplex.leave()
    first = client.until(GOAWAY)
    assert int.from_bytes(first.payload[:4], "big") == 0x7FFFFFFF
    ping = client.until(PING)
    client.send(frame(PING, ACK, 0, ping.payload))
    second = client.until(GOAWAY)
    assert struct.unpack("!II", second.payload) == (1, NO_ERROR)
    assert client.next() is None
    assert client.refused == ""


def test_requests_on_their_way_as_we_leave_are_served() -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False))
        client.is_alive()
        client.multiplex.leave()
        ping = client.until(PING)
        client.ask(3)
        client.send(frame(PING, ACK, 0, ping.payload))
        # Behind our last word nothing is begun; what a client tells of such a stream breaks nothing.
        client.send(client.headers(5, POST, False), frame(DATA, 0, 5, b"abc"), number(WINDOW_UPDATE, 5, 9))
        assert client.answer(3).status == 200
        assert client.reset_with(5) == REFUSED_STREAM
        client.send(frame(DATA, END_STREAM, 1, b"x"))
        assert client.answer(1).status == 200
        assert client.next() is None


def test_a_client_that_says_goaway_gets_its_answers_and_the_end() -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), frame(GOAWAY, 0, 0, bytes(8)))
        client.is_alive()
        client.send(frame(DATA, END_STREAM, 1, b"x"))
        assert client.answer(1).status == 200
        assert client.ended_with() == (-1, "")
        assert client.refused == ""


def test_a_client_that_leaves_ends_its_streams() -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), client.headers(3, POST, False))
        client.is_alive()
        client.peer.close()
        outcome(client.reader)
        assert client.multiplex.streams == {}


def test_a_connection_without_streams_ends_with_goaway() -> None:
    with Served(idle_timeout=0.05) as client:
        assert client.ended_with() == (NO_ERROR, "")
        assert client.refused == ""


def test_pings_do_not_keep_a_connection_that_asks_nothing() -> None:
    with Served(idle_timeout=0.05) as client:
        with pytest.raises((AssertionError, OSError)):
            while client.is_alive():
                gevent.sleep(0.005)
            raise AssertionError
        outcome(client.reader)


def test_whoever_cuts_a_connection_off_leaves_nothing() -> None:
    """Killed while streams wait, in every state a stream has: no greenlet, no timer, no stream is left."""
    with Served(wait_for_body, idle_timeout=30, write_timeout=30, header_timeout=30) as client:
        client.ask(1)
        client.send(client.headers(3, POST, False), client.headers(5, POST, False), number(RST_STREAM, 5, 8))
        client.send(client.headers(7, [*POST, ("Bad", "x")], False))
        client.is_alive()
        client.send(frame(HEADERS, 0, 9, client.block(GET)))
        gevent.sleep(0)
        client.reader.kill(block=False)
        wait_until(lambda: client.reader.dead and not client.multiplex.streams)
        assert client.channel.fileno() == -1


def test_a_multiplex_may_be_dropped_before_it_runs() -> None:
    ours, theirs = tcp_pair()
    channel = Channel(ours.detach(), True)
    multiplex = Multiplex(channel, Limits(), wait_for_body, idle_timeout=5, header_timeout=5)
    multiplex.leave()
    multiplex.kill()
    channel.close()
    theirs.close()
    gevent.sleep(0)


def test_a_handler_that_fails_resets_its_stream_alone() -> None:
    def fail(stream: Stream) -> None:
        raise ValueError("on purpose")

    with Served(fail) as client:
        client.ask(1)
        assert client.reset_with(1) == http2.INTERNAL_ERROR
        assert client.is_alive()


def test_calm_is_the_code_of_whoever_does_too_much() -> None:
    with Served() as client:
        client.send(frame(SETTINGS, payload=bytes(6) * 100))
        assert client.ended_with() == (ENHANCE_YOUR_CALM, "settings_flood")


def test_to_cut_off_one_connection_cuts_off_no_other() -> None:
    """Who served a stream may serve one of another connection by the time that it is to end."""
    with Served() as one, Served(wait_for_body) as other:
        one.ask(1)
        one.answer(1)
        one.send(one.headers(3))
        wait_until(lambda: one.channel.pending or one.multiplex.streams or one.multiplex.handled == 2)
        one.multiplex.kill()
        other.send(other.headers(1, POST, False))
        other.is_alive()
        one.multiplex.kill()
        other.send(frame(DATA, END_STREAM, 1, b"x"))
        assert other.answer(1).status == 200


def test_requests_are_served_by_greenlets_that_rest_between_them() -> None:
    """Hundreds of streams, more at one time than may rest: each is served once."""
    served: list[int] = []

    def note(stream: Stream) -> None:
        stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        served.append(stream.id)
        gevent.sleep(0)
        stream.send(http2.HI, TIMEOUT)
        stream.finish()

    with Served(note, max_streams=1000) as client:
        for _ in range(3):
            first = max(served, default=-1) + 2
            numbers = range(first, first + 1000, 2)
            client.send(*[client.headers(n) for n in numbers])
            for n in numbers:
                client.until(DATA, n)
            assert served[-500:] == list(numbers)
