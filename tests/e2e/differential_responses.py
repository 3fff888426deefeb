"""Cases of the differential test that are about what the upstream answers."""

from __future__ import annotations

from tests.e2e.differential_cases import OK, READ, Case, answered, fields, head
from tests.support.differential_exchange import DATE, Await
from tests.support.differential_upstream import Act, Read

_LARGE = bytes(range(256)) * 800  # 200 KiB
_LENGTH = fields("200 OK", "Content-Length: 5")
_CHUNKED = fields("200 OK", "Transfer-Encoding: chunked")
_CLOSE = fields("200 OK")
_CHUNKS = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
_KEEP = ("Connection: keep-alive",)

RESPONSES = [
    answered("response-length", _LENGTH, b"hello"),
    answered("response-length-zero", fields("200 OK", "Content-Length: 0")),
    answered("response-chunked", _CHUNKED, _CHUNKS),
    answered("response-chunked-empty", _CHUNKED, b"0\r\n\r\n"),
    answered("response-chunk-extensions", _CHUNKED, b"05;a=b\r\nhello\r\n0;c\r\n\r\n"),
    answered("response-trailers", _CHUNKED, b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", fields=("TE: trailers",)),
    answered("response-close", _CLOSE, b"hello", Act.CLOSE),
    answered("response-close-empty", _CLOSE, Act.CLOSE),
    answered(
        "response-says-close", fields("200 OK", "Connection: close", "Content-Length: 5"), b"hello", Act.CLOSE
    ),
    answered("response-large", fields("200 OK", f"Content-Length: {len(_LARGE)}"), _LARGE),
    answered("response-large-chunked", _CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(_LARGE), _LARGE)),
    answered("response-http-1.0-close", fields("200 OK", version="HTTP/1.0"), b"hello", Act.CLOSE),
    answered(
        "response-http-1.0-keep-alive",
        fields("200 OK", "Connection: keep-alive", "Content-Length: 5", version="HTTP/1.0"),
        b"hello",
    ),
    answered("response-in-pieces", *(bytes([byte]) for byte in _LENGTH + b"hello")),
    Case("response-buffered", (head("/buffered/"),), ((READ, _CHUNKED, _CHUNKS),)),
    Case("response-buffered-close", (head("/buffered/"),), ((READ, _CLOSE, b"hello", Act.CLOSE),)),
    answered("old-client-length", _LENGTH, b"hello", version="HTTP/1.0"),
    answered("old-client-length-keep-alive", _LENGTH, b"hello", version="HTTP/1.0", fields=_KEEP),
    answered("old-client-chunked", _CHUNKED, _CHUNKS, version="HTTP/1.0"),
    answered("old-client-chunked-keep-alive", _CHUNKED, _CHUNKS, version="HTTP/1.0", fields=_KEEP),
    answered("old-client-close", _CLOSE, b"hello", Act.CLOSE, version="HTTP/1.0"),
    answered("old-client-interim", fields("103 Early Hints"), _LENGTH, b"hello", version="HTTP/1.0"),
    answered("head-length", fields("200 OK", "Content-Length: 500"), method="HEAD"),
    answered("head-chunked", _CHUNKED, method="HEAD"),
    answered("head-without-length", _CLOSE, method="HEAD"),
    answered("status-204", fields("204 No Content", "X-A: 1")),
    answered("status-204-with-length", fields("204 No Content", "Content-Length: 0")),
    answered("status-304", fields("304 Not Modified", 'ETag: "a"')),
    answered("status-304-with-length", fields("304 Not Modified", "Content-Length: 500")),
    answered("status-204-chunked", fields("204 No Content", "Transfer-Encoding: chunked")),
    answered("status-304-chunked", fields("304 Not Modified", "Transfer-Encoding: chunked")),
    answered("interim-with-length", fields("103 Early Hints", "Content-Length: 3"), _LENGTH, b"hello"),
    answered("status-205", fields("205 Reset Content", "Content-Length: 0")),
    answered("status-404", fields("404 Not Found", "Content-Length: 5"), b"hello"),
    answered("status-500", fields("500 Oh", "Content-Length: 5"), b"hello"),
    answered("status-unknown", fields("299 Mostly Fine", "Content-Length: 0")),
    answered("status-599", fields("599 Odd", "Content-Length: 0")),
    answered("status-600", fields("600 Beyond", "Content-Length: 0"), own=True),
    answered("status-without-phrase", fields("200 ", "Content-Length: 0")),
    answered("status-without-space", fields("200", "Content-Length: 0")),
    answered("status-phrase-not-ascii", fields("200 \xe9 \xff", "Content-Length: 0")),
    answered("interim-103", fields("103 Early Hints", "Link: </a>"), _LENGTH, b"hello"),
    answered("interim-100-unasked", fields("100 Continue"), _LENGTH, b"hello", nginx_hangs=True),
    answered(
        "interim-several",
        fields("103 Early Hints", "Link: </a>"),
        fields("103 Early Hints"),
        _LENGTH,
        b"hello",
    ),
    answered("interim-102", fields("102 Processing"), _LENGTH, b"hello", nginx_hangs=True),
]

_ZERO = "Content-Length: 0"
RESPONSE_FIELDS = [
    answered("answer-duplicates", fields("200 OK", "X-A: 1", "X-B: 2", "X-A: 3", "x-a: 4", _ZERO)),
    answered("answer-cookies", fields("200 OK", "Set-Cookie: a=1", "X-A: 1", "Set-Cookie: b=2", _ZERO)),
    answered(
        "answer-lists", fields("200 OK", "Vary: a", "Vary: b", "Cache-Control: c", "Cache-Control: d", _ZERO)
    ),
    answered("answer-challenges", fields("401 No", "WWW-Authenticate: Basic", "WWW-Authenticate: X", _ZERO)),
    answered("answer-empty", fields("200 OK", "X-Empty:", "X-Blank:  ", _ZERO)),
    answered("answer-blanks-around", fields("200 OK", "X-A: \t a  b \t", _ZERO)),
    answered("answer-not-ascii", fields("200 OK", "X-A: \xe9\xff", _ZERO)),
    answered("answer-underscore", fields("200 OK", "X_A: 1", _ZERO)),
    answered("answer-location", fields("302 Found", "Location: http://127.0.0.1:1/a", _ZERO)),
    answered("answer-date-and-server", fields("200 OK", f"Date: {DATE.decode()}", "Server: s/1", _ZERO)),
    answered("answer-validators", fields("200 OK", 'ETag: W/"a"', f"Last-Modified: {DATE.decode()}", _ZERO)),
    answered(
        "answer-hop-by-hop", fields("200 OK", "Connection: X-A", "Keep-Alive: a", "X-A: 1", "X-B: 2", _ZERO)
    ),
    answered("answer-proxy-connection", fields("200 OK", "Proxy-Connection: close", "TE: a", _ZERO)),
    answered("answer-upgrade-offer", fields("426 No", "Connection: upgrade", "Upgrade: a", _ZERO)),
    answered("answer-trailer", fields("200 OK", "Trailer: X-A", _ZERO)),
    answered("answer-accel", fields("200 OK", "X-Accel-Expires: 1", "X-Accel-Other: 2", _ZERO)),
    answered("answer-types", fields("200 OK", "Content-Type: a/b; c=d", "Content-Encoding: gzip", _ZERO)),
    answered("answer-many", fields("200 OK", *(f"X-{number}: {number}" for number in range(80)), _ZERO)),
]


def _unusable(name: str, *script: bytes | Act, nginx_hangs: bool = False) -> Case:
    return answered(name, *script, Act.CLOSE, own=True, nginx_hangs=nginx_hangs)


UNUSABLE = [
    _unusable("server-says-nothing"),
    answered("server-resets", Act.RESET, own=True),
    _unusable("server-cuts-its-head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    _unusable("server-cuts-an-interim", b"HTTP/1.1 100 Continue\r\n\r\n", nginx_hangs=True),
    _unusable("server-talks-nonsense", b"nonsense\r\n\r\n"),
    _unusable("server-talks-http-0.9", b"<html>hello</html>", nginx_hangs=True),
    _unusable("server-talks-http-2", b"\0\0\x12\4\0\0\0\0\0\r\n\r\n"),
    _unusable("server-status-of-two-digits", fields("20 OK", _ZERO)),
    _unusable("server-status-of-four-digits", fields("2000 OK", _ZERO)),
    _unusable("server-status-below-100", fields("099 OK", _ZERO)),
    _unusable("server-version-2.0", fields("200 OK", _ZERO, version="HTTP/2.0")),
    _unusable("server-bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    _unusable("server-no-colon", fields("200 OK", "X-A", _ZERO)),
    _unusable("server-space-before-colon", fields("200 OK", "X-A : 1", _ZERO)),
    _unusable("server-folding", fields("200 OK", "X-A: 1", " 2", _ZERO)),
    _unusable("server-nul", fields("200 OK", "X-A: a\0b", _ZERO)),
    _unusable("server-bare-cr", fields("200 OK", "X-A: a\rb", _ZERO)),
    _unusable("server-control-character", fields("200 OK", "X-A: a\x01b", _ZERO)),
    _unusable("server-length-twice", fields("200 OK", _ZERO, _ZERO)),
    _unusable("server-length-contradicted", fields("200 OK", _ZERO, "Content-Length: 1"), b"a"),
    _unusable("server-length-negative", fields("200 OK", "Content-Length: -1")),
    _unusable(
        "server-length-and-coding",
        fields("200 OK", "Transfer-Encoding: chunked", "Content-Length: 5"),
        _CHUNKS,
    ),
    _unusable("server-length-list", fields("200 OK", "Content-Length: 1, 1"), b"a"),
    _unusable("server-length-empty", fields("200 OK", "Content-Length:")),
    _unusable("server-length-huge", fields("200 OK", "Content-Length: 99999999999999999999"), b"a"),
    _unusable("server-coding-identity", fields("200 OK", "Transfer-Encoding: identity"), b"hello"),
    _unusable("server-coding-behind-gzip", fields("200 OK", "Transfer-Encoding: gzip, chunked"), _CHUNKS),
    _unusable("server-name-not-ascii", fields("200 OK", "X-\xe9: 1", _ZERO)),
    _unusable("server-name-empty", fields("200 OK", ": 1", _ZERO)),
    _unusable("server-coding-unknown", fields("200 OK", "Transfer-Encoding: gzip"), b"hello"),
    _unusable("server-coding-twice", fields("200 OK", *["Transfer-Encoding: chunked"] * 2), _CHUNKS),
    _unusable(
        "server-coding-in-http-1.0",
        fields("200 OK", "Transfer-Encoding: chunked", version="HTTP/1.0"),
        _CHUNKS,
    ),
    _unusable("server-head-too-large", fields("200 OK", *(f"X-{n}: {'a' * 7000}" for n in range(12)), _ZERO)),
    _unusable(
        "server-switches-unasked",
        fields("101 Go", "Connection: upgrade", "Upgrade: websocket"),
        nginx_hangs=True,
    ),
]


def _cut(
    name: str,
    seen: bytes,
    awaited: bytes,
    *rest: bytes | Act,
    version: str = "HTTP/1.1",
    end: Act = Act.CLOSE,
) -> Case:
    """The server sends `seen`, and what follows once `awaited` has reached the client."""
    return Case(
        name, (head("/", version=version), Await(awaited)), ((READ, seen, Act.AWAIT_CLIENT, *rest, end),)
    )


_HEAD_END = b"\r\n\r\n"
CUT = [
    _cut("cut-length", _LENGTH + b"he", b"he"),
    _cut("cut-length-behind-the-head", _LENGTH, _HEAD_END),
    _cut("cut-length-reset", _LENGTH + b"he", b"he", end=Act.RESET),
    _cut("cut-length-of-old-client", _LENGTH + b"he", b"he", version="HTTP/1.0"),
    _cut("cut-chunked", _CHUNKED + b"5\r\nhe", b"he"),
    _cut("cut-chunked-between-chunks", _CHUNKED + b"5\r\nhello\r\n", b"hello"),
    _cut("cut-chunked-before-the-last-line", _CHUNKED + b"5\r\nhello\r\n", b"hello", b"0\r\n"),
    _cut("cut-chunked-of-old-client", _CHUNKED + b"5\r\nhello\r\n", b"hello", version="HTTP/1.0"),
    _cut("cut-close-reset", _CLOSE + b"hello", b"hello", end=Act.RESET),
    _cut("cut-close-reset-of-old-client", _CLOSE + b"hello", b"hello", version="HTTP/1.0", end=Act.RESET),
    _cut("bad-chunk-in-response", _CHUNKED + b"5\r\nhello\r\n", b"hello", b"x\r\n"),
    _cut("bad-chunk-end-in-response", _CHUNKED, _HEAD_END, b"4\r\nhello\r\n0\r\n\r\n"),
    answered("body-to-head", _LENGTH + b"hello", Act.CLOSE, method="HEAD"),
    answered("body-of-204", fields("204 No Content") + b"hello", Act.CLOSE),
    answered("body-of-304", fields("304 Not Modified", "Content-Length: 5") + b"hello", Act.CLOSE),
    Case(
        "early-answer-that-keeps-the-connection",
        (head("/", "Content-Length: 20", method="POST"), Await(b"no!"), b"a" * 20),
        ((fields("413 No", "Content-Length: 3"), b"no!", READ),),
        ("POST",),
        probe=False,
    ),
    Case(
        "early-answer",
        (head("/", "Content-Length: 20", method="POST"), Await(b"no!"), b"a" * 20),
        ((fields("413 No", "Content-Length: 3", "Connection: close"), b"no!", Act.READ_ALL),),
        ("POST",),
        probe=False,
    ),
]

_STRAY = fields("200 OK", "X-Stray: 1", "Content-Length: 5") + b"stray"


def _followed(name: str, answer: bytes, method: str = "GET") -> Case:
    """The server says more than it may, on a connection that could serve the next request."""
    requests = head("/a", method=method) + head("/b")
    return Case(name, (requests,), ((READ, answer + _STRAY), OK), methods=(method, "GET"))


#: Whoever reads the rest as the answer to the next request, which may be somebody else's, hands out answers.
STRAYS = [
    _followed("stray-behind-length", _LENGTH + b"hello"),
    _followed("stray-behind-chunked", _CHUNKED + _CHUNKS),
    _followed("stray-behind-head", _LENGTH, method="HEAD"),
    _followed("stray-behind-204", fields("204 No Content")),
    _followed("stray-behind-304", fields("304 Not Modified", "Content-Length: 5")),
    _followed("stray-behind-empty", fields("200 OK", "Content-Length: 0")),
]

_UPGRADE = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: a",
    "Sec-WebSocket-Version: 13",
)
_SWITCH = fields(
    "101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: b"
)


def _upgraded(
    name: str, *script: bytes | Act | Read, steps: tuple[bytes, ...] = (), probe: bool = True
) -> Case:
    return Case(name, (head("/ws", *_UPGRADE), *steps), ((READ, *script),), probe=probe)


UPGRADES = [
    _upgraded(
        "upgrade",
        _SWITCH + b"early ",
        Read(4),
        b"pong",
        Act.CLOSE,
        steps=(Await(b"early "), b"ping", Await(b"pong")),
        probe=False,
    ),
    _upgraded("upgrade-ends-at-once", _SWITCH, Act.CLOSE, probe=False),
    _upgraded("upgrade-is-refused", fields("403 No", "Content-Length: 3"), b"no!"),
    _upgraded("upgrade-is-ignored", _CHUNKED, _CHUNKS),
    Case(
        "upgrade-with-bytes-ahead",
        (head("/ws", *_UPGRADE) + b"ping", Await(b"pong")),
        ((READ, _SWITCH, Read(4), b"pong", Act.CLOSE),),
        probe=False,
    ),
    Case("upgrade-of-http-1.0", (head("/ws", *_UPGRADE, version="HTTP/1.0"),), probe=False),
]
