from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.routing.ambiguity import Ambiguity, ambiguities
from sidecar.routing.regex import Regex
from sidecar.routing.settings import RouteSettings
from sidecar.routing.table import Route, Router
from sidecar.routing.values import WANTED, parse_host


def route(name: str, **options: Any) -> Route:
    given = dict(options)
    if "host" in given:
        given["host"] = tuple(parse_host(one) for one in given["host"].split())
    if "client" in given:
        given["client"] = tuple(ip_network(one) for one in given["client"].split())
    for key in ("path", "path_prefix", "method"):
        if key in given:
            given[key] = tuple(given[key].split())
    if "path_regex" in given:
        given["path_regex"] = Regex(given["path_regex"])
    for key in ("header", "query", "cookie"):
        if key in given:
            given[key] = {name: WANTED.parse(text) for name, text in given[key].items()}
    return Route(name, RouteSettings(**given))


def found(*routes: Route) -> list[Ambiguity]:
    return list(ambiguities(Router(routes).entries))


@pytest.mark.parametrize(
    ("one", "other", "example"),
    [
        ({}, {}, "GET http://example.org/"),
        ({"path": "/é"}, {"path": "/é /c"}, "GET http://example.org/%C3%A9"),
        ({"path_prefix": "/a"}, {"path_prefix": "/a"}, "GET http://example.org/a"),
        ({"host": "a.b"}, {"host": "A.B c"}, "GET http://a.b/"),
        ({"host": "*.b"}, {"host": "*.b"}, "GET http://a.b/"),
        ({"path_regex": "^/u/[0-9]$"}, {"path_regex": "^/u/[0-9]$"}, "GET http://example.org/u/1"),
        ({"path_regex": r"^/\pL$"}, {"path_regex": r"^/\pL$"}, "GET http://example.org/PATH"),
        ({"method": "GET PUT"}, {"method": "POST PUT"}, "PUT http://example.org/"),
        (
            {"header": {"X-A": "1"}},
            {"query": {"v": "a b"}},
            "GET http://example.org/?v=a%20b with 'X-A: 1'",
        ),
        (
            {"header": {"X-A": "1"}},
            {"header": {"x-a": "~^[0-9]$"}},
            "GET http://example.org/ with 'x-a: 1'",
        ),
        (
            {"client": "10.0.0.0/8"},
            {"client": "fd00::/8 10.1.0.0/16"},
            "GET http://example.org/ from 10.1.0.0",
        ),
        (
            {"cookie": {"c": "~^[0-9]$"}},
            {"client": "10.0.0.0/8"},
            "GET http://example.org/ with 'Cookie: c=1' from 10.0.0.0",
        ),
    ],
)
def test_a_request_that_both_match_is_shown(one: dict[str, Any], other: dict[str, Any], example: str) -> None:
    (ambiguity,) = found(route("a", **one), route("b", **other))
    assert (ambiguity.one.route.name, ambiguity.other.route.name) == ("a", "b")
    assert (ambiguity.example, ambiguity.is_certain) == (example, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"priority": 1}, {}),
        ({"host": "a"}, {"host": "b"}),
        ({"host": "a"}, {}),
        ({"host": "*.b"}, {"host": "*.c"}),
        ({"path": "/a"}, {"path": "/b"}),
        ({"path": "/a"}, {"path_prefix": "/a"}),
        ({"path_prefix": "/"}, {}),
        ({"method": "GET"}, {}),
        ({"method": "GET"}, {"method": "POST"}),
        ({"header": {"X-A": "1"}}, {"header": {"X-A": "2"}}),
        ({"header": {"X-A": "1", "X-B": "1"}}, {"header": {"X-A": "1", "X-B": "2"}}),
        ({"header": {"X-A": "~^a$"}}, {"header": {"X-A": "~^b$"}}),
        ({"query": {"v": "1"}}, {"query": {"v": "~^[a-z]$"}}),
        ({"client": "10.0.0.0/8"}, {"client": "11.0.0.0/8"}),
        ({"path_regex": "^/a+$"}, {"path_regex": "^/b+$"}),
        ({"path_regex": "^/a$"}, {"path_regex": "^/a.*$"}),
    ],
)
def test_what_differs_is_not_ambiguous(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert found(route("a", **one), route("b", **other)) == []


@pytest.mark.parametrize(
    ("one", "other", "example"),
    [
        ({"path_regex": "^/u/[0-9]"}, {"path_regex": "^/./[0-9]"}, "GET http://example.org/u/1"),
        ({"host": "~^a[.].$"}, {"host": "~^.[.]1$"}, "GET http://a.1/"),
        (
            {"header": {"X-A": "~^a.$"}},
            {"header": {"X-A": "~^.1$"}},
            "GET http://example.org/ with 'X-A: a1'",
        ),
    ],
)
def test_what_is_found_by_trying_is_not_certain(
    one: dict[str, Any], other: dict[str, Any], example: str
) -> None:
    (ambiguity,) = found(route("a", **one), route("b", **other))
    assert (ambiguity.example, ambiguity.is_certain) == (example, False)


def test_each_route_is_told_of_once() -> None:
    names = [one.other.route.name for one in found(*(route(f"r{n}", host="a b c") for n in range(40)))]
    assert sorted(names) == sorted(f"r{n}" for n in range(1, 40))


def test_a_route_is_not_ambiguous_with_itself() -> None:
    assert found(route("a", host="~^a.$ ~^.b$")) == []


@pytest.mark.parametrize(
    "options",
    [
        lambda n: {"header": {"X-Tenant": str(n)}},
        lambda n: {"method": "GET" if n % 2 else "PUT", "header": {"X-Tenant": str(n // 2)}},
        lambda n: {"path_regex": f"^/tenant/{n:05}/[a-z]+$"},
        lambda n: {"host": f"~^t{n:05}[.][a-z]+$"},
        lambda n: {"path": f"/p{n}"},
    ],
)
def test_many_routes_are_not_compared_each_with_each(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("sidecar.routing.ambiguity._compare", lambda *pair: compared.append(pair))
    assert found(*(route(f"r{n}", **options(n)) for n in range(2_000))) == []
    assert len(compared) <= 2_000


def test_one_ambiguity_among_many_routes_is_found() -> None:
    routes = [route(f"r{n}", path_regex=f"^/tenant/{n:04}/[a-z]$") for n in range(500)]
    (ambiguity,) = found(*routes, route("t", path_regex="^/tenant/0077/[a-b]$"))
    assert {ambiguity.one.route.name, ambiguity.other.route.name} == {"r77", "t"}
    assert not ambiguity.is_certain
    twice = [route(f"r{n}", method="GET", header={"X-Tenant": str(n % 499)}) for n in range(500)]
    (ambiguity,) = found(*twice)
    assert ambiguity.example == "GET http://example.org/ with 'X-Tenant: 0'"
