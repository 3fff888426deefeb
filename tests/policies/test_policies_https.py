"""Around all routes of a listener: what is plain is sent to HTTPS, and browsers are told to stay there."""

from __future__ import annotations

from typing import Any

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.net.client_address import UNTRUSTED_DROP
from sidecar.net.https import Hsts
from sidecar.net.settings import ListenerSettings
from sidecar.net.tls_info import Parameters, Shown, TlsInfo
from sidecar.policies.https import certifying, redirecting
from sidecar.policies.order import around, failure_edit_around
from sidecar.respond import failure
from sidecar.wire.head import LENGTH, NONE, Limits, Names, RequestHead, ResponseHead
from tests.support.signed import named, signed


def request(method: bytes = b"GET", target: bytes = b"/x") -> Request:
    head = RequestHead(Limits())
    assert head.feed(method + b" " + target + b" HTTP/1.1\r\nHost: example.org\r\n\r\n")
    return Request(head, target.decode(), "192.0.2.1", "http", "public")


def routes(request: Request) -> Response:
    fields = [(b"strict-transport-security", b"max-age=1"), (b"A", b"1"), (b"B", b"2")]
    response = Response(ResponseHead.make(200, fields))
    response.drop = Names([b"A"])
    response.extra = b"Strict-Transport-Security: max-age=2\r\nC: 3\r\n"
    return response


def fields(response: Response, framing: int = NONE) -> list[bytes]:
    return response.head.render(framing, True, 11, response.drop, response.extra).split(b"\r\n")[:-2]


def nothing(request: Request, response: Response) -> None:
    """No route edits failures."""


def plain(**options: Any) -> ListenerSettings:
    return ListenerSettings(bind=(Address("::", 80),), **options)


def secure(**options: Any) -> ListenerSettings:
    return plain(tls=("site",), **options)


def test_off_is_absent() -> None:
    assert redirecting(routes, 0) is routes
    assert certifying(routes, "off") is routes
    for settings in (
        plain(hsts=Hsts(60), client_certificate_header="client-cert"),
        secure(https_redirect=443),
    ):
        assert around(settings, routes) is routes
        assert failure_edit_around(settings, nothing) is nothing


def test_a_redirect_has_no_body_and_asks_no_route() -> None:
    response = around(plain(https_redirect=443), routes)(request())
    assert fields(response, LENGTH) == [
        b"HTTP/1.1 301 Moved Permanently",
        b"Location: https://example.org/x",
        b"Content-Length: 0",
    ]
    assert response.body is None
    moved = redirecting(routes, 8443)(request(b"POST"))
    assert (moved.head.status, moved.head.get(b"location")) == (308, b"https://example.org:8443/x")


def test_an_authority_is_answered_by_the_routes() -> None:
    asked = request(target=b"/.well-known/acme-challenge/token")
    assert redirecting(routes, 443)(asked).head.status == 200


def test_every_answer_has_the_one_hsts_of_the_listener() -> None:
    response = around(secure(hsts=Hsts(60)), routes)(request())
    assert fields(response) == [
        b"HTTP/1.1 200 OK",
        b"B: 2",
        b"C: 3",
        b"Strict-Transport-Security: max-age=60",
    ]


def test_a_failure_has_it_too_after_what_its_route_adds() -> None:
    def edit(request: Request, response: Response) -> None:
        response.extra += b"D: 4\r\n"

    response = failure(Failure("no_route"), b"HEAD")
    failure_edit_around(secure(hsts=Hsts(60)), edit)(request(), response)
    assert fields(response)[-2:] == [b"D: 4", b"Strict-Transport-Security: max-age=60"]


CLAIMED = (
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: evil\r\nclient_cert: :ZXZpbA==:\r\nA: 1\r\n\r\n"
)


def claiming(tls: TlsInfo | None, drop: Names | None) -> list[bytes]:
    """What the upstream gets of a request that claims to have a certificate."""
    head = RequestHead(Limits())
    assert head.feed(CLAIMED)
    asked = Request(head, "/", "192.0.2.1", "https", "public")
    asked.tls, asked.drop, asked.extra = tls, drop, b"X-Forwarded-Proto: https\r\n"
    certifying(routes, "x-forwarded-client-cert")(asked)
    return head.render(drop=asked.drop, extra=asked.extra).split(b"\r\n")[2:-2]


def test_the_upstream_hears_of_a_certificate_from_the_proxy_alone() -> None:
    parameters = Parameters("TLSv1.3", "")
    for drop in (None, Names(UNTRUSTED_DROP)):
        shown = TlsInfo(parameters, Shown(signed(named("me"))))
        *others, line = claiming(shown, drop)
        assert others == [b"A: 1", b"X-Forwarded-Proto: https"]
        assert line.startswith(b"X-Forwarded-Client-Cert: Hash=")
        assert line.endswith(b';Subject="CN=me"')
        for nobody in (None, TlsInfo(parameters, Shown())):
            assert claiming(nobody, drop) == [b"A: 1", b"X-Forwarded-Proto: https"]
