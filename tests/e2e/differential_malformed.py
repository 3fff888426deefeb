"""Cases of the differential test: malformed requests, prefixes, and answers of the proxy itself."""

from __future__ import annotations

from tests.e2e.differential_cases import READ, Case, ask, head, raw, refused
from tests.support.differential_upstream import Act

_GET = b"GET / HTTP/1.1"
_HOST = b"Host: example.org"
_CHUNKED = head("/", "Transfer-Encoding: chunked", method="POST")


def _field(name: str, *lines: bytes) -> Case:
    return refused(name, raw(_GET, _HOST, *lines))


def _length(name: str, *fields: bytes) -> Case:
    return refused(name, raw(b"POST / HTTP/1.1", _HOST, *fields), b"hello")


MALFORMED = [
    refused("bad-first-line", b"nonsense\r\n\r\n"),
    refused("bad-two-spaces", raw(b"GET  / HTTP/1.1", _HOST)),
    refused("bad-trailing-space", raw(b"GET / HTTP/1.1 ", _HOST)),
    refused("bad-tab", raw(b"GET\t/ HTTP/1.1", _HOST)),
    refused("bad-version-in-lower-case", raw(b"GET / http/1.1", _HOST)),
    refused("bad-version-1.2", raw(b"GET / HTTP/1.2", _HOST)),
    refused("bad-version-2.0", raw(b"GET / HTTP/2.0", _HOST)),
    refused("bad-version-1", raw(b"GET / HTTP/1", _HOST)),
    refused("bad-tls-hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\r\n\r\n"),
    refused("bad-bare-lf", b"GET / HTTP/1.1\nHost: example.org\n\n"),
    refused("bad-bare-lf-of-a-field", b"GET / HTTP/1.1\r\nHost: example.org\r\nX-A: 1\nX-B: 2\r\n\r\n"),
    refused("bad-host-missing", raw(_GET)),
    refused("bad-host-twice", raw(_GET, _HOST, _HOST)),
    refused("bad-host-empty", raw(_GET, b"Host:")),
    refused("bad-host-with-slash", raw(_GET, b"Host: a/b")),
    refused("bad-host-with-space", raw(_GET, b"Host: a b")),
    refused("bad-host-with-user", raw(_GET, b"Host: u@example.org")),
    refused("bad-host-port", raw(_GET, b"Host: example.org:x")),
    _field("bad-space-before-colon", b"X-A : 1"),
    _field("bad-folding", b"X-A: 1", b" 2"),
    refused("bad-folding-of-the-first-line", raw(_GET, b" X-A: 1", _HOST)),
    _field("bad-no-colon", b"X-A"),
    _field("bad-empty-name", b": 1"),
    _field("bad-name", b"X A: 1"),
    _field("bad-name-not-ascii", b"X-\xe9: 1"),
    _field("bad-nul", b"X-A: a\0b"),
    _field("bad-bare-cr", b"X-A: a\rb"),
    _field("bad-control-character", b"X-A: a\x01b"),
    _field("bad-too-many-fields", *(b"X-%d: 1" % number for number in range(101))),
    _field("bad-head-too-large", *(b"X-%d: " % number + b"a" * 7000 for number in range(6))),
    _length("bad-length-twice", b"Content-Length: 5", b"Content-Length: 5"),
    _length("bad-length-contradicted", b"Content-Length: 5", b"Content-Length: 6"),
    _length("bad-length-list", b"Content-Length: 5, 5"),
    _length("bad-length-negative", b"Content-Length: -5"),
    _length("bad-length-plus", b"Content-Length: +5"),
    _length("bad-length-hex", b"Content-Length: 0x5"),
    _length("bad-length-empty", b"Content-Length:"),
    _length("bad-length-huge", b"Content-Length: 99999999999999999999"),
    _length("bad-coding-with-length", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    _length("bad-coding-unknown", b"Transfer-Encoding: gzip"),
    _length("bad-coding-identity", b"Transfer-Encoding: identity"),
    _length("bad-coding-behind-gzip", b"Transfer-Encoding: gzip, chunked"),
    _length("bad-coding-twice", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    _length("bad-coding-list", b"Transfer-Encoding: chunked, chunked"),
    _length("bad-coding-vertical-tab", b"Transfer-Encoding: \x0bchunked"),
    _length("bad-coding-before-comma", b"Transfer-Encoding: chunked,"),
    refused(
        "bad-coding-of-http-1.0",
        head("/", "Transfer-Encoding: chunked", method="POST", version="HTTP/1.0"),
        b"0\r\n\r\n",
    ),
    refused("bad-chunk-size", _CHUNKED, b"x\r\n"),
    refused("bad-chunk-size-with-prefix", _CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"),
    refused("bad-chunk-size-huge", _CHUNKED, b"fffffffffffffffff\r\nhello"),
    refused("bad-chunk-size-negative", _CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n"),
    refused("bad-chunk-too-long", _CHUNKED, b"4\r\nhello\r\n0\r\n\r\n"),
    refused("bad-chunk-bare-lf", _CHUNKED, b"5\nhello\r\n0\r\n\r\n"),
    refused("bad-chunk-end-bare-lf", _CHUNKED, b"5\r\nhello\n0\r\n\r\n"),
    refused("bad-trailer", _CHUNKED, b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
]

PREFIXES = [
    ask("prefix-taken-away", "/strip/users?x=1"),
    ask("prefix-taken-away-alone", "/strip/"),
    ask("prefix-taken-away-query-alone", "/strip/?a=%2F"),
    ask("prefix-taken-away-escaped-slash", "/strip/a%2Fb"),
    ask("prefix-taken-away-space", "/strip/a%20b"),
    ask("prefix-taken-away-not-ascii", "/strip/%c3%a9"),
    ask("prefix-taken-away-question-mark", "/strip/a%3Fb%23c%25d"),
    ask("prefix-taken-away-delimiters", "/strip/a;b,c:d@e&f=g+h$i!j*k'l(m)"),
    ask("prefix-taken-away-unwise", '/strip/[a]{b}|"<>^`\\'),
    ask("prefix-taken-away-dots", "/strip/a/../b/./c"),
    ask("prefix-taken-away-slashes", "//strip///a"),
    ask("prefix-escaped", "/%73trip/a"),
    ask("prefix-replaced", "/to-v2/users"),
    ask("prefix-replaced-alone", "/to-v2/"),
    ask("prefix-without-slash", "/bare/x"),
    ask("prefix-not-of-a-whole-segment", "/barex"),
]


OWN = [
    ask("own-text", "/text"),
    ask("own-text-of-head", "/text", method="HEAD"),
    ask("own-empty", "/empty"),
    refused("own-redirect", head("/old-page")),
    refused("own-redirect-variables", head("/secure/a%2Fb?c=%20d")),
    refused("own-redirect-of-head", head("/old-page", method="HEAD"), method="HEAD"),
    Case(
        "own-text-with-body",
        (head("/text", "Content-Length: 5", method="POST") + b"hello",),
        methods=("POST",),
    ),
    Case("own-text-http-1.0", (head("/text", version="HTTP/1.0"),)),
    refused("own-no-route", head("/nowhere")),
    refused("own-no-route-of-head", head("/nowhere", method="HEAD"), method="HEAD"),
    refused("own-server-refuses", head("/down")),
    Case("own-server-is-silent", (head("/slow"),), ((READ, Act.READ_ALL),), own=True),
    Case(
        "own-server-is-silent-in-its-head", (head("/slow"),), ((READ, b"HTTP/1.1 2", Act.READ_ALL),), own=True
    ),
    Case(
        "own-server-stalls-in-its-body",
        (head("/slow"),),
        ((READ, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Act.READ_ALL),),
    ),
    Case(
        "own-body-too-large",
        (head("/small", "Content-Length: 2000", method="POST"),),
        methods=("POST",),
        own=True,
    ),
    Case(
        "own-body-chunked-too-large",
        (
            head("/small", "Transfer-Encoding: chunked", method="POST"),
            b"7d0\r\n" + b"a" * 2000 + b"\r\n0\r\n\r\n",
        ),
        methods=("POST",),
        own=True,
    ),
]
