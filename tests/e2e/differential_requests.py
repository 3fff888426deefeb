"""Cases of the differential test that are about requests."""

from __future__ import annotations

from tests.e2e.differential_cases import OK, READ, Case, ask, disputed, fields, head, raw, refused, send
from tests.support.differential_exchange import Await, Move
from tests.support.differential_upstream import Act

_HOST = b"Host: example.org"
_LARGE = bytes(range(256)) * 800  # 200 KiB

METHODS = [
    ask("method-get"),
    ask("method-head", method="HEAD"),
    ask("method-delete", method="DELETE"),
    ask("method-options", method="OPTIONS"),
    ask("method-of-an-extension", method="M-SEARCH"),
    disputed("method-in-lower-case", method="get"),
    disputed("method-with-odd-characters", method="A!B"),
    disputed("method-trace", method="TRACE"),
    refused("method-connect", raw(b"CONNECT example.org:443 HTTP/1.1", b"Host: example.org:443")),
]

TARGETS = [
    ask("target-root"),
    ask("target-escaped-slash", "/a%2Fb"),
    ask("target-escape-in-lower-case", "/a%2fb%c3%a9"),
    ask("target-escaped-unreserved", "/%61%7Eb"),
    ask("target-escaped-space", "/a%20b+c"),
    ask("target-double-slashes", "//a//b/"),
    ask("target-dot-segments", "/a/./b/../c"),
    ask("target-escaped-dots", "/a/%2e%2E/b"),
    ask("target-delimiters", "/a;p=1,2/(b)'!$&*=@:~"),
    ask("target-unwise-characters", '/[x]{y}|"<>^`\\'),
    ask("target-query", "/a?b=c&d=e&b=f"),
    ask("target-empty-query", "/a?"),
    ask("target-query-of-paths", "/a?../..//%2e%2F?x?y"),
    ask("target-query-with-broken-escape", "/a?b=%zz&c=%"),
    ask("target-long", "/" + "a" * 4000),
    disputed("target-fragment", "/a#b"),
    disputed("target-not-ascii", "/\xc3\xa9"),
    ask("target-absolute", "http://example.org/a%2Fb?c"),
    ask("target-absolute-in-upper-case", "HTTP://EXAMPLE.org/A"),
    ask("target-absolute-without-path", "http://example.org"),
    ask("target-absolute-query-without-path", "http://example.org?a"),
    ask("target-absolute-of-another-host", "http://other.example/a"),
    disputed("target-asterisk", "*", method="OPTIONS"),
    refused("target-above-the-root", head("/a/../../b")),
    refused("target-escaped-above-the-root", head("/%2e%2e/b")),
    refused("target-nul", head("/a%00b")),
    refused("target-broken-escape", head("/a%zz")),
    refused("target-cut-escape", head("/a%2")),
    refused("target-asterisk-of-get", head("*")),
    refused("target-without-slash", head("a/b")),
    refused("target-with-space", head("/a b")),
    refused("target-empty", raw(b"GET  HTTP/1.1", _HOST)),
    refused("target-absolute-without-host", head("http:///a")),
    refused("target-too-long", head("/" + "a" * 9000)),
]

FIELDS = [
    ask("field-duplicates", "/", "X-A: 1", "X-B: 2", "X-A: 3", "x-a: 4"),
    ask("field-cookies", "/", "Cookie: a=1", "Cookie: b=2; c=3"),
    ask("field-lists", "/", "Accept: a/b", "Accept: c/d", "Accept-Encoding: gzip", "Via: 1.1 p"),
    ask("field-empty", "/", "X-Empty:", "X-Blank:   "),
    ask("field-blanks-around", "/", "X-Blanks: \t a  b \t"),
    ask("field-without-blank", "/", "X-A:b:c"),
    ask("field-not-ascii", "/", "X-A: \xe9\xff"),
    ask("field-odd-name", "/", "X-!#$%&'*+.^`|~9: a"),
    ask("field-underscore", "/", "X_A: 1"),
    ask("field-long", "/", "X-A: " + "a" * 7000),
    ask("field-many", "/", *(f"X-{number}: {number}" for number in range(80))),
    ask("field-conditions", "/", 'If-None-Match: "a"', "If-Range: b", "Range: bytes=0-1"),
    ask("field-authorization", "/", "Authorization: Basic YTpi", "Proxy-Authorization: Basic YTpi"),
    ask("field-forwarding-is-replaced", "/", "X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4"),
    ask(
        "field-more-forwarding", "/", "X-Forwarded-Proto: https", "X-Forwarded-Host: a", "X-Forwarded-Port: 1"
    ),
    ask("field-forwarding-underscores", "/", "X_Forwarded_For: 1.2.3.4", "X_Real_IP: 1.2.3.4"),
    ask("field-forwarded", "/", "Forwarded: for=1.2.3.4"),
    Case("host-with-port", (raw(b"GET / HTTP/1.1", b"Host: Example.ORG:8080"),)),
    Case("host-is-an-address", (raw(b"GET / HTTP/1.1", b"Host: [::1]:80"),)),
    Case("host-ends-with-dot", (raw(b"GET / HTTP/1.1", b"Host: example.org."),)),
    Case("host-is-not-first", (raw(b"GET / HTTP/1.1", b"X-A: 1", _HOST, b"X-B: 2"),)),
]

HOP_BY_HOP = [
    ask("hop-connection-close", "/", "Connection: close"),
    ask("hop-connection-keep-alive", "/", "Connection: keep-alive", "Keep-Alive: timeout=5"),
    ask("hop-connection-names-fields", "/", "Connection: X-A, x-b", "X-A: 1", "X-B: 2", "X-C: 3"),
    ask("hop-connection-twice", "/", "Connection: X-A", "Connection: close", "X-A: 1"),
    ask("hop-connection-names-host", "/", "Connection: Host"),
    ask("hop-connection-names-forwarding", "/", "Connection: X-Forwarded-For, X-Real-IP"),
    ask("hop-connection-odd-lists", "/", "Connection: ,, ;x , close ,"),
    ask("hop-proxy-connection", "/", "Proxy-Connection: keep-alive"),
    ask("hop-te-trailers", "/", "Connection: TE", "TE: trailers"),
    ask("hop-te-gzip", "/", "TE: gzip"),
    ask("hop-trailer", "/", "Trailer: X-A"),
    ask("hop-upgrade-alone", "/", "Upgrade: websocket"),
    ask(
        "hop-upgrade-to-h2c",
        "/ws",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AA",
    ),
]

BODIES = [
    send("body-length", b"hello", "Content-Length: 5"),
    send("body-length-zero", b"", "Content-Length: 0"),
    send("body-length-with-leading-zeros", b"hello", "Content-Length: 0005"),
    send("body-large", _LARGE, f"Content-Length: {len(_LARGE)}", method="PUT"),
    send("body-of-get", b"hello", "Content-Length: 5", method="GET"),
    send("body-of-delete", b"hello", "Content-Length: 5", method="DELETE"),
    send("body-missing", b""),
    send("body-chunked", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    send("body-chunked-empty", b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    send("body-chunked-in-capitals", b"00A\r\n0123456789\r\n000\r\n\r\n", "Transfer-Encoding: Chunked"),
    send("body-chunk-extensions", b'5;a;b="c"\r\nhello\r\n0;d\r\n\r\n', "Transfer-Encoding: chunked"),
    send(
        "body-trailers",
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        "Transfer-Encoding: chunked",
        "Trailer: X-Sum",
    ),
    send(
        "body-chunked-large", b"%x\r\n%b\r\n0\r\n\r\n" % (len(_LARGE), _LARGE), "Transfer-Encoding: chunked"
    ),
    send("body-length-named-by-connection", b"hello", "Content-Length: 5", "Connection: Content-Length"),
    send(
        "body-coding-named-by-connection",
        b"1\r\na\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked",
        "Connection: Transfer-Encoding",
    ),
    send("body-buffered", b"hello", "Content-Length: 5", target="/buffered/"),
    send(
        "body-buffered-chunked", b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", target="/buffered/"
    ),
    Case(
        "body-in-pieces",
        (
            head("/", "Transfer-Encoding: chunked", method="POST"),
            *(b"%c" % byte for byte in b"2\r\nab\r\n0\r\n\r\n"),
        ),
        methods=("POST",),
    ),
    Case(
        "body-of-http-1.0",
        (head("/", "Content-Length: 5", method="POST", version="HTTP/1.0"), b"hello"),
        methods=("POST",),
    ),
    Case(
        "body-cut-by-the-client",
        (head("/", "Content-Length: 9", method="POST"), b"hello", Move.HALF_CLOSE),
        ((READ,),),
        methods=("POST",),
        own=True,
    ),
    Case(
        "body-chunked-cut-by-the-client",
        (head("/", "Transfer-Encoding: chunked", method="POST"), b"5\r\nhello\r\n", Move.HALF_CLOSE),
        ((READ,),),
        methods=("POST",),
        own=True,
    ),
]

_EXPECT = head("/", "Expect: 100-continue", "Content-Length: 5", method="POST")
EXPECT = [
    Case(
        "expect-and-get-100",
        (_EXPECT, Await(b"100 Continue\r\n\r\n"), b"hello"),
        ((Act.CONTINUE, *OK),),
        ("POST",),
    ),
    Case("expect-and-do-not-wait", (_EXPECT + b"hello",), ((Act.CONTINUE, *OK),), ("POST",)),
    Case(
        "expect-and-be-refused",
        (_EXPECT, Await(b"no!")),
        ((b"HTTP/1.1 417 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!", Act.READ_ALL),),
        ("POST",),
        probe=False,
    ),
    Case(
        "expect-chunked",
        (
            head("/", "Expect: 100-Continue", "Transfer-Encoding: chunked", method="POST"),
            Await(b"100 Continue\r\n\r\n"),
            b"5\r\nhello\r\n0\r\n\r\n",
        ),
        ((Act.CONTINUE, *OK),),
        ("POST",),
    ),
    Case(
        "expect-where-bodies-are-buffered",
        (
            head("/buffered/", "Expect: 100-continue", "Content-Length: 5", method="POST"),
            Await(b"100 Continue\r\n\r\n"),
            b"hello",
        ),
        methods=("POST",),
    ),
    Case(
        "expect-of-http-1.0-with-body",
        (head("/", "Expect: 100-continue", "Content-Length: 5", method="POST", version="HTTP/1.0"), b"hello"),
        ((Act.CONTINUE, *OK),),
        ("POST",),
    ),
    Case("expect-without-body", (head("/", "Expect: 100-continue"),)),
    Case("expect-of-http-1.0", (head("/", "Expect: 100-continue", version="HTTP/1.0"),)),
    refused("expect-unknown", head("/", "Expect: miracles")),
]

CONNECTIONS = [
    Case("pipelined", (head("/a") + head("/b"),), methods=("GET", "GET")),
    Case(
        "pipelined-with-bodies",
        (
            head("/a", "Content-Length: 5", method="POST") + b"hello" + head("/b", method="HEAD"),
            head("/c", "Transfer-Encoding: chunked", method="PUT") + b"1\r\na\r\n0\r\n\r\n" + head("/d"),
        ),
        methods=("POST", "HEAD", "PUT", "GET"),
    ),
    Case("pipelined-behind-close", (head("/a", "Connection: close") + head("/b"),)),
    Case(
        "pipelined-behind-malformed",
        (head("/a") + b"nonsense\r\n\r\n" + head("/b"),),
        methods=("GET", "GET"),
        own=True,
    ),
    Case("http-1.0", (raw(b"GET / HTTP/1.0"),)),
    Case("http-1.0-keep-alive", (head("/", "Connection: keep-alive", version="HTTP/1.0"),)),
    Case("http-1.0-keep-alive-in-capitals", (head("/", "Connection: Keep-Alive", version="HTTP/1.0"),)),
    Case(
        "client-resets-its-upload",
        (head("/", "Content-Length: 9", method="POST"), b"hello", Await(b"early"), Move.RESET),
        ((fields("200 OK", "Content-Length: 50"), b"early", Act.READ_ALL),),
        methods=("POST",),
    ),
    Case(
        "client-resets-its-download",
        (head("/"), Await(b"early"), Move.RESET),
        ((READ, fields("200 OK", f"Content-Length: {1 << 40}"), b"early", Act.SEND_ON),),
    ),
    Case(
        "client-half-closes",
        (head("/"), Await(b"HTTP/1.1 103"), Move.HALF_CLOSE),
        ((READ, fields("103 Early Hints", "Link: </a>"), Act.READ_ALL),),
        probe=False,
    ),
    Case("empty-line-ahead", (b"\r\n" + head("/"),)),
    Case("request-in-pieces", tuple(bytes([byte]) for byte in head("/a?b", "X-A: 1"))),
]
