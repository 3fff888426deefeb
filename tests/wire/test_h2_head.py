"""Heads of HTTP/2 as HTTP/1.1 heads: what is refused, and that nothing is smuggled by translation."""

from __future__ import annotations

import re
from typing import NamedTuple

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.net.h2 import Stream
from sidecar.wire.head import CHUNKED, LENGTH, NONE, Limits, RequestHead
from tests.support import http2
from tests.support.http2 import GET, POST, Served
from tests.support.streams import TIMEOUT

pytestmark = pytest.mark.usefixtures("no_leaks")

EXAMPLES = settings(max_examples=250)
Fields = list[tuple[str, str]]


class Read(NamedTuple):
    """What the inside reads of a request."""

    raw: bytes  # empty: it is refused
    head: RequestHead
    rule: str
    status: int


def read(fields: http2.Fields | list[tuple[bytes, bytes]], ends: bool = True, size: int = 32768) -> Read:
    """Send these fields as a request and read it inside."""
    seen: list[Read] = []
    limits = Limits(size)

    def serve(stream: Stream) -> None:
        head = RequestHead(limits)
        try:
            stream.read_head(head, TIMEOUT, TIMEOUT)
            seen.append(Read(head.raw, head, "", 0))
        except Malformed as malformed:
            seen.append(Read(b"", head, malformed.rule, malformed.status))
        stream.send(http2.HI, TIMEOUT)
        stream.finish()

    with Served(serve, limits=limits) as client:
        client.send(client.headers(1, fields, ends))  # type: ignore[arg-type]
        client.answer(1)
    return seen[0]


def lines(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")[:-2]


def change(**values: str) -> Fields:
    """GET with other pseudo-fields; an empty value leaves one out."""
    names = {name[1:]: value for name, value in GET} | values
    return [(f":{name}", value) for name, value in names.items() if value]


# -- what becomes of a request


def test_a_request_becomes_a_head() -> None:
    fields = [*change(path="/a?b=c", authority="x.test:81"), ("accept", "*/*"), ("x-empty", "")]
    assert lines(read(fields).raw) == [
        b"GET /a?b=c HTTP/1.1",
        b"Host: x.test:81",
        b"accept: */*",
        b"x-empty: ",
    ]


@pytest.mark.parametrize(
    ("length", "ends", "framing"),
    [("", True, NONE), ("", False, CHUNKED), ("7", False, LENGTH), ("0", True, LENGTH)],
)
def test_the_end_of_the_stream_and_the_length_say_how_the_body_is_framed(
    length: str, ends: bool, framing: int
) -> None:
    head = read([*POST, *([("content-length", length)] if length else [])], ends).head
    assert (head.framing, head.length) == (framing, int(length or 0))


def test_cookies_in_pieces_become_one_field() -> None:
    pieces = [("cookie", f"k{n}=v") for n in range(300)]
    raw = read([*GET, *pieces[:1], ("a", "b"), *pieces[1:]]).raw
    assert lines(raw)[-1] == b"Cookie: " + b"; ".join(f"k{n}=v".encode() for n in range(300))


def test_host_takes_the_place_of_a_missing_authority() -> None:
    head = read([*change(authority=""), ("host", "x.test")])
    assert head.head.authority == b"x.test"
    assert head.raw.lower().count(b"host:") == 1


def test_host_may_repeat_the_authority_in_other_letters() -> None:
    raw = read([*change(authority="x.test"), ("host", "X.Test")]).raw
    assert lines(raw)[1:] == [b"Host: x.test"]


def test_te_trailers_is_for_this_connection_alone() -> None:
    assert b"te" not in read([*GET, ("te", "trailers")]).raw.lower().split(b"host: test")[1]


def test_a_websocket_becomes_an_upgrade() -> None:
    fields = change(method="CONNECT", protocol="websocket", path="/chat")
    got = read([*fields, ("sec-websocket-version", "13"), ("sec-websocket-key", "theirs")], False)
    assert got.head.method == b"GET"
    assert got.head.upgrade == b"websocket"
    assert got.head.framing == NONE
    assert got.head.get(b"sec-websocket-version") == b"13"
    assert len(got.head.get_all(b"sec-websocket-key")) == 1
    assert got.head.get(b"sec-websocket-key") != b"theirs"


def test_options_of_everything_has_no_path() -> None:
    assert read(change(method="OPTIONS", path="*")).head.target == b"*"


# -- what is refused

ANY = "header"
REFUSED = {
    "no method": (change(method=""), "missing_method", 400),
    "no scheme": (change(scheme=""), "missing_pseudo_field", 400),
    "no path": (change(path=""), "missing_pseudo_field", 400),
    "an empty path": ([*change(path=""), (":path", "")], "missing_pseudo_field", 400),
    "no authority": (change(authority=""), "missing_host", 400),
    "a path without a slash": (change(path="a"), "bad_target", 400),
    "a path that is a URL": (change(path="http://evil/"), "bad_target", 400),
    "* for another method": (change(path="*"), "bad_target", 400),
    "a path with a space": (change(path="/ HTTP/1.1"), "bad_pseudo_field", 400),
    "a path with a fragment": (change(path="/a#b"), "bad_target", 400),
    "a method with a space": (change(method="GET /x"), "bad_pseudo_field", 400),
    "a method that is no token": (change(method="G(T"), "bad_request_line", 400),
    "an authority with a user": (change(authority="user@test"), "bad_host", 400),
    "an authority with a path": (change(authority="test/a"), "bad_host", 400),
    "an authority with a space": (change(authority="te st"), "bad_pseudo_field", 400),
    "an authority that is not the host": ([*GET, ("host", "other")], "authority_is_not_host", 400),
    "two hosts": ([*change(authority=""), ("host", "a"), ("host", "a")], "repeated_host", 400),
    "two methods": ([*GET, (":method", "GET")], "repeated_pseudo_field", 400),
    "two paths": ([*GET, (":path", "/")], "repeated_pseudo_field", 400),
    "a status": ([*GET, (":status", "200")], "unknown_pseudo_field", 400),
    "a pseudo-field that nobody knows": ([*GET, (":foo", "x")], "unknown_pseudo_field", 400),
    "a pseudo-field behind others": ([*GET[:3], ("a", "b"), GET[3]], "misplaced_pseudo_field", 400),
    "a protocol without CONNECT": ([*GET, (":protocol", "websocket")], "misplaced_pseudo_field", 400),
    "a tunnel": ([(":method", "CONNECT"), (":authority", "x:443")], "connect_refused", 405),
    "a protocol that nobody knows": (change(method="CONNECT", protocol="x"), "unknown_protocol", 501),
    "a WebSocket that has ended": (change(method="CONNECT", protocol="websocket"), "bad_websocket", 400),
    "capitals": ([*GET, ("X-A", "b")], "bad_field_name", 400),
    "no name": ([*GET, ("", "b")], "bad_field_name", 400),
    "a name with a colon": ([*GET, ("a:b", "c")], "bad_field_name", 400),
    "a name with a space": ([*GET, ("content-length ", "5")], "bad_field_name", 400),
    "a name with a line": ([*GET, ("a\r\nb", "c")], "bad_field_name", 400),
    "a value with a line": ([*GET, ("a", "b\r\nc: d")], "bad_field_value", 400),
    "a value with a CR": ([*GET, ("a", "b\rc")], "bad_field_value", 400),
    "a value with a LF": ([*GET, ("a", "b\nc")], "bad_field_value", 400),
    "a value with a NUL": ([*GET, ("a", "b\0c")], "bad_field_value", 400),
    "a value with a space before": ([*GET, ("a", " b")], "bad_field_value", 400),
    "a value with a tab behind": ([*GET, ("a", "b\t")], "bad_field_value", 400),
    "Connection": ([*GET, ("connection", "close")], "connection_field", 400),
    "Keep-Alive": ([*GET, ("keep-alive", "1")], "connection_field", 400),
    "Proxy-Connection": ([*GET, ("proxy-connection", "close")], "connection_field", 400),
    "Upgrade": ([*GET, ("upgrade", "websocket")], "connection_field", 400),
    "Transfer-Encoding": ([*GET, ("transfer-encoding", "chunked")], "connection_field", 400),
    "TE of another kind": ([*GET, ("te", "gzip")], "connection_field", 400),
    "TE of more": ([*GET, ("te", "trailers, gzip")], "connection_field", 400),
    "a length and an end": ([*POST, ("content-length", "1")], "content_length_mismatch", 400),
    "a length that is no number": ([*POST, ("content-length", "+1")], "bad_content_length", 400),
    "a length without bound": ([*POST, ("content-length", "9" * 19)], "bad_content_length", 400),
    "an empty length": ([*POST, ("content-length", "")], "bad_content_length", 400),
    "two lengths": ([*POST, ("content-length", "0"), ("content-length", "1")], "bad_content_length", 400),
    "a list of lengths": ([*POST, ("content-length", "0, 0")], "bad_content_length", 400),
    "a head that is too large": ([*GET, *[("a", "b" * 1000)] * 40], "header_section_too_large", 431),
    "too many fields": ([*GET, *[("a", "b")] * 200], "too_many_fields", 431),
    "a target that is too long": (change(path="/" + "a" * 9000), "target_too_long", 414),
}


@pytest.mark.parametrize(("fields", "rule", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(fields: Fields, rule: str, status: int) -> None:
    got = read(fields)
    assert (got.rule, got.status, got.raw) == (rule, status, b"")


@pytest.mark.parametrize("ends", [True, False])
def test_a_malformed_request_is_told_why_and_then_reset(ends: bool) -> None:
    """RFC 9113 section 8.1.1: a stream error of type PROTOCOL_ERROR, which an answer may precede."""

    def serve(stream: Stream) -> None:
        with pytest.raises(Malformed):
            stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        stream.send(b"HTTP/1.1 400 \r\nContent-Length: 2\r\n\r\nno", TIMEOUT)
        stream.linger(TIMEOUT)

    with Served(serve) as client:
        client.send(client.headers(1, [*GET, ("Bad", "x")], ends))
        answer = client.answer(1)
        assert (answer.status, answer.body, answer.code) == (400, b"no", http2.PROTOCOL_ERROR)
        assert client.is_alive()


# -- nothing is smuggled

MARKS = st.sampled_from([*b"\r\n\0\t :/?#@\\\"'(),;=[]{}|", 0x80, 0xFF, 127, *b"aAzZ09-_.%"])
NASTY = st.lists(MARKS, max_size=12).map(bytes)
SMUGGLED = st.sampled_from(
    [
        b"x\r\nTransfer-Encoding: chunked",
        b"x\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil",
        b"x\nContent-Length: 5",
        b"x\rHost: evil",
        b"/ HTTP/1.1\r\nHost: evil",
        b"chunked",
        b"test, evil",
        b"evil",
        b"5",
        b"0",
        b"+5",
        b"5 ",
    ]
)
VALUES = NASTY | SMUGGLED | st.binary(max_size=12)
KNOWN = st.sampled_from(
    [
        b"host",
        b"Host",
        b"host ",
        b"cookie",
        b"content-length",
        b"Content-Length",
        b"content_length",
        b"content-length\r\nx",
        b"transfer-encoding",
        b"transfer_encoding",
        b"transfer-encoding:",
        b"connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"keep-alive",
        b"http2-settings",
        b"sec-websocket-key",
        b":path",
        b":authority",
        b":method",
        b":foo",
        b"a",
    ]
)
NAMES = KNOWN | NASTY | st.binary(max_size=8)
PSEUDO = {
    b":method": st.sampled_from([b"GET", b"POST", b"CONNECT", b"OPTIONS", b"HEAD", b"PRI"]) | VALUES,
    b":scheme": st.sampled_from([b"http", b"https"]) | VALUES,
    b":path": st.sampled_from([b"/", b"*", b"/a?b", b"//x", b"http://evil/"])
    | VALUES.map(lambda v: b"/" + v)
    | VALUES,
    b":authority": st.sampled_from([b"test", b"test:80", b"[::1]:80"]) | VALUES,
}
LIKELY = {b":method": b"POST", b":scheme": b"http", b":path": b"/", b":authority": b"test"}


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Mostly a request whose pseudo-fields are right but for one, and fields of all sorts."""
    strange = draw(st.sampled_from([b"", *PSEUDO]))
    fields = [(name, draw(PSEUDO[name]) if name == strange else LIKELY[name]) for name in PSEUDO]
    if draw(st.booleans()):
        fields.append((b":protocol", draw(st.sampled_from([b"websocket", b"x", b"a\r\nb"]))))
    fields = draw(st.permutations(fields)) if draw(st.booleans()) else fields
    return [*fields, *draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))]


def once(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in fields if key == name]


@EXAMPLES
@given(requests(), st.booleans())
def test_one_request_leaves_as_one_request(fields: list[tuple[bytes, bytes]], ends: bool) -> None:
    got = read(fields, ends)
    if not got.raw:
        assert got.rule
        return
    head = got.head
    # What leaves for the upstream, read by somebody else's parser.
    upstream = h11.Connection(h11.SERVER)
    rendered = head.render(upgrade=True)
    upstream.receive_data(rendered)
    event = upstream.next_event()
    assert isinstance(event, h11.Request)
    seen = list(event.headers)
    hosts = once(seen, b"host")
    assert hosts == [head.authority]
    assert head.authority in (*once(fields, b":authority"), *once(fields, b"host"))
    assert event.target == once(fields, b":path")[0]
    method = once(fields, b":method")[0]
    assert event.method == (b"GET" if method == b"CONNECT" else method)
    lengths, codings = once(seen, b"content-length"), once(seen, b"transfer-encoding")
    assert len(lengths) + len(codings) <= 1
    assert all(
        length.isdigit() and length in [f"{int(x)}".encode() for x in once(fields, b"content-length")]
        for length in lengths
    )
    assert codings == ([b"chunked"] if codings else [])
    if codings:
        assert not ends
        upstream.receive_data(b"0\r\n\r\n")
    elif lengths:
        upstream.receive_data(b"x" * int(lengths[0]))
    # The request is over where we think it is, and nothing else began.
    following = upstream.next_event()
    while isinstance(following, h11.Data):
        following = upstream.next_event()
    assert isinstance(following, h11.EndOfMessage)
    assert upstream.trailing_data[0] == b""
    assert rendered.count(b"\r\n\r\n") == 1
    assert not re.search(rb"[^\r]\n|\r[^\n]|\0", rendered)


@EXAMPLES
@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_trailers_are_field_lines_or_refused(fields: list[tuple[bytes, bytes]]) -> None:
    """What comes behind the body is one line for each field, and no field that frames."""
    seen: list[bytes] = []

    def serve(stream: Stream) -> None:
        from sidecar.net.flow import Flow, pump
        from tests.support.streams import ScriptedPeer

        stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        with ScriptedPeer(tcp=True) as app:
            try:
                pump(Flow(stream, app.channel, CHUNKED, 0, CHUNKED, TIMEOUT, TIMEOUT))
            finally:
                app.channel.close()
                seen.append(app.read_all())
        stream.send(http2.HI, TIMEOUT)
        stream.finish()

    with Served(serve) as client:
        client.send(client.headers(1, POST, False), client.headers(1, fields))  # type: ignore[arg-type]
        client.answer(1)
    if not seen or not seen[0]:
        # Refused, maybe before it was its turn.
        return
    body = seen[0]
    assert body.startswith(b"0\r\n") and body.endswith(b"\r\n")
    for line in body[3:].split(b"\r\n")[:-2]:
        name, _, value = line.partition(b": ")
        assert (name, value) in fields
        assert name not in (b"content-length", b"transfer-encoding", b"host")
