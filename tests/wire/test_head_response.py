"""A response's head by itself: writing it for the client, and making one of the proxy's own."""

from __future__ import annotations

import pytest

from sidecar.errors import Malformed
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH, NONE, Limits, Names, ResponseHead

HOP_BY_HOP = {
    b"connection": b"close",
    b"keep-alive": b"timeout=5",
    b"proxy-connection": b"keep-alive",
    b"te": b"trailers",
    b"trailer": b"X-Sum",
    b"upgrade": b"websocket",
    b"http2-settings": b"AAMAAABkAAQ",
}


def response(
    *lines: bytes, start: bytes = b"HTTP/1.1 200 OK", request_method: bytes = b"GET"
) -> ResponseHead:
    section = b"\r\n".join([start, *lines, b"", b""])
    head = ResponseHead(Limits(), request_method)
    assert head.feed(section) == len(section)
    return head


def sent(rendered: bytes) -> list[bytes]:
    """The field lines of a rendered head, which ends as a head ends."""
    lines = rendered.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert not any(mark in line for line in lines for mark in (b"\r", b"\n"))
    return lines[1:-2]


# Writing a response for the client.


def test_a_response_goes_on_as_it_came():
    head = response(b"Server: x", b"Content-Length: 3", b"X-Real-IP: kept", start=b"HTTP/1.1 404 Not Here")
    assert head.render(LENGTH, True) == (
        b"HTTP/1.1 404 Not Here\r\nServer: x\r\nContent-Length: 3\r\nX-Real-IP: kept\r\n\r\n"
    )


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200"])
def test_the_status_line_is_http11_and_has_its_space(start: bytes):
    assert response(b"Content-Length: 0", start=start).render(LENGTH, True).startswith(b"HTTP/1.1 200 \r\n")


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_fields_of_a_response_stay_behind(name: bytes):
    head = response(b"A: 1", name.title() + b": " + HOP_BY_HOP[name], b"Content-Length: 0")
    assert sent(head.render(LENGTH, True)) == [b"A: 1", b"Content-Length: 0"]


def test_connection_names_of_a_response_stay_behind():
    head = response(b"Connection: X-A, content-length", b"x-a: 1", b"X-B: 2", b"Content-Length: 3")
    assert sent(head.render(LENGTH, True)) == [b"X-B: 2", b"Content-Length: 3"]


@pytest.mark.parametrize(
    ("keep_alive", "client", "expected"),
    [
        (True, 11, []),
        (False, 11, [b"Connection: close"]),
        (True, 10, [b"Connection: keep-alive"]),
        (False, 10, [b"Connection: close"]),
    ],
)
def test_what_the_client_hears_about_its_connection(keep_alive: bool, client: int, expected: list[bytes]):
    head = response(b"Connection: close", b"Content-Length: 0")
    assert sent(head.render(LENGTH, keep_alive, client)) == [b"Content-Length: 0", *expected]


@pytest.mark.parametrize(
    ("framing", "expected"),
    [
        (LENGTH, [b"Content-Length: 5"]),
        (CHUNKED, [b"Transfer-Encoding: chunked"]),
        (CLOSE, []),
    ],
)
def test_the_framing_of_a_response_is_the_senders(framing: int, expected: list[bytes]):
    """Whatever the upstream used, the client meets one framing."""
    assert sent(response(b"Content-Length: 5").render(framing, True)) == expected
    chunked = sent(response(b"Transfer-Encoding: chunked").render(framing, True))
    assert chunked == [line for line in expected if line != b"Content-Length: 5"]


@pytest.mark.parametrize(
    ("start", "method", "kept"),
    [
        (b"HTTP/1.1 200 OK", b"HEAD", True),
        (b"HTTP/1.1 304 Not Modified", b"GET", True),
        (b"HTTP/1.1 204 No Content", b"GET", False),
        (b"HTTP/1.1 100 Continue", b"GET", False),
        (b"HTTP/1.1 103 Early Hints", b"HEAD", False),
    ],
)
def test_content_length_without_a_body(start: bytes, method: bytes, kept: bool):
    """RFC 9110 section 8.6: it may tell of the body of a GET; 1xx and 204 never have it."""
    head = response(b"Content-Length: 500", b"A: 1", start=start, request_method=method)
    assert (head.framing, head.length) == (NONE, 0)
    assert sent(head.render(NONE, True)) == [*([b"Content-Length: 500"] if kept else []), b"A: 1"]


def test_an_answer_to_head_without_length_gets_no_framing():
    head = response(b"Transfer-Encoding: chunked", request_method=b"HEAD")
    assert sent(head.render(NONE, True)) == []


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("client", [10, 11])
def test_an_interim_response_says_nothing_about_the_connection(keep_alive: bool, client: int):
    head = response(b"Link: </a>", b"Connection: close", start=b"HTTP/1.1 103 Early Hints")
    assert sent(head.render(NONE, keep_alive, client)) == [b"Link: </a>"]


def test_switching_protocols_goes_on():
    head = response(
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: s3=",
        start=b"HTTP/1.1 101 Switching",
    )
    assert head.upgrade == b"websocket"
    assert sorted(sent(head.render(NONE, True, upgrade=True))) == [
        b"Connection: upgrade",
        b"Sec-WebSocket-Accept: s3=",
        b"Upgrade: websocket",
    ]


def test_drop_and_extra_of_a_response():
    head = response(b"Server: x", b"Set-Cookie: a", b"set-cookie: b", b"Content-Length: 0")
    rendered = head.render(
        LENGTH, True, drop=Names([b"SERVER"]), extra=b"Server: y\r\nX-Frame-Options: DENY\r\n"
    )
    assert sent(rendered) == [
        b"Set-Cookie: a",
        b"set-cookie: b",
        b"Content-Length: 0",
        b"Server: y",
        b"X-Frame-Options: DENY",
    ]


# A response of the proxy itself.


def test_make():
    head = ResponseHead.make(404, [(b"Content-Type", b"text/plain"), (b"Vary", b"Accept")], length=9)
    assert (head.status, head.framing, head.length) == (404, LENGTH, 9)
    assert head.render(LENGTH, True) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nVary: Accept\r\nContent-Length: 9\r\n\r\n"
    )


def test_make_without_a_body():
    assert ResponseHead.make(200, [], length=5, request_method=b"HEAD").framing == NONE
    assert ResponseHead.make(204, []).framing == NONE
    assert ResponseHead.make(200, [], length=0).framing == LENGTH
    assert ResponseHead.make(200, []).framing == CLOSE


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1000])
def test_make_refuses_what_is_no_status(status: int):
    with pytest.raises(Malformed):
        ResponseHead.make(status, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"", b"a"),
        (b"A B", b"a"),
        (b"A\x00", b"a"),
        (b" A", b"a"),
        (b"A", b"a\x00b"),
        (b"A", b"a\nb"),
        (b"A", b"a\rb"),
        (b"A", b"a\r\n b"),
        (b"A", b"a\r\nSet-Cookie: b"),
        (b"A", b"\r\nSet-Cookie: b"),
        (b"A", b"a\r\n"),
        (b"A", b"a\r\n\r\n<script>"),
        (b"A: a\r\nB", b"b"),
        (b"A:", b"b"),
    ],
)
def test_make_refuses_a_field_that_is_not_one(name: bytes, value: bytes):
    """A value may come from the request's own target: it must not become a second field, or a body."""
    with pytest.raises(Malformed):
        ResponseHead.make(302, [(name, value)])
