from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import pytest
from cryptography import x509

from sidecar.message import Request
from sidecar.net.tls_info import Parameters, Shown, TlsInfo
from sidecar.routing.conditions import MAX_PARAMETERS, Condition, compiled, exclude, place
from sidecar.routing.settings import RouteSettings
from sidecar.routing.values import WANTED
from sidecar.wire.head import Limits, RequestHead
from tests.support.signed import named, signed


def request(target: str = "/", *fields: str, method: str = "GET", client: str = "192.0.2.7") -> Request:
    head = RequestHead(Limits(max_target_size=65536, max_header_size=65536))
    lines = [f"{method} {target} HTTP/1.1", "Host: example.org", *fields, "", ""]
    assert head.feed("\r\n".join(lines).encode("utf-8", "surrogateescape"))
    return Request(head, "/", client, "http", "public")


def condition(**options: Any) -> Condition:
    given = {
        key: {name: WANTED.parse(text) for name, text in value.items()} if isinstance(value, dict) else value
        for key, value in options.items()
    }
    (one,) = compiled(RouteSettings(**given))
    return one


def client(*networks: str) -> Condition:
    return condition(client=tuple(ip_network(network) for network in networks))


def shown(certificate: bytes | None = None, verify_error: str = "") -> Request:
    asked = request()
    asked.tls = TlsInfo(Parameters("TLSv1.3", "", "App.example"), Shown(certificate, (), verify_error))
    return asked


CART = signed(
    named("cart"),
    [x509.DNSName("A.example"), x509.DNSName("b.example"), x509.RFC822Name("me@b.example")],
    0xAB,
)


@pytest.mark.parametrize(
    ("one", "asked", "why"),
    [
        (condition(tls={"version": "TLSv1.3"}), shown(), ""),
        (condition(tls={"version": "TLSv1.2"}), shown(), "tls version is 'TLSv1.3', not 'TLSv1.2'"),
        (condition(tls={"version": "TLSv1.3"}), request(), "there is no TLS, which tls.version is about"),
        (condition(tls={"sni": "APP.example"}), shown(), ""),
        (condition(tls={"sni": "~^app"}), shown(), ""),
        (condition(tls={"client_verify": "none"}), shown(), ""),
        (condition(tls={"client_verify": "~^failed"}), shown(CART, "expired"), ""),
        (condition(tls={"client_subject": "CN=cart"}), shown(CART), ""),
        (condition(tls={"client_dns": "a.example"}), shown(CART), ""),
        (condition(tls={"client_dns": "B.example"}), shown(CART), ""),
        (condition(tls={"client_san": "me@b.example"}), shown(CART), ""),
        (condition(tls={"client_serial": "ab"}), shown(CART), ""),
        (condition(tls={"client_fingerprint": sha256(CART).hexdigest().upper()}), shown(CART), ""),
        (
            condition(tls={"client_dns": "c.example"}),
            shown(CART),
            "tls client_dns is 'a.example' and 'b.example', not 'c.example'",
        ),
        (
            condition(tls={"client_uri": "~."}),
            shown(CART),
            "tls client_uri is missing, not '~.'",
        ),
        (
            condition(tls={"client_subject": "CN=cart"}),
            shown(CART, "certificate has expired"),
            "tls.client_subject needs a client certificate that is verified: failed: certificate has expired",
        ),
        (
            condition(tls={"client_subject": "~.*"}),
            shown(),
            "tls.client_subject needs a client certificate that is verified: none",
        ),
    ],
)
def test_a_condition_about_tls_knows_why_not(one: Condition, asked: Request, why: str) -> None:
    assert one.why_not(asked) == why
    assert one.matches(asked) is (not why)


@pytest.mark.parametrize(
    ("one", "asked", "why"),
    [
        (condition(method=("GET", "HEAD")), request(), ""),
        (condition(method=("GET", "HEAD")), request(method="POST"), "method is POST, not GET or HEAD"),
        (condition(method=("GET",)), request(method="get"), "method is get, not GET"),
        (condition(header={"X-A": "yes"}), request("/", "x-a: yes"), ""),
        (condition(header={"X-A": "yes"}), request(), "header X-A is missing, not 'yes'"),
        (condition(header={"X-A": "yes"}), request("/", "X-A: Yes"), "header X-A is 'Yes', not 'yes'"),
        (
            condition(header={"X-A": "yes"}),
            request("/", "X-A: yes", "X-A: no"),
            "header X-A is 'yes, no', not 'yes'",
        ),
        (condition(header={"X-A": "~^y"}), request("/", "X-A: \udcff"), r"header X-A is '\udcff', not '~^y'"),
        (condition(header={"X-A": "~.+"}), request("/", "X-A: \udcff"), ""),
        (condition(header={"X-A": "~.+"}), request("/", "X-A:"), "header X-A is '', not '~.+'"),
        (condition(cookie={"b": "1"}), request("/", "Cookie: a=2; b=1", "Cookie: b=3"), ""),
        (condition(cookie={"b": "1"}), request("/", "Cookie: b=3; b=1"), "cookie b is '3', not '1'"),
        (condition(cookie={"b": "~.+"}), request("/", "Cookie: b; bb=1"), "cookie b is missing, not '~.+'"),
        (condition(query={"v": "2"}), request("/?v=1&v=2"), ""),
        (condition(query={"v": "a b"}), request("/?%76=a%20b"), ""),
        (condition(query={"v": "a b"}), request("/?v=a+b"), ""),
        (condition(query={"v": "~^é$"}), request("/?v=%C3%A9"), ""),
        (condition(query={"v": "2"}), request(), "query v is missing, not '2'"),
        (condition(query={"v": "2"}), request("/?v=1&v=3"), "query v is '1' and '3', not '2'"),
        (client("10.0.0.0/8", "2001:db8::/32"), request(client="10.1.2.3"), ""),
        (client("10.0.0.0/8", "2001:db8::/32"), request(client="2001:db8::1"), ""),
        (client("10.0.0.0/8"), request(), "client 192.0.2.7 is not in 10.0.0.0/8"),
        (client("0.0.0.0/0"), request(client="unix:"), "client unix: is not in 0.0.0.0/0"),
    ],
)
def test_a_condition_knows_why_not(one: Condition, asked: Request, why: str) -> None:
    assert one.why_not(asked) == why
    assert one.matches(asked) is (not why)


def test_the_number_of_parameters_that_are_looked_at_is_bounded() -> None:
    one = condition(query={"v": "2"})
    assert one.matches(request("/?" + "a&" * (MAX_PARAMETERS - 1) + "v=2"))
    assert not one.matches(request("/?" + "a&" * MAX_PARAMETERS + "v=2"))


def test_all_options_become_conditions_cheap_ones_first() -> None:
    wanted = WANTED.parse("1")
    settings = RouteSettings(
        query={"q": wanted},
        cookie={"c": wanted},
        tls={"sni": wanted},
        header={"H": wanted, "G": wanted},
        method=("GET",),
    )
    assert [one.key for one in compiled(settings)] == [
        "method",
        "tls.sni",
        "header.H",
        "header.G",
        "cookie.c",
        "query.q",
    ]
    assert compiled(RouteSettings()) == ()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (condition(method=("GET",)), condition(method=("POST", "PUT")), True),
        (condition(method=("GET",)), condition(method=("GET", "PUT")), False),
        (condition(header={"X-A": "1"}), condition(header={"x-a": "2"}), True),
        (condition(header={"X-A": "1"}), condition(header={"x-b": "2"}), False),
        (condition(header={"X-A": "1"}), condition(header={"X-A": "~^[0-9]$"}), False),
        (condition(header={"X-A": "a"}), condition(header={"X-A": "~^[0-9]$"}), True),
        (condition(header={"X-A": "~^[0-9]$"}), condition(header={"X-A": "a"}), True),
        (condition(header={"X-A": "~^a"}), condition(header={"X-A": "~^b"}), False),
        (condition(cookie={"a": "1"}), condition(cookie={"A": "2"}), False),
        (condition(cookie={"a": "1"}), condition(query={"a": "2"}), False),
        (condition(tls={"sni": "a"}), condition(tls={"sni": "b"}), True),
        (condition(tls={"client_serial": "0a"}), condition(tls={"client_serial": "0A"}), False),
        (condition(tls={"sni": "a"}), condition(tls={"client_dns": "b"}), False),
        (client("10.0.0.0/8"), client("11.0.0.0/8", "fd00::/8"), True),
        (client("10.0.0.0/8"), client("10.1.0.0/16"), False),
        (client("10.0.0.0/8"), condition(method=("GET",)), False),
    ],
)
def test_conditions_that_exclude_each_other(one: Condition, other: Condition, expected: bool) -> None:
    assert exclude(one, other) is expected
    assert exclude(other, one) is expected


def test_a_place_is_where_a_condition_looks() -> None:
    assert place(condition(header={"X-A": "1"})) == "header.x-a"
    assert place(condition(cookie={"A": "1"})) == "cookie.A"
