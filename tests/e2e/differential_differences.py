"""Where the sidecar differs from nginx on purpose: case, aspect, what each of them does, and why.

References: RFC 9110 to 9112 by section; F-… are the features of the project's semantics.
"""

from __future__ import annotations

from typing import NamedTuple

#: What says who asks for what, the host left out.
_FORWARDING = [
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-port", b"(own)"),
    (b"x-forwarded-proto", b"http"),
    (b"x-real-ip", b"127.0.0.1"),
]


class Difference(NamedTuple):
    """One aspect of a case: its value through nginx, and through the sidecar."""

    aspect: str
    nginx: object
    sidecar: object
    why: str


Differences = tuple[Difference, ...]


def _refused(why: str, status: int = 400) -> Differences:
    """The sidecar refuses what nginx passes on."""
    return (
        Difference("upstream.requests", 1, 0, why),
        Difference("client.status", 200, status, why),
        Difference("client.open", True, False, why),
    )


def _passed(why: str, nginx: int = 400) -> Differences:
    """The sidecar passes on what nginx refuses."""
    return (
        Difference("upstream.requests", 0, 1, why),
        Difference("client.status", nginx, 200, why),
        Difference("client.open", False, True, why),
    )


def _bad_gateway(why: str, nginx: int = 200) -> Differences:
    """The sidecar answers 502 where nginx passes on what the upstream said."""
    return (Difference("client.status", nginx, 502, why),)


def _unanswered(why: str) -> Differences:
    """The sidecar answers 502 where nginx leaves the client without any answer."""
    return (Difference("client.answers", 0, 1, why), Difference("client.open", False, True, why))


def _nonsense(why: str) -> Differences:
    """The sidecar answers 502 where nginx sends the client something that is no response."""
    return (
        Difference("client.status", 0, 502, why),
        Difference("client.ending", "nonsense", "whole", why),
        Difference("client.open", False, True, why),
    )


def _one(aspect: str, nginx: object, sidecar: object, why: str) -> Differences:
    return (Difference(aspect, nginx, sidecar, why),)


def _kept_open(why: str) -> Differences:
    return _one("client.open", False, True, why)


def _host(nginx: bytes, sidecar: bytes, why: str) -> Differences:
    theirs, ours = (
        sorted([(b"host", name), (b"x-forwarded-host", name), *_FORWARDING]) for name in (nginx, sidecar)
    )
    return _one("upstream.forwarding", theirs, ours, why)


_METHOD = "A method is any token, and its case counts (RFC 9110 section 9.1)."
_FRAMED = (
    "The path is bad but the message is framed soundly, so the next one can be read (RFC 9112 section 9.3)."
)
_HOP = "Fields that Connection names end here (RFC 9110 section 7.6.1); nginx passes them on."
_AUTHORITY = "The authority of an absolute target replaces Host (RFC 9112 section 3.2.2, F-concept-1)."
_EXPECT = (
    "The expectation travels to the server that can meet it (RFC 9110 section 10.1.1); nginx meets it itself."
)
_TRAILER = "Trailer belongs to the framing of one connection (F-proxy-headers)."
_CODING = "A transfer coding that breaks the grammar is malformed; 501 is for codings that are unknown."
_LF = "A lone LF does not end a line: who disagree on it can be tricked (RFC 9112 section 2.2)."
_CONTROLS = "Control characters in a value are dangerous and refused (RFC 9110 section 5.5)."
_NO_HTTP = "What is no HTTP/1 response is 502 (F-timeouts); nginx takes it for a body of HTTP/0.9."
_STATUS = "A status is three digits from 100 to 599 (RFC 9110 section 15)."
_INTERIM = "A 1xx is interim (RFC 9110 section 15.2); nginx takes any but 103 for the answer."
_ABORTED = (
    "A body that was cut must not look whole (F-timeouts): RFC 9112 section 8 leaves only the reset for this."
)
_PATH = "What is rewritten is escaped as RFC 3986 section 3.3 says; nginx leaves these bytes as they are."
_SEGMENTS = "A prefix is whole segments and is joined without a second slash (F-location, F-proxy-pass)."

DIFFERENCES: dict[str, Differences] = {
    # requests
    "method-in-lower-case": _passed(_METHOD),
    "method-with-odd-characters": _passed(_METHOD),
    "method-trace": _passed(
        "TRACE is a method like others (RFC 9110 section 9.3.8); a route can leave it out.", 405
    ),
    "target-fragment": _refused("A fragment is never sent (RFC 9112 section 3.2); nginx passes it on."),
    "target-not-ascii": _refused("A target is ASCII (RFC 9112 section 3.2, RFC 3986 section 2)."),
    "target-absolute-in-upper-case": _host(b"example.org", b"EXAMPLE.org", _AUTHORITY),
    "target-absolute-of-another-host": _host(b"example.org", b"other.example", _AUTHORITY),
    "target-asterisk": _passed("OPTIONS * is for the server (RFC 9112 section 3.2.4)."),
    "target-above-the-root": _kept_open(_FRAMED),
    "target-escaped-above-the-root": _kept_open(_FRAMED),
    "target-nul": _kept_open(_FRAMED),
    "target-broken-escape": _kept_open(_FRAMED),
    "target-cut-escape": _kept_open(_FRAMED),
    "field-odd-name": _one(
        "upstream.fields",
        [],
        [(b"X-!#$%&'*+.^`|~9", b"a")],
        "A field name is any token (RFC 9110 section 5.1), and unknown fields are passed on.",
    ),
    "field-underscore": _one(
        "upstream.fields",
        [],
        [(b"X_A", b"1")],
        "Only names that can pass for forwarding fields are dropped (F-proxy-headers).",
    ),
    "field-forwarded": _one(
        "upstream.fields",
        [(b"Forwarded", b"for=1.2.3.4")],
        [],
        "Nobody trusts this client, so what it says about others goes no further (F-proxy-headers).",
    ),
    "hop-connection-names-fields": _one(
        "upstream.fields", [(b"X-A", b"1"), (b"X-B", b"2"), (b"X-C", b"3")], [(b"X-C", b"3")], _HOP
    ),
    "hop-connection-twice": _one("upstream.fields", [(b"X-A", b"1")], [], _HOP),
    "hop-trailer": _one("upstream.fields", [(b"Trailer", b"X-A")], [], _TRAILER),
    "hop-upgrade-to-h2c": (
        Difference("upstream.fields", [(b"HTTP2-Settings", b"AA")], [], _HOP),
        Difference(
            "upstream.upgrade",
            (True, [b"h2c"]),
            (False, []),
            "h2c carries requests past routes (F-websocket).",
        ),
    ),
    "upgrade-of-http-1.0": _one(
        "upstream.upgrade",
        (True, [b"websocket"]),
        (False, []),
        "Upgrade of HTTP/1.0 is ignored (RFC 9110 section 7.8).",
    ),
    "body-trailers": (
        Difference("upstream.fields", [(b"Trailer", b"X-Sum")], [], _TRAILER),
        Difference(
            "upstream.trailers",
            [],
            [(b"X-Sum", b"1")],
            "Trailers are passed on (RFC 9110 section 6.5); nginx drops them.",
        ),
    ),
    "expect-and-get-100": _one("upstream.fields", [], [(b"Expect", b"100-continue")], _EXPECT),
    "expect-and-do-not-wait": _one("upstream.fields", [], [(b"Expect", b"100-continue")], _EXPECT),
    "expect-chunked": _one("upstream.fields", [], [(b"Expect", b"100-Continue")], _EXPECT),
    "expect-and-be-refused": _one("client.interim", [b"100"], [], _EXPECT),
    "expect-without-body": (
        Difference("upstream.fields", [], [(b"Expect", b"100-continue")], _EXPECT),
        Difference("client.interim", [b"100"], [], _EXPECT),
    ),
    "http-1.0": _one(
        "upstream.forwarding",
        _FORWARDING,
        [(b"host", b"(server)"), *_FORWARDING],
        "A request in HTTP/1.1 has a Host (RFC 9112 section 3.2), so the server's address stands in.",
    ),
    "expect-unknown": _refused("An unknown expectation is 417 (RFC 9110 section 10.1.1).", 417),
    # malformed requests
    "bad-two-spaces": _refused("One space between the parts of a request line (RFC 9112 section 3)."),
    "bad-trailing-space": _refused("No space behind a request line (RFC 9112 section 3)."),
    "bad-version-1.2": _refused("There is no HTTP/1.2 (RFC 9110 section 15.6.6).", 505),
    "bad-bare-lf": _refused(_LF),
    "bad-bare-lf-of-a-field": _refused(_LF),
    "bad-no-colon": _refused("A field line has a colon (RFC 9112 section 5); nginx drops such a line."),
    "bad-name-not-ascii": _refused(
        "A field name is a token (RFC 9110 section 5.1); nginx drops such a field."
    ),
    "bad-control-character": _refused(_CONTROLS),
    "bad-too-many-fields": _refused("Of more than max_headers fields too much (RFC 6585 section 5).", 431),
    "bad-head-too-large": _one(
        "client.status", 400, 431, "A head that is too large is 431 (RFC 6585 section 5)."
    ),
    "bad-coding-list": _one("client.status", 501, 400, _CODING),
    "bad-coding-vertical-tab": _one("client.status", 501, 400, _CODING),
    "bad-coding-before-comma": _one("client.status", 501, 400, _CODING),
    "bad-trailer": _refused("Trailers are fields and have their grammar (RFC 9112 section 7.1.2)."),
    # prefixes
    "prefix-taken-away-unwise": _one(
        "upstream.line",
        b'GET /[a]{b}|"<>^`\\ HTTP/1.1',
        b"GET /%5Ba%5D%7Bb%7D%7C%22%3C%3E%5E%60%5C HTTP/1.1",
        _PATH,
    ),
    "prefix-without-slash": _one("upstream.line", b"GET //x HTTP/1.1", b"GET /x HTTP/1.1", _SEGMENTS),
    "prefix-not-of-a-whole-segment": _one(
        "upstream.line", b"GET /x HTTP/1.1", b"GET /barex HTTP/1.1", _SEGMENTS
    ),
    # responses
    "status-204-with-length": _one(
        "client.framing",
        ("none", [b"0"]),
        ("none", []),
        "A 204 has no Content-Length (RFC 9110 section 8.6).",
    ),
    "status-600": _bad_gateway(_STATUS, 600),
    "status-without-space": _one(
        "client.status", b"200", b"200 ", "A status line has a space behind the code (RFC 9112 section 4)."
    ),
    "interim-100-unasked": _kept_open(_INTERIM),
    "interim-102": _kept_open(_INTERIM),
    "interim-several": _one(
        "client.interim", [b"103"], [b"103", b"103"], "Every 1xx is passed on (RFC 9110 section 15.2)."
    ),
    "answer-hop-by-hop": _one("client.fields", [(b"X-A", b"1"), (b"X-B", b"2")], [(b"X-B", b"2")], _HOP),
    "answer-proxy-connection": _one(
        "client.fields",
        [(b"Proxy-Connection", b"close"), (b"TE", b"a")],
        [],
        "Both belong to one connection (RFC 9110 section 7.6.1).",
    ),
    "answer-trailer": _one("client.fields", [(b"Trailer", b"X-A")], [], _TRAILER),
    "answer-accel": _one(
        "client.fields",
        [(b"X-Accel-Other", b"2")],
        [(b"X-Accel-Expires", b"1"), (b"X-Accel-Other", b"2")],
        "X-Accel-* are commands to nginx (F-proxy-headers) and mean nothing to the sidecar.",
    ),
    # responses that cannot be used
    "server-cuts-an-interim": _unanswered(_INTERIM),
    "server-talks-nonsense": _nonsense(_NO_HTTP),
    "server-talks-http-0.9": _unanswered(_NO_HTTP),
    "server-talks-http-2": _nonsense(_NO_HTTP),
    "server-status-of-two-digits": _bad_gateway(_STATUS, 20),
    "server-status-of-four-digits": _bad_gateway(_STATUS, 2000),
    "server-status-below-100": _bad_gateway(_STATUS, 99),
    "server-version-2.0": _bad_gateway("HTTP/2.0 has no status lines (RFC 9113)."),
    "server-bare-lf": _bad_gateway(_LF),
    "server-no-colon": _bad_gateway(
        "A field line has a colon (RFC 9112 section 5); nginx drops such a line."
    ),
    "server-name-not-ascii": _bad_gateway("A field name is a token (RFC 9110 section 5.1)."),
    "server-control-character": _bad_gateway(_CONTROLS),
    "server-coding-in-http-1.0": _bad_gateway(
        "A transfer coding in HTTP/1.0 is faulty framing (RFC 9112 section 6.1)."
    ),
    "server-switches-unasked": (
        Difference("client.status", 101, 502, "Nobody asked to switch (RFC 9110 section 7.8)."),
        Difference("client.ending", "silent", "whole", "It is an answer of the proxy itself."),
        Difference("client.open", False, True, "It is an answer of the proxy itself."),
    ),
    "cut-chunked-of-old-client": (
        Difference("client.ending", "closed", "reset", _ABORTED),
        Difference("client.body", b"hello", None, _ABORTED),
    ),
    "cut-close-reset-of-old-client": (
        Difference("client.ending", "closed", "reset", _ABORTED),
        Difference("client.body", b"hello", None, _ABORTED),
    ),
}
