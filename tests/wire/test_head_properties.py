"""What holds for every head, valid or not: properties of the parser and of what is rendered."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH, NONE, Head, Limits, RequestHead, ResponseHead
from sidecar.wire.target import normal_path

EXAMPLES = settings(max_examples=150)
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


@EXAMPLES
@given(requests(), st.booleans())
def test_a_request_survives_the_proxy(
    case: tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]], upgrade: bool
):
    """parse → render → parse keeps method, target and end-to-end fields, in order; twice is as once."""
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


@EXAMPLES
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


@EXAMPLES
@given(FIELDS)
def test_make_takes_exactly_the_fields_it_is_given(fields: list[tuple[bytes, bytes]]):
    fields = [field for field in fields if field[0].lower() not in MEANING]
    assert ResponseHead.make(200, fields).fields() == fields


@EXAMPLES
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
@EXAMPLES
@given(data=st.binary(max_size=80) | broken(), cuts=st.lists(st.integers(0, 120), max_size=4))
def test_any_bytes_are_judged_alike_in_any_pieces(make: type[Head], data: bytes, cuts: list[int]):
    """Nothing crashes, and the verdict does not depend on how the bytes arrive."""
    whole = outcome(make(Limits()), [data])
    sizes = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    assert outcome(make(Limits()), [data[:size] for size in sizes]) == whole
    assert outcome(make(Limits()), [data[:size] for size in range(len(data) + 1)]) == whole


@pytest.mark.parametrize("make", [RequestHead, ResponseHead])
@EXAMPLES
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


@EXAMPLES
@given(st.text(alphabet="/.%a2F~*?", max_size=12))
def test_a_path_that_needs_no_work_is_the_normal_one(rest: str) -> None:
    """What the head says at once is what `normal_path` makes, or nothing."""
    head = RequestHead(Limits())
    assert head.feed(f"GET /{rest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    said = head.normal()
    try:
        made = normal_path(head.path)
    except Malformed:
        assert said is None
    else:
        assert said in (made, None)
        if not set(rest) & set("/.%"):
            assert said == made


def test_what_is_no_path_needs_a_look() -> None:
    head = RequestHead(Limits())
    assert head.feed(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head.normal() is None


def test_hosts_that_come_again_are_one_object_and_others_are_others() -> None:
    hosts = []
    for name in (b"A.example.:80", b"A.example.:80", b"b.example", b"A.example.:80", b"a.example"):
        head = RequestHead(Limits())
        assert head.feed(b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
        hosts.append((head.host, head.authority, head.port))
    assert [one for one, _, _ in hosts] == ["a.example", "a.example", "b.example", "a.example", "a.example"]
    assert [one for _, one, _ in hosts][2:] == [b"b.example", b"A.example.:80", b"a.example"]
    assert [one for _, _, one in hosts] == [80, 80, None, 80, None]
    assert hosts[0][0] is hosts[1][0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET http://a.example/abc HTTP/1.1\r\nHos",
        b"GET http://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://a.example:80/ HTTP/1.1\r\nHost: ab@c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nExpect: much\r\n\r\n",
    ],
    ids=["never fed", "half", "without host", "bad host", "bad expectation"],
)
def test_a_head_that_is_not_sound_names_no_host_and_leaves_nothing_to_the_next(data: bytes) -> None:
    head = RequestHead(Limits())
    with contextlib.suppress(Malformed):
        assert not data or head.feed(data) == 0
    assert (head.host, head.authority, head.normal()) == ("", b"", None)
    for authority in (b"a.example", b"a.example:80"):
        following = RequestHead(Limits())
        assert following.feed(b"GET / HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n")
        assert (following.host, following.authority) == ("a.example", authority)
