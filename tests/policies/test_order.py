from __future__ import annotations

import pytest

from sidecar.message import Request, Response
from sidecar.policies.base import Policy
from sidecar.policies.body_limit import BodyLimit
from sidecar.policies.headers import RequestHeaders, ResponseHeaders
from sidecar.policies.order import ORDER, chain, failure_edit
from sidecar.policies.rewrite import HostHeader, Rewrite
from sidecar.routing.settings import RouteSettings
from sidecar.routing.values import Redirect, Respond
from sidecar.template import Template
from sidecar.wire.head import Limits, RequestHead, ResponseHead


def request(target: bytes = b"/api/x") -> Request:
    head = RequestHead(Limits())
    head.feed(b"GET " + target + b" HTTP/1.1\r\nHost: example.org\r\n\r\n")
    return Request(head, target.decode(), "192.0.2.1", "http", "public")


def end(request: Request) -> Response:
    return Response(ResponseHead.make(200, []))


def test_the_order_is_this() -> None:
    assert (ResponseHeaders, BodyLimit, RequestHeaders, HostHeader, Rewrite) == ORDER


def test_every_policy_is_in_the_order() -> None:
    ours = {policy for policy in Policy.__subclasses__() if policy.__module__.startswith("sidecar.")}
    assert ours == set(ORDER)


def test_with_nothing_configured_the_chain_is_the_end() -> None:
    assert chain(RouteSettings(), end) is end


def test_what_is_configured_is_in_the_chain() -> None:
    value = Template.parse("1")
    handler = chain(
        RouteSettings(
            path_prefix=("/api",),
            request_header={"A": value},
            response_header={"B": value},
            host_header=Template.parse("app"),
            replace_prefix="/",
        ),
        end,
    )
    asked = request()
    response = handler(asked)
    assert (asked.extra, response.extra) == (b"A: 1\r\n", b"B: 1\r\n")
    assert (asked.host_header, asked.target) == (b"app", b"/x")


def test_a_route_may_end_in_itself() -> None:
    moved = RouteSettings(redirect=Redirect(308, Template.parse("/y")))
    assert chain(moved, None)(request()).head.status == 308
    told = RouteSettings(
        respond=Respond(200, Template.parse("OK")),
        response_header={"Content-Type": Template.parse("text/html")},
    )
    response = chain(told, None)(request())
    assert (response.body, response.extra) == (b"OK", b"Content-Type: text/html\r\n")
    assert response.drop is not None
    with pytest.raises(ValueError, match="action"):
        chain(RouteSettings(), None)


def test_a_failure_gets_the_response_fields_of_its_route() -> None:
    assert failure_edit(RouteSettings()) is None
    edit = failure_edit(RouteSettings(response_header={"A": Template.parse("{host}")}))
    assert edit is not None
    failed = end(request())
    edit(request(), failed)
    assert failed.extra == b"A: example.org\r\n"
