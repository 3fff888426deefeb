from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.message import Request, Response
from sidecar.policies.rewrite import Rewrite
from sidecar.routing.settings import RouteSettings
from sidecar.routing.target import upstream_target
from sidecar.routing.values import REWRITE
from sidecar.wire.head import Limits, RequestHead, ResponseHead
from sidecar.wire.target import normal_path, quote_path


def request(target: bytes) -> Request:
    head = RequestHead(Limits())
    method = b"OPTIONS" if target == b"*" else b"GET"
    assert head.feed(method + b" " + target + b" HTTP/1.1\r\nHost: example.org\r\n\r\n")
    return Request(head, normal_path(head.path), "192.0.2.7", "http", "public")


def route(rewrite: str = "", **options: Any) -> RouteSettings:
    return RouteSettings(rewrite=REWRITE.parse(rewrite) if rewrite else None, **options)


@pytest.mark.parametrize(
    ("settings", "target", "expected"),
    [
        (route(), b"/a%2fb//c?x=%zz", b"/a%2fb//c?x=%zz"),
        (route(path_prefix=("/api",), replace_prefix="/"), b"/api/users?x=1", b"/users?x=1"),
        (route(path_prefix=("/api",), replace_prefix="/"), b"/api", b"/"),
        (route(path_prefix=("/api",), replace_prefix="/v2/"), b"/api/users", b"/v2/users"),
        (route(path_prefix=("/api",), replace_prefix="/"), b"/api/a%2Fb%20c", b"/a/b%20c"),
        (route(path_prefix=("/a", "/a/b"), replace_prefix="/"), b"/a/b/c", b"/c"),
        (route(path=("/x",), path_prefix=("/a",), replace_prefix="/"), b"/x", b"/x"),
        (route("^/v1/(.*)$ /$1"), b"/v1/a?b=1", b"/a?b=1"),
        (route("^/v1/(.*)$ /$1?"), b"/v1/a?b=1", b"/a"),
        (route("^/u/(.*)$ /user?id=$1&v=%41"), b"/u/a&b?c", b"/user?id=a%26b&v=%41&c"),
        (route("^/u/(x)?(.*)$ /$1$2"), b"/u/y", b"/y"),
        (route("^/v1/(.*)$ /$1"), b"/other?q", b"/other?q"),
        (route("(.*) /x$1"), b"*", b"*"),
    ],
)
def test_targets(settings: RouteSettings, target: bytes, expected: bytes) -> None:
    assert upstream_target(settings, request(target)) == expected


def test_a_rewrite_cannot_leave_the_root() -> None:
    with pytest.raises(Malformed, match="bad_path"):
        upstream_target(route("^/(.)(.*)$ /.$1/$2"), request(b"/..."))


ROUTES = [
    route(path_prefix=("/a", "/a/b", "/"), replace_prefix="/"),
    route(path_prefix=("/a", "/b"), replace_prefix="/v/"),
    route("^/a(.*)$ $1"),
    route("^/(.*)/(.*)$ /$2/$1?x=$1&$2"),
    route("^/(a)?(.*)$ /.$1.$2?"),
]


@given(
    st.sampled_from(ROUTES),
    st.lists(st.sampled_from(["a", "b", "/", ".", "&", "é", " ", "\udcff", "%"]), max_size=8),
    st.sampled_from([b"", b"?", b"?q=1&r"]),
)
def test_the_policies_send_what_is_told_here(settings: RouteSettings, parts: list[str], query: bytes) -> None:
    path = "/" + "".join(parts).replace("/.", "/a")
    seen: list[bytes] = []

    def forward(asked: Request) -> Response:
        seen.append(asked.head.origin if asked.target is None else asked.target)
        return Response(ResponseHead.make(200, []))

    policy = Rewrite.of(settings)
    assert policy is not None
    try:
        told = upstream_target(settings, request(quote_path(path) + query))
    except Malformed:
        with pytest.raises(Malformed):
            policy.handle(request(quote_path(path) + query), forward)
    else:
        policy.handle(request(quote_path(path) + query), forward)
        assert seen == [told]
