"""HTTP/2 connections towards clients: what RFC 9113 demands of each frame, with the error code it names."""

from __future__ import annotations

import struct

import pytest

from sidecar.net.h2 import PREFACE
from sidecar.wire.head import Limits
from tests.support import http2
from tests.support.http2 import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GET,
    GOAWAY,
    HEADERS,
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
    wait_for_body,
)
from tests.support.streams import Peer

pytestmark = pytest.mark.usefixtures("no_leaks")


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
    with Served(wait_for_body) as client:
        client.send(data)
        assert client.ended_with() == (code, rule)
        assert client.refused == rule


def test_a_window_of_settings_overflows_a_streams() -> None:
    """A stream's window of its own and the one of SETTINGS count together (RFC 9113 section 6.9.2)."""
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), number(WINDOW_UPDATE, 1, 100_000))
        client.send(settings((http2.WINDOW, 0x7FFFFFFF)))
        assert client.ended_with() == (FLOW_CONTROL_ERROR, "window_overflow")


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
