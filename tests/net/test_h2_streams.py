"""HTTP/2 streams towards clients: what ends one of them alone, and what on its way is no fault."""

from __future__ import annotations

import pytest

from sidecar.net.h2 import Stream
from sidecar.wire.head import Limits, RequestHead
from tests.support.http2 import (
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    NO_ERROR,
    POST,
    PROTOCOL_ERROR,
    RST_STREAM,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Served,
    frame,
    number,
)
from tests.support.streams import TIMEOUT, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


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
