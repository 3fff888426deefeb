from __future__ import annotations

from typing import Any

import pytest

from sidecar.message import Request, Response
from sidecar.policies.headers import RequestHeaders, ResponseHeaders
from sidecar.routing.settings import RouteSettings
from sidecar.template import Template
from sidecar.wire.head import NONE, Limits, Names, RequestHead, ResponseHead


def settings(**verbs: Any) -> RouteSettings:
    """A route with these verbs; families are given as texts."""
    return RouteSettings(
        **{
            option: {name: Template.parse(text) for name, text in value.items()}
            if isinstance(value, dict)
            else value
            for option, value in verbs.items()
        }
    )


def request(*fields: bytes) -> Request:
    head = RequestHead(Limits())
    head.feed(b"GET / HTTP/1.1\r\nHost: example.org\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n")
    made = Request(head, "/", "192.0.2.1", "http", "public")
    made.extra = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
    return made


def answer(*fields: tuple[bytes, bytes]) -> Response:
    return Response(ResponseHead.make(200, list(fields)))


def upstream_gets(policy: RequestHeaders | None, asked: Request) -> list[bytes]:
    """The field lines that reach the upstream, Host left out."""
    assert policy is not None
    seen = []

    def forward(request: Request) -> Response:
        seen.append(request.head.render(drop=request.drop, extra=request.extra))
        return answer()

    policy.handle(asked, forward)
    return seen[0].split(b"\r\n")[2:-2]


def client_gets(policy: ResponseHeaders | None, given: Response, asked: Request | None = None) -> list[bytes]:
    assert policy is not None
    response = policy.handle(asked or request(), lambda request: given)
    return response.head.render(NONE, True, 11, response.drop, response.extra).split(b"\r\n")[1:-2]


FORWARDING = [b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: http"]


def test_nothing_configured_is_no_policy() -> None:
    assert RequestHeaders.of(settings()) is None
    assert ResponseHeaders.of(settings()) is None


def test_set_replaces_every_line_of_the_client() -> None:
    policy = RequestHeaders.of(settings(request_header={"X-Env": "prod", "X-Ip": "{client_ip}"}))
    asked = request(b"x-env: 1", b"X-ENV: 2", b"Accept: a")
    assert upstream_gets(policy, asked) == [b"Accept: a", *FORWARDING, b"X-Env: prod", b"X-Ip: 192.0.2.1"]


def test_add_keeps_what_is_there() -> None:
    policy = RequestHeaders.of(settings(request_header_add={"X-Env": "prod"}))
    assert upstream_gets(policy, request(b"X-Env: 1")) == [b"X-Env: 1", *FORWARDING, b"X-Env: prod"]


@pytest.mark.parametrize("value", ["d", "{scheme}"])
def test_default_gives_way_to_what_is_there(value: str) -> None:
    policy = RequestHeaders.of(settings(request_header_default={"X-Env": value}))
    written = Template.parse(value).render(request()).encode()
    assert upstream_gets(policy, request(b"x-env: 1")) == [b"x-env: 1", *FORWARDING]
    assert upstream_gets(policy, request()) == [*FORWARDING, b"X-Env: " + written]


def test_a_field_dropped_before_does_not_count_as_there() -> None:
    policy = RequestHeaders.of(settings(request_header_default={"Forwarded": "d", "X-Forwarded-Host": "h"}))
    asked = request(b"Forwarded: for=x", b"X-Forwarded-Host: spoofed")
    asked.drop = Names([b"forwarded"])
    assert upstream_gets(policy, asked) == [*FORWARDING, b"Forwarded: d", b"X-Forwarded-Host: h"]


CLIENT_CERT = [b"X-Forwarded-Client-Cert: Hash=0"]


@pytest.mark.parametrize(
    ("verbs", "expected"),
    [
        ({"request_header": {"X-Forwarded-Client-Cert": "mine"}}, [b"X-Forwarded-Client-Cert: mine"]),
        ({"request_header_remove": ("x-forwarded-client-cert",)}, []),
        ({"request_header_default": {"X-Forwarded-Client-Cert": "unused"}}, CLIENT_CERT),
    ],
)
def test_the_route_wins_over_what_the_listener_says_of_a_certificate(
    verbs: dict[str, Any], expected: list[bytes]
) -> None:
    asked = request()
    asked.extra = b"X-Forwarded-Client-Cert: Hash=0\r\n"
    assert upstream_gets(RequestHeaders.of(settings(**verbs)), asked) == expected
    # Off, the one of a trusted proxy came with the request.
    asked = request(*CLIENT_CERT)
    asked.extra = b""
    assert upstream_gets(RequestHeaders.of(settings(**verbs)), asked) == expected


def test_always_is_one_field_in_place_of_all() -> None:
    policy = ResponseHeaders.always("A", "1")
    assert client_gets(policy, answer((b"a", b"2"), (b"B", b"3"))) == [b"B: 3", b"A: 1"]


def test_remove_then_set_then_default_then_add() -> None:
    policy = RequestHeaders.of(
        settings(
            request_header={"A": "set"},
            request_header_add={"A": "add", "B": "add", "C": "add"},
            request_header_default={"a": "default", "B": "default", "C": "default"},
            request_header_remove=("B", "Z"),
        )
    )
    asked = request(b"A: client", b"B: client", b"C: client", b"Z: client")
    expected = [b"C: client", *FORWARDING, b"A: set", b"B: default", b"A: add", b"B: add", b"C: add"]
    assert upstream_gets(policy, asked) == expected


def test_the_route_wins_over_the_forwarding_fields() -> None:
    policy = RequestHeaders.of(
        settings(
            request_header={"X-Forwarded-Proto": "https"},
            request_header_default={"x-forwarded-for": "unused", "X-Real-IP": "{client_ip}"},
        )
    )
    expected = [FORWARDING[0], b"X-Forwarded-Proto: https", b"X-Real-IP: 192.0.2.1"]
    assert upstream_gets(policy, request(b"X-Real-IP: 203.0.113.9")) == expected
    removing = RequestHeaders.of(settings(request_header_remove=("x-forwarded-for",)))
    assert upstream_gets(removing, request()) == FORWARDING[1:]


def test_names_dropped_before_stay_dropped() -> None:
    policy = RequestHeaders.of(settings(request_header_remove=("B",)))
    dropped = Names([b"A"])
    for _ in range(2):
        asked = request(b"A: 1", b"B: 2", b"C: 3")
        asked.drop = dropped
        assert upstream_gets(policy, asked) == [b"C: 3", *FORWARDING]
    keeping = RequestHeaders.of(settings(request_header_add={"D": "4"}))
    asked = request(b"A: 1")
    asked.drop = dropped
    assert upstream_gets(keeping, asked) == [*FORWARDING, b"D: 4"]


def test_joined_sets_of_names_do_not_pile_up() -> None:
    policy = RequestHeaders.of(settings(request_header_remove=("B",)))
    assert policy is not None
    for number in range(200):
        asked = request(b"A: 1", b"B: 2")
        asked.drop = Names([b"A%d" % number, b"A"])
        assert upstream_gets(policy, asked) == FORWARDING
    assert len(policy._edits._unions) <= 64


def test_a_value_that_renders_empty_is_not_sent() -> None:
    policy = RequestHeaders.of(settings(request_header={"X-A": "{header.x-b}", "X-C": "{{"}))
    assert upstream_gets(policy, request(b"X-A: client")) == [*FORWARDING, b"X-C: {"]
    assert upstream_gets(policy, request(b"X-B: b"))[-2:] == [b"X-A: b", b"X-C: {"]


def test_a_value_cannot_inject_a_field() -> None:
    policy = ResponseHeaders.of(settings(response_header={"X-A": "{match.x}"}))
    asked = request()
    asked.match = {"x": "1\r\nSet-Cookie: a=b"}
    assert client_gets(policy, answer(), asked) == [b"X-A: 1Set-Cookie: a=b"]


def test_the_verbs_hold_for_responses() -> None:
    policy = ResponseHeaders.of(
        settings(
            response_header={"X-Frame-Options": "DENY"},
            response_header_add={"Vary": "X-A"},
            response_header_default={"Cache-Control": "no-store", "Server": "me"},
            response_header_remove=("X-Powered-By",),
        )
    )
    given = answer(
        (b"x-frame-options", b"ALLOW"), (b"Vary", b"A"), (b"Server", b"up"), (b"X-Powered-By", b"p")
    )
    assert client_gets(policy, given) == [
        b"Vary: A",
        b"Server: up",
        b"X-Frame-Options: DENY",
        b"Cache-Control: no-store",
        b"Vary: X-A",
    ]


def test_lines_that_others_added_to_the_response_are_edited_too() -> None:
    policy = ResponseHeaders.of(
        settings(response_header={"X-A": "route"}, response_header_default={"X-B": "route"})
    )
    given = answer()
    given.extra = b"X-A: inner\r\nX-B: inner\r\n"
    assert client_gets(policy, given) == [b"X-B: inner", b"X-A: route"]


def test_a_failure_is_edited_by_itself() -> None:
    policy = ResponseHeaders.of(settings(response_header={"X-A": "1"}))
    assert policy is not None
    failed = answer()
    policy.edit(request(), failed)
    assert failed.extra == b"X-A: 1\r\n"
