from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.message import Request, Response
from sidecar.policies.base import Policy
from sidecar.policies.rewrite import HostHeader, Rewrite
from sidecar.routing.regex import Regex
from sidecar.routing.target import PathRewriting, PrefixReplacement
from sidecar.template import Template
from sidecar.wire.head import Limits, RequestHead, ResponseHead
from sidecar.wire.target import normal_path


def request(target: bytes = b"/", *, host: bytes = b"example.org") -> Request:
    head = RequestHead(Limits())
    method = b"OPTIONS" if target == b"*" else b"GET"
    head.feed(method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    return Request(head, normal_path(head.path), "192.0.2.1", "http", "public")


def forwarded(policy: Policy, asked: Request) -> Request:
    """The request as the policy forwards it, once."""
    seen = []

    def forward(request: Request) -> Response:
        seen.append(request)
        return Response(ResponseHead.make(200, []))

    policy.handle(asked, forward)
    assert seen == [asked]
    return asked


@pytest.mark.parametrize(
    ("prefix", "replacement", "target", "expected"),
    [
        ("/api", "/", b"/api/users", b"/users"),
        ("/api", "/", b"/api", b"/"),
        ("/api", "/", b"/api/", b"/"),
        ("/api", "/", b"/api?x=1", b"/?x=1"),
        ("/api/", "/", b"/api/users", b"/users"),
        ("/api", "/v2", b"/api/users", b"/v2/users"),
        ("/api", "/v2/", b"/api/users", b"/v2/users"),
        ("/api", "/v2/", b"/api", b"/v2/"),
        ("/api", "/v2", b"/api", b"/v2"),
        ("/api", "/v2", b"/api/", b"/v2/"),
        ("/", "/app", b"/x", b"/app/x"),
        ("/", "/app", b"/", b"/app/"),
        ("/", "/", b"/x/y", b"/x/y"),
        ("/noslash", "/", b"/noslash/x", b"/x"),
        # decoded, normalised, encoded again
        ("/api", "/", b"/api/a%2Fb", b"/a/b"),
        ("/api", "/", b"/%61pi/%7Euser", b"/~user"),
        ("/api", "/", b"/api//x/./y/../z", b"/x/z"),
        ("/api", "/", b"/api/a%20b%3Fc%25", b"/a%20b%3Fc%25"),
        ("/api", "/", b"/api/caf%c3%a9%ff", b"/caf%C3%A9%FF"),
        ("/caf\u00e9", "/\u00fc", b"/caf%c3%a9/x", b"/%C3%BC/x"),
        ("/api", "/", b"/api/.hidden", b"/.hidden"),
        # the query stays, byte for byte
        ("/api", "/", b"/api/x?a=%2f&b=//../", b"/x?a=%2f&b=//../"),
        ("/api", "/", b"/api/x?", b"/x?"),
        ("/api", "/", b"http://example.org/api/x?y", b"/x?y"),
    ],
)
def test_the_prefix_is_replaced_by_whole_segments(
    prefix: str, replacement: str, target: bytes, expected: bytes
) -> None:
    assert forwarded(Rewrite(PrefixReplacement((prefix,), replacement)), request(target)).target == expected


@pytest.mark.parametrize("target", [b"/apifoo", b"/API/x", b"/", b"*"])
def test_what_does_not_have_the_prefix_stays_as_it_came(target: bytes) -> None:
    assert forwarded(Rewrite(PrefixReplacement(("/api",), "/")), request(target)).target is None


def test_the_longest_prefix_counts() -> None:
    policy = Rewrite(PrefixReplacement(("/a", "/a/b", "/c"), "/"))
    assert forwarded(policy, request(b"/a/b/c")).target == b"/c"
    assert forwarded(policy, request(b"/a/bc")).target == b"/bc"


@given(st.text("/.a%2Fe", max_size=12), st.sampled_from(["/", "/v2", "/v2/", "/a/b"]))
def test_a_replaced_prefix_makes_no_double_slash_and_no_dot_segment(rest: str, replacement: str) -> None:
    try:
        asked = request(f"/api/{rest}".encode())
    except Malformed:
        return
    target = forwarded(Rewrite(PrefixReplacement(("/api",), replacement)), asked).target
    if target is not None:
        assert target.startswith(b"/")
        assert b"//" not in target
        assert not {b".", b".."} & set(target.split(b"/"))
        assert normal_path(target).startswith(replacement.rstrip("/"))


@pytest.mark.parametrize(
    ("pattern", "replacement", "target", "expected"),
    [
        ("^/v1/(.*)$", "/$1", b"/v1/users", b"/users"),
        ("^/v1/(.*)$", "/$1", b"/v1/users?a=%2f", b"/users?a=%2f"),
        ("^/v1/(.*)$", "/$1", b"/v1/a%2Fb%20c", b"/a/b%20c"),
        ("^/v1(.*)$", "/$1", b"/v1/users", b"/users"),
        ("^/v1/(.*)$", "$1", b"/v1/users", b"/users"),
        ("^/v1/(.*)$", "/.$1", b"/v1/hidden", b"/.hidden"),
        ("^/(a)?(b)$", "/$2$1", b"/b", b"/b"),
        ("users", "/all", b"/v1/users/7", b"/all"),
        ("^/(.*)$", "/café$$/$1", b"/%ff", b"/caf%C3%A9$$/%FF"),
        # queries
        ("^/u/(.*)$", "/user?id=$1", b"/u/7", b"/user?id=7"),
        ("^/u/(.*)$", "/user?id=$1", b"/u/7?b=1", b"/user?id=7&b=1"),
        ("^/u/(.*)$", "/user?id=$1&x=%20 y", b"/u/a%26b%3Dc%2Fd", b"/user?id=a%26b%3Dc%2Fd&x=%20%20y"),
        ("^/u/(.*)$", "/user?", b"/u/7?b=1", b"/user"),
        ("^/u/(.*)$", "/user?id=$1?", b"/u/7?b=1", b"/user?id=7"),
    ],
)
def test_a_match_replaces_the_whole_path(
    pattern: str, replacement: str, target: bytes, expected: bytes
) -> None:
    assert forwarded(Rewrite(PathRewriting(Regex(pattern), replacement)), request(target)).target == expected


@pytest.mark.parametrize("target", [b"/other/%7e", b"*"])
def test_without_a_match_the_target_stays_as_it_came(target: bytes) -> None:
    assert forwarded(Rewrite(PathRewriting(Regex(r"^/v1/|\*"), "/")), request(target)).target is None


def test_a_rewrite_cannot_climb_out_of_the_root() -> None:
    policy = Rewrite(PathRewriting(Regex(r"^/v1(.*)$"), "/.$1"))
    assert forwarded(policy, request(b"/v1/x")).target == b"/x"
    with pytest.raises(Malformed, match="bad_path"):
        forwarded(Rewrite(PathRewriting(Regex(r"^/v(.*)$"), "/.$1")), request(b"/v./x"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [("app.internal:8000", b"app.internal:8000"), ("{host}", b"example.org"), ("{header.x-none}", None)],
)
def test_the_upstream_sees_the_host_of_the_route(template: str, expected: bytes | None) -> None:
    policy = HostHeader(Template.parse(template))
    assert forwarded(policy, request(host=b"Example.org:81")).host_header == expected


@pytest.mark.parametrize("value", ["a b", "a/b", "user@a", "a:b", "[::1", "\u00fc", "a\tb"])
def test_a_host_that_is_none_is_refused(value: str) -> None:
    asked = request()
    asked.match = {"x": value}
    with pytest.raises(Malformed, match="bad_host"):
        forwarded(HostHeader(Template.parse("{match.x}")), asked)
