"""The head of a message by itself: asking it, and writing it for the other side."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH, NONE, Head, Limits, Names, RequestHead, ResponseHead

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=300, database=None)
HOP_BY_HOP = {
    b"connection": b"close",
    b"keep-alive": b"timeout=5",
    b"proxy-connection": b"keep-alive",
    b"te": b"trailers",
    b"trailer": b"X-Sum",
    b"upgrade": b"websocket",
    b"http2-settings": b"AAMAAABkAAQ",
}
FORWARDING = [
    b"X-Forwarded-For",
    b"X-Forwarded-Host",
    b"X-Forwarded-Port",
    b"X-Forwarded-Proto",
    b"X-Real-IP",
]


def request(*lines: bytes, start: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: a") -> RequestHead:
    section = b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])
    head = RequestHead(Limits())
    assert head.feed(section) == len(section)
    return head


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


def outcome(head: Head, pieces: list[bytes]) -> object:
    """How feeding ends: the size of the head, 0, or the rule and status of the refusal."""
    try:
        for piece in pieces:
            if size := head.feed(piece):
                return size, head.raw, head.fields(), head.framing, head.length, head.keep_alive
    except Malformed as malformed:
        return malformed.rule, malformed.status
    return 0


# Asking.


def test_get_finds_the_first_value_whatever_the_case():
    head = request(b"X-A: 1", b"x-a: 2")
    assert head.get(b"X-a") == b"1"
    assert head.get_all(b"x-A") == [b"1", b"2"]


def test_get_of_what_is_absent():
    head = request(b"X-AB: 1")
    assert head.get(b"X-A") is None
    assert head.get(b"X-ABC") is None
    assert head.get_all(b"X-A") == []
    assert head.get(b"") is None


def test_an_empty_value_is_not_absent():
    head = request(b"X-A:")
    assert head.get(b"X-A") == b""
    assert head.get_all(b"X-A") == [b""]


@pytest.mark.parametrize("name", [b"X_A", b"a^b", b"a~b", b"a`b", b"a|b", b"!#$%&'*+-.^_`|~09az"])
def test_get_and_drop_find_a_name_of_any_token_bytes(name: bytes):
    head = request(name + b": 1")
    assert head.get(name) == b"1"
    assert head.get_all(name.upper()) == [b"1"]
    assert sent(head.render(drop=Names([name]))) == [b"Host: a"]


def test_bytes_that_differ_by_one_bit_are_not_the_same_letter():
    """Only letters have a case: ^ and ~ differ by the same bit as N and n."""
    head = request(b"a^b: 1")
    assert head.get(b"a~b") is None
    assert sent(head.render(drop=Names([b"a~b"]))) == [b"Host: a", b"a^b: 1"]


def test_fields_keep_order_spelling_and_duplicates():
    head = request(b"B: 2", b"a: 1", b"b: \t3 ", b"A:")
    assert head.fields() == [(b"Host", b"a"), (b"B", b"2"), (b"a", b"1"), (b"b", b"3"), (b"A", b"")]


def test_many_fields_are_all_kept():
    lines = [b"X-%d: %d" % (n, n) for n in range(99)]
    head = request(*lines)
    assert head.get(b"x-98") == b"98"
    assert sent(head.render()) == [b"Host: a", *lines]


def test_raw_is_the_section_without_the_line_that_was_skipped():
    head = RequestHead(Limits())
    section = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert head.feed(b"\r\n" + section + b"rest") == 2 + len(section)
    assert head.raw == section


def test_limits_have_defaults_and_say_what_they_are():
    limits = Limits()
    assert (limits.max_header_size, limits.max_headers, limits.max_target_size) == (32768, 100, 8192)


# Writing a request for the upstream.


def test_a_request_goes_on_as_it_came():
    head = request(
        b"Accept: */*", b"X-A:  a ; b", start=b"GET /a%2F../?b=%zz HTTP/1.1", host=b"Host: A.example:80"
    )
    assert head.render() == (
        b"GET /a%2F../?b=%zz HTTP/1.1\r\nHost: A.example:80\r\nAccept: */*\r\nX-A:  a ; b\r\n\r\n"
    )


def test_order_and_duplicates_go_on():
    lines = [b"B: 1", b"Cookie: a=1", b"b: 2", b"Cookie: b=2", b"B: 1"]
    assert sent(request(*lines).render()) == [b"Host: a", *lines]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_fields_of_a_request_stay_behind(name: bytes):
    head = request(b"A: 1", name.title() + b": " + HOP_BY_HOP[name], b"B: 2")
    assert sent(head.render()) == [b"Host: a", b"A: 1", b"B: 2"]


def test_fields_that_connection_names_stay_behind():
    head = request(
        b"x-a: 1",
        b"Connection: close, X-A ,,x_b",
        b"X-AB: 2",
        b"X_B: 3",
        b"connection:\tX-C\t",
        b"X-C: 4",
        b"X: 5",
    )
    assert sent(head.render()) == [b"Host: a", b"X-AB: 2", b"X: 5"]


def test_connection_cannot_name_host_or_framing_away():
    head = request(b"Connection: host, content-length", b"Content-Length: 3")
    assert sent(head.render()) == [b"Host: a", b"Content-Length: 3"]
    head = request(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked")
    assert sent(head.render()) == [b"Host: a", b"Transfer-Encoding: chunked"]


@pytest.mark.parametrize("name", FORWARDING)
@pytest.mark.parametrize("spell", [bytes.lower, lambda name: name.replace(b"-", b"_").upper()])
def test_forwarding_fields_of_the_client_stay_behind(name: bytes, spell):
    """CGI-style apps cannot tell X_Real_IP from X-Real-IP, so neither gets through."""
    head = request(spell(name) + b": 192.0.2.1", spell(name) + b": 192.0.2.2")
    extra = name + b": 198.51.100.1\r\n"
    assert sent(head.render(extra=extra)) == [b"Host: a", extra.removesuffix(b"\r\n")]


def test_names_that_only_look_like_forwarding_fields_go_on():
    lines = [
        b"X-Forwarded: 1",
        b"X-Forwarded-Fox: 2",
        b"X-Real-IQ: 3",
        b"XX-Forwarded-For: 4",
        b"Forwarded: for=a",
    ]
    assert sent(request(*lines).render()) == [b"Host: a", *lines]


def test_drop_and_extra():
    head = request(b"X-A: 1", b"x-b: 2", b"X-a: 3", b"X-C: 4")
    rendered = head.render(drop=Names((b"x-A", b"X-B")), extra=b"X-A: new\r\nX-D: 5\r\n")
    assert sent(rendered) == [b"Host: a", b"X-C: 4", b"X-A: new", b"X-D: 5"]


def test_no_names_drop_nothing():
    assert sent(request(b"A: 1").render(drop=Names([]))) == [b"Host: a", b"A: 1"]


def test_host_and_target_may_be_replaced():
    head = request(b"Content-Length: 0", host=b"HOST: a")
    rendered = head.render(target=b"/b?c", host=b"app:8080")
    assert rendered == b"GET /b?c HTTP/1.1\r\nHost: app:8080\r\nContent-Length: 0\r\n\r\n"


def test_host_comes_first_wherever_it_stood():
    """RFC 9110 section 7.2: as the first field."""
    assert sent(request(b"A: 1", b"Host: b", host=b"").render()) == [b"Host: b", b"A: 1"]


def test_absolute_form_becomes_origin_form_with_its_authority():
    head = request(b"A: 1", start=b"GET http://b.example:81/x?y HTTP/1.1")
    assert head.render() == b"GET /x?y HTTP/1.1\r\nHost: b.example:81\r\nA: 1\r\n\r\n"


def test_a_host_that_is_absent_is_not_made_up():
    for host in (b"", b"Host:"):
        head = request(start=b"GET / HTTP/1.0", host=host)
        assert head.render() == b"GET / HTTP/1.1\r\n\r\n"
        assert head.render(host=b"app") == b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


def test_an_old_client_is_spoken_for_in_http11():
    head = request(b"Connection: keep-alive", start=b"GET / HTTP/1.0")
    assert head.keep_alive
    assert head.render() == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_upgrade_goes_on_when_it_may():
    head = request(b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Version: 13")
    assert head.upgrade == b"WebSocket"
    assert sorted(sent(head.render(upgrade=True))) == [
        b"Connection: upgrade",
        b"Host: a",
        b"Sec-WebSocket-Version: 13",
        b"Upgrade: WebSocket",
    ]
    assert sent(head.render(upgrade=False)) == [b"Host: a", b"Sec-WebSocket-Version: 13"]


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C", b"websocket, h2c", b""])
def test_h2c_never_goes_on(protocol: bytes):
    head = request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol, b"HTTP2-Settings: AAM")
    assert head.upgrade is None
    assert sent(head.render(upgrade=True)) == [b"Host: a"]


def test_h2c_in_a_field_of_its_own_never_goes_on():
    """Several fields are one list, whichever comes first (RFC 9110 section 5.3)."""
    for protocols in ((b"websocket", b"h2c"), (b"h2c", b"websocket")):
        head = request(b"Connection: upgrade", *(b"Upgrade: " + protocol for protocol in protocols))
        assert b"h2c" not in head.render(upgrade=True)


def test_te_of_the_client_is_not_the_upstreams():
    """The proxy itself decides what it can take; `TE: chunked` would say nothing anyway."""
    assert sent(request(b"TE: trailers, deflate;q=0.5", b"Connection: TE").render()) == [b"Host: a"]


@pytest.mark.parametrize(
    ("line", "framing", "length", "as_received", "buffered"),
    [
        (b"Content-Length: 005", LENGTH, 5, [b"Content-Length: 5"], [b"Content-Length: 5"]),
        (b"Content-Length: 0", LENGTH, 0, [b"Content-Length: 0"], [b"Content-Length: 0"]),
        (
            b"Content-Length: 999999999999999999",
            LENGTH,
            10**18 - 1,
            [b"Content-Length: 999999999999999999"],
            None,
        ),
        (b"Transfer-Encoding: Chunked", CHUNKED, 9, [b"Transfer-Encoding: chunked"], [b"Content-Length: 9"]),
        (b"A: 1", NONE, 0, [b"A: 1"], [b"A: 1", b"Content-Length: 0"]),
    ],
)
def test_framing_is_written_anew(
    line: bytes, framing: int, length: int, as_received: list[bytes], buffered: list[bytes] | None
):
    head = request(line)
    assert head.framing == framing
    assert sent(head.render()) == [b"Host: a", *as_received]
    if buffered is not None:
        assert sent(head.render(framing=LENGTH, length=length)) == [b"Host: a", *buffered]


def test_framing_may_be_left_out():
    assert sent(request(b"Content-Length: 0").render(framing=NONE)) == [b"Host: a"]
    assert sent(request(b"Transfer-Encoding: chunked").render(framing=NONE)) == [b"Host: a"]


def test_expect_goes_on_unless_it_was_answered():
    head = request(b"Expect: 100-continue", b"Content-Length: 1")
    assert head.expect_continue
    assert b"Expect: 100-continue" in sent(head.render())
    assert sent(head.render(expect=False)) == [b"Host: a", b"Content-Length: 1"]


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
        head = ResponseHead.make(302, [(name, value)])
        assert head.fields() == [(name, value)]


# What holds for every message.

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOKENS = st.lists(st.sampled_from(TOKEN), min_size=1, max_size=12).map(bytes)
VALUES = st.binary(max_size=20).map(
    lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b".", value).strip(b" \t")
)
KNOWN = st.sampled_from([*HOP_BY_HOP, *FORWARDING, b"X_Real_IP", b"x_forwarded_for", b"Cookie", b"A", b"x_a"])
SPACES = st.sampled_from([b"", b" ", b"\t", b" \t "])
FIELDS = st.lists(st.tuples(KNOWN | TOKENS, VALUES), max_size=8)
TARGETS = st.lists(st.sampled_from(b"!\"$%&'()*+,-./0:;<=>?@A[\\]^_`{|}~"), max_size=20).map(
    lambda t: b"/" + bytes(t)
)
METHODS = TOKENS.filter(lambda method: method != b"CONNECT")
#: Names whose fields mean something to the parser: with a random value they would be refused.
MEANING = {b"host", b"content-length", b"transfer-encoding", b"expect"}


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]:
    """(section, method, target, fields after Host)."""
    method, target = draw(METHODS), draw(TARGETS)
    fields = [field for field in draw(FIELDS) if field[0].lower() not in MEANING]
    lines = [name + b":" + draw(SPACES) + value + draw(SPACES) for name, value in fields]
    start = b"%b %b HTTP/1.1" % (method, target)
    return b"\r\n".join([start, b"Host: a", *lines, b"", b""]), method, target, fields


def end_to_end(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """RFC 9110 section 7.6.1, said again in Python."""
    away = set(HOP_BY_HOP)
    for name, value in fields:
        if name.lower() == b"connection":
            away |= {option.strip(b" \t").lower() for option in value.split(b",")}
    forwarding = {name.lower() for name in FORWARDING}
    return [
        (name, value)
        for name, value in fields
        if name.lower() not in away and name.lower().replace(b"_", b"-") not in forwarding
    ]


@REPEATABLE
@given(requests(), st.booleans())
def test_a_request_survives_the_proxy(
    case: tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]], upgrade: bool
):
    """parse → render → parse keeps method, target and end-to-end fields, in order; a second time changes nothing."""
    section, method, target, fields = case
    first = RequestHead(Limits())
    assert first.feed(section) == len(section)
    assert first.fields()[1:] == fields
    rendered = first.render(upgrade=upgrade)
    sent(rendered)
    second = RequestHead(Limits())
    assert second.feed(rendered) == len(rendered)
    assert (second.method, second.target, second.host) == (method, target, "a")
    if not upgrade:
        assert second.fields() == [(b"Host", b"a"), *end_to_end(fields)]
        assert second.render() == rendered


@REPEATABLE
@given(FIELDS, st.integers(200, 599), VALUES, st.sampled_from([LENGTH, CHUNKED, CLOSE, NONE]), st.booleans())
def test_a_response_survives_the_proxy(
    fields: list[tuple[bytes, bytes]], status: int, reason: bytes, framing: int, keep_alive: bool
):
    """The status line stays; every line that is sent came from the upstream or is the proxy's own."""
    fields = [field for field in fields if field[0].lower() not in MEANING]
    section = (
        b"HTTP/1.1 %d %b\r\n" % (status, reason) + b"".join(b"%b: %b\r\n" % pair for pair in fields) + b"\r\n"
    )
    head = ResponseHead(Limits())
    assert head.feed(section) == len(section)
    rendered = head.render(framing, keep_alive)
    assert rendered.startswith(b"HTTP/1.1 %d %b\r\n" % (status, reason))
    own = {b"Transfer-Encoding: chunked", b"Connection: close"}
    assert set(sent(rendered)) <= own | {b"%b: %b" % pair for pair in fields}
    again = ResponseHead(Limits())
    assert again.feed(rendered) == len(rendered)
    assert (again.status, again.reason) == (status, reason)


@REPEATABLE
@given(FIELDS)
def test_make_takes_exactly_the_fields_it_is_given(fields: list[tuple[bytes, bytes]]):
    fields = [field for field in fields if field[0].lower() not in MEANING]
    assert ResponseHead.make(200, fields).fields() == fields


@REPEATABLE
@given(TOKENS | st.binary(max_size=6), st.binary(max_size=12) | st.just(b"a\r\nb: c"))
def test_make_never_writes_more_than_one_field(name: bytes, value: bytes):
    try:
        head = ResponseHead.make(200, [(name, value)])
    except Malformed:
        return
    assert head.fields() == [(name, value.strip(b" \t"))]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A valid request or response with a few bytes replaced, put in or taken out."""
    section = bytearray(draw(requests())[0])
    if draw(st.booleans()):
        section[: section.index(b"\r\n")] = b"HTTP/1.1 200 OK"
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(section)))
        section[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b"\xff", b",", b"#"])
            | st.sampled_from([b"\r\nContent-Length: 1", b"\r\nTransfer-Encoding: chunked", b"\r\nHost: b"])
        )
    return bytes(section)


@pytest.mark.parametrize("make", [RequestHead, ResponseHead])
@REPEATABLE
@given(data=st.binary(max_size=80) | broken(), cuts=st.lists(st.integers(0, 120), max_size=4))
def test_any_bytes_are_judged_alike_in_any_pieces(make: type[Head], data: bytes, cuts: list[int]):
    """Nothing crashes; the verdict does not depend on how the bytes arrive, nor on what the buffer held before."""
    whole = outcome(make(Limits()), [data])
    sizes = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    assert outcome(make(Limits()), [data[:size] for size in sizes]) == whole
    assert outcome(make(Limits()), [data[:size] for size in range(len(data) + 1)]) == whole


@pytest.mark.parametrize("make", [RequestHead, ResponseHead])
@REPEATABLE
@given(
    data=broken(),
    size=st.integers(0, 120),
    count=st.integers(0, 6),
    target=st.integers(0, 20),
    tail=st.binary(max_size=9),
)
def test_limits_hold_in_any_pieces(
    make: type[Head], data: bytes, size: int, count: int, target: int, tail: bytes
):
    """What is taken keeps every limit, and is taken byte by byte too."""
    limits = Limits(size, count, target)
    whole = outcome(make(limits), [data + tail])
    pieces = outcome(make(limits), [(data + tail)[:stop] for stop in range(len(data + tail) + 1)])
    if not isinstance(whole, tuple) or len(whole) == 2:
        assert not isinstance(pieces, tuple) or len(pieces) == 2
        return
    assert pieces == whole
    assert len(whole[1]) <= size
    assert len(whole[2]) <= count
