"""The parser of heads beside llhttp, the parser of Node.js: what we take, llhttp takes, and reads alike.

Law: the other direction is not claimed. We refuse more than llhttp does; DIFFERENCES lists what, and why.
Differences in reading that are meant:
- llhttp leaves whitespace at the end of a value; RFC 9112 section 5.1 excludes it.
- llhttp upgrades in HTTP/1.0 and to h2c; we never do (RFC 9110 section 7.8; h2c would pass the routes by).
- Whether a response upgrades depends on its status and on the request; that is for the caller, not compared.
- llhttp lets keep-alive win over close in HTTP/1.0; for us close wins (RFC 9112 section 9.3).
- llhttp does not know the request that a response answers; GET is compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.head import Limits, RequestHead, ResponseHead

EXAMPLES = settings(max_examples=150)


class Reading(NamedTuple):
    """What a parser makes of a head."""

    start: tuple[object, ...]
    fields: list[tuple[bytes, bytes]]
    version: int
    keep_alive: bool
    upgrade: bool


class Listener:
    """Collects llhttp's callbacks; its answers about the connection hold only while the head is complete."""

    def __init__(self, make: Any) -> None:
        self.text = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.verdict: tuple[int, bool, bool] | None = None
        self.parser = make(self)

    def on_url(self, data: bytes) -> None:
        self.text += data

    def on_status(self, data: bytes) -> None:
        self.text += data

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        version = int(self.parser.get_http_version().replace(".", ""))
        self.verdict = (version, self.parser.should_keep_alive(), self.parser.should_upgrade())


def theirs(make: Any, section: bytes) -> Reading | None:
    """llhttp's reading; None when it refuses the head or wants more."""
    listener = Listener(make)
    try:
        listener.parser.feed_data(section)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    if listener.verdict is None:
        return None
    of_request = make is httptools.HttpRequestParser
    version, keep_alive, upgrade = listener.verdict
    first = listener.parser.get_method() if of_request else listener.parser.get_status_code()
    return Reading((first, listener.text), listener.fields, version, keep_alive, upgrade and of_request)


def ours(head: RequestHead | ResponseHead, section: bytes) -> Reading | None:
    try:
        if head.feed(section) == 0:
            return None
    except Malformed:
        return None
    if isinstance(head, ResponseHead):
        return Reading((head.status, head.reason), head.fields(), head.version, head.keep_alive, False)
    assert head.upgrade is None or (head.version == 11 and b"h2c" not in head.upgrade.lower())
    start = (head.method, head.target)
    return Reading(start, head.fields(), head.version, head.keep_alive, head.upgrade is not None)


def assert_alike(mine: Reading, oracle: Reading) -> None:
    """The same reading, but for the differences of the docstring."""
    words = {
        option.strip(b" \t").lower()
        for name, value in mine.fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    protocols = [value.lower() for name, value in mine.fields if name.lower() == b"upgrade"]
    if mine.version == 10 or any(b"h2c" in protocol for protocol in protocols):
        oracle = oracle._replace(upgrade=mine.upgrade)
    if mine.version == 10 and {b"close", b"keep-alive"} <= words:
        oracle = oracle._replace(keep_alive=False)
    assert mine == oracle


# Heads made of lines that are mostly right.

METHODS = st.sampled_from(
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"REPORT", b"M-SEARCH"]
)
PATH = b"!\"$%&'()*+,-./0:;<=>?@A[\\]^_`{|}~"
AUTHORITIES = st.sampled_from(
    [b"a", b"A.b:80", b"[::1]", b"[2001:db8::1]:443", b"a:", b"a-b.c_d", b"192.0.2.1:8"]
)
PATHS = st.lists(st.sampled_from(PATH), max_size=8).map(lambda path: b"/" + bytes(path))
TARGETS = PATHS | st.builds(
    lambda a, path: b"http://" + a + path, AUTHORITIES, PATHS | st.sampled_from([b"", b"?a=/"])
)
TOKEN = b"!#$%&'*+-.^_`|~09azAZ"
NAMES = st.lists(st.sampled_from(TOKEN), min_size=1, max_size=5).map(bytes)
TEXT = st.lists(st.sampled_from(b'aZ0 \t",:;=(){}@\\/\x80\xff~!'), max_size=8).map(bytes)
OPTIONS = st.sampled_from(
    [b"close", b"Close", b"keep-alive", b"KEEP-ALIVE", b"upgrade", b"Upgrade", b"x", b"closed", b""]
)
CONNECTION = st.lists(OPTIONS, min_size=1, max_size=3).map(
    lambda options: b"Connection: " + b", ".join(options)
)
UPGRADE = st.sampled_from([b"websocket", b"a/1", b"h2c", b"websocket, H2C"]).map(
    lambda name: b"upgrade: " + name
)
PLAIN = st.builds(
    lambda name, space, value: name + b":" + space + value, NAMES, st.sampled_from([b"", b" ", b"\t "]), TEXT
)
FRAMING = st.sampled_from(
    [b"Content-Length: 0", b"Content-Length:\t12 ", b"Transfer-Encoding: Chunked", b"A: b"]
)
FIELDS = st.lists(PLAIN | CONNECTION | UPGRADE, max_size=5)
STATUSES = st.sampled_from([200, 204, 206, 304, 404, 500, 599])
REASONS = st.sampled_from([b"", b" ", b" OK", b" Not  Found", b" \xff\tx"])

REQUEST_LINES = st.builds(
    lambda method, target, version: b"%b %b HTTP/%b" % (method, target, version),
    METHODS,
    TARGETS,
    st.sampled_from([b"1.1", b"1.1", b"1.0"]),
)
STATUS_LINES = st.builds(
    lambda version, status, reason: b"HTTP/%b %d%b" % (version, status, reason),
    st.sampled_from([b"1.1", b"1.1", b"1.0"]),
    STATUSES,
    REASONS,
)


def joined(start: bytes, host: list[bytes], fields: list[bytes], framing: bytes) -> bytes:
    if b"HTTP/1.0" in start and framing.startswith(b"Transfer"):
        framing = b"A: b"
    return b"\r\n".join([start, *host, *fields, framing, b"", b""])


REQUESTS = st.builds(joined, REQUEST_LINES, AUTHORITIES.map(lambda a: [b"Host: " + a]), FIELDS, FRAMING)
RESPONSES = st.builds(joined, STATUS_LINES, st.just([]), FIELDS, FRAMING)

DAMAGE = st.sampled_from(
    [
        b"",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n ",
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b":",
        b",",
        b"#",
        b"[",
        b"@",
    ]
    + [
        b"\r\nContent-Length: 5",
        b"\r\ncontent-length: +5",
        b"\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1",
        b"0",
        b"9",
    ]
)


@st.composite
def damaged(draw: st.DrawFn, sections: st.SearchStrategy[bytes]) -> bytes:
    """A head with one or two places overwritten, or something put in between; nothing behind its end."""
    section = bytearray(draw(sections))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(section)))
        section[at : at + draw(st.integers(0, 2))] = draw(DAMAGE)
    end = section.find(b"\r\n\r\n", 1)
    return bytes(section[: end + 4] if end > 0 else section)


@EXAMPLES
@given(REQUESTS)
def test_a_valid_request_is_read_as_llhttp_reads_it(section: bytes):
    mine, oracle = ours(RequestHead(Limits()), section), theirs(httptools.HttpRequestParser, section)
    assert mine is not None
    assert oracle is not None
    assert_alike(mine, oracle)


@EXAMPLES
@given(RESPONSES)
def test_a_valid_response_is_read_as_llhttp_reads_it(section: bytes):
    mine, oracle = ours(ResponseHead(Limits()), section), theirs(httptools.HttpResponseParser, section)
    assert mine is not None
    assert oracle is not None
    assert_alike(mine, oracle)


@EXAMPLES
@given(damaged(REQUESTS))
def test_a_request_that_llhttp_refuses_is_refused(section: bytes):
    """And one that we take in spite of the damage is read alike."""
    mine = ours(RequestHead(Limits()), section)
    if mine is None or mine.start[0] not in KNOWN:
        return
    oracle = theirs(httptools.HttpRequestParser, section)
    assert oracle is not None
    assert_alike(mine, oracle)


@EXAMPLES
@given(damaged(RESPONSES))
def test_a_response_that_llhttp_refuses_is_refused(section: bytes):
    mine = ours(ResponseHead(Limits()), section)
    if mine is None:
        return
    oracle = theirs(httptools.HttpResponseParser, section)
    assert oracle is not None
    assert_alike(mine, oracle)


KNOWN = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"REPORT", b"M-SEARCH"}
HOST = b"\r\nHost: a\r\n"

#: Requests that llhttp takes and we do not.
DIFFERENCES = [
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="Host is required: RFC 9112 section 3.2"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="one Host: RFC 9112 section 3.2"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", id="a Host is a host: RFC 9112 section 3.2"),
    pytest.param(b"GET /a#b HTTP/1.1" + HOST + b"\r\n", id="a fragment is never sent: RFC 9112 section 3.2"),
    pytest.param(
        b"GET * HTTP/1.1" + HOST + b"\r\n", id="asterisk-form is for OPTIONS: RFC 9112 section 3.2.4"
    ),
    pytest.param(b"GET ftp://a/ HTTP/1.1" + HOST + b"\r\n", id="only http and https are ours"),
    pytest.param(b"GET  / HTTP/1.1" + HOST + b"\r\n", id="one space: RFC 9112 section 3"),
    pytest.param(b"GET /\r\n\r\n", id="HTTP/0.9 has no head"),
    pytest.param(b"GET / HTTP/2.0" + HOST + b"\r\n", id="HTTP/2 has no request line"),
    pytest.param(
        b"\r\n\r\nGET / HTTP/1.1" + HOST + b"\r\n", id="one empty line is enough: RFC 9112 section 2.2"
    ),
    pytest.param(
        b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        id="codings beneath chunked are not implemented: RFC 9112 section 6.1",
    ),
    pytest.param(
        b"POST / HTTP/1.0" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        id="HTTP/1.0 has no transfer codings: RFC 9112 section 6.1",
    ),
    pytest.param(
        b"POST / HTTP/1.1" + HOST + b"Content-Length: 1000000000000000000\r\n\r\n",
        id="no body has an exabyte: RFC 9110 section 8.6 asks for a bound",
    ),
    pytest.param(b"PUT / HTTP/1.1" + HOST + b"Expect: a\r\n\r\n", id="RFC 9110 section 10.1.1: 417"),
]


@pytest.mark.parametrize("section", DIFFERENCES)
def test_where_we_are_stricter_than_llhttp(section: bytes):
    assert theirs(httptools.HttpRequestParser, section) is not None
    assert ours(RequestHead(Limits()), section) is None


def test_a_method_that_llhttp_does_not_know_is_a_method():
    """The one difference in the other direction: methods are open (RFC 9110 section 16.1)."""
    section = b"BREW / HTTP/1.1" + HOST + b"\r\n"
    assert theirs(httptools.HttpRequestParser, section) is None
    assert ours(RequestHead(Limits()), section) is not None
