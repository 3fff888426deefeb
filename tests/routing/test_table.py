from __future__ import annotations

import time
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.message import Request
from sidecar.routing.regex import Regex
from sidecar.routing.settings import RouteSettings
from sidecar.routing.table import Route, Router
from sidecar.routing.values import WANTED, Share, parse_host
from sidecar.wire.head import Limits, RequestHead


def request(
    host: str = "example.org", path: str = "/", *, method: str = "GET", fields: dict[str, str] | None = None
) -> Request:
    # An HTTP/1.0 request may do without Host, so that any text can stand for one.
    lines = [f"{method} / HTTP/1.0", *(f"{k}: {v}" for k, v in (fields or {}).items()), "", ""]
    head = RequestHead(Limits())
    assert head.feed("\r\n".join(lines).encode())
    made = Request(head, path, "192.0.2.7", "http", "public")
    made.host = host
    return made


def route(name: str, host: str = "", **options: Any) -> Route:
    given = dict(options)
    if host:
        given["host"] = tuple(parse_host(one) for one in host.split())
    for key in ("path", "path_prefix"):
        if key in given:
            given[key] = tuple(given[key].split())
    if "path_regex" in given:
        given["path_regex"] = Regex(given["path_regex"])
    if "header" in given:
        given["header"] = {name: WANTED.parse(text) for name, text in given["header"].items()}
    return Route(name, RouteSettings(**given))


def chosen(routes: list[Route], asked: Request) -> str | None:
    found = Router(routes).choose(asked)
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("options", "host", "path", "expected"),
    [
        ({"path": "/a"}, "x", "/a", True),
        ({"path": "/a"}, "x", "/a/", False),
        ({"path": "/a /b"}, "x", "/b", True),
        ({"path_prefix": "/api"}, "x", "/api", True),
        ({"path_prefix": "/api"}, "x", "/api/", True),
        ({"path_prefix": "/api"}, "x", "/api/x/y/z", True),
        ({"path_prefix": "/api"}, "x", "/apifoo", False),
        ({"path_prefix": "/api"}, "x", "/", False),
        ({"path_prefix": "/a/b/c"}, "x", "/a/b", False),
        ({"path_prefix": "/a/b/c"}, "x", "/a/b/c", True),
        ({"path_prefix": "/"}, "x", "/", True),
        ({"path_prefix": "/"}, "x", "/a", True),
        ({"path_prefix": "/"}, "x", "*", True),
        ({"path_prefix": "/ /a/b"}, "x", "*", True),
        ({"path_prefix": "/a"}, "x", "*", False),
        ({"path_regex": ".*"}, "x", "*", False),
        ({}, "x", "*", True),
        ({"path_regex": "^/u/[0-9]+$"}, "x", "/u/1", True),
        ({"path_regex": "^/u/[0-9]+$"}, "x", "/u/a", False),
        ({"path": "/a", "path_prefix": "/b", "path_regex": "^/c"}, "x", "/a", True),
        ({"path": "/a", "path_prefix": "/b", "path_regex": "^/c"}, "x", "/b/1", True),
        ({"path": "/a", "path_prefix": "/b", "path_regex": "^/c"}, "x", "/cc", True),
        ({"path": "/a", "path_prefix": "/b", "path_regex": "^/c"}, "x", "/d", False),
        ({"path_regex": "^/.$"}, "x", "/\udcff", True),
        ({"path": "/é"}, "x", "/é", True),
        ({"host": "example.org"}, "example.org", "/", True),
        ({"host": "example.org"}, "a.example.org", "/", False),
        ({"host": "*.example.org"}, "a.example.org", "/", True),
        ({"host": "*.example.org"}, "a.b.example.org", "/", True),
        ({"host": "*.example.org"}, "example.org", "/", False),
        ({"host": "*.example.org"}, ".example.org", "/", False),
        ({"host": "*.example.org"}, "aexample.org", "/", False),
        ({"host": "*.org *.a.b.example.org"}, "b.example.org", "/", True),
        ({"host": "~^a+$"}, "aa", "/", True),
        ({"host": "~^a+$"}, "b", "/", False),
        ({"host": "~^a+$ b"}, "b", "/", True),
        ({"host": "a"}, "", "/", False),
        ({"host": "*.a"}, "", "/", False),
    ],
)
def test_what_a_route_matches(options: dict[str, str], host: str, path: str, expected: bool) -> None:
    assert chosen([route("r", **options)], request(host, path)) == ("r" if expected else None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"priority": 1}, {"host": "a.b.org", "path": "/x/y"}),
        ({"host": "a.b.org"}, {"host": "*.b.org", "path": "/x/y"}),
        ({"host": "*.b.org"}, {"host": "*.org", "path": "/x/y"}),
        ({"host": "*.org"}, {"host": "~^a.b.org$", "path": "/x/y"}),
        ({"host": "~^a.b.org$"}, {"host": "~^a.b", "path": "/x/y"}),
        ({"host": "~a"}, {"path": "/x/y"}),
        ({"host": "~^a", "path": "/x/y"}, {"host": "~a."}),
        ({"path": "/x/y"}, {"path_regex": "^/x/y$", "method": ("GET",)}),
        ({"path_regex": "^/x/y$"}, {"path_regex": "^/x/", "method": ("GET",)}),
        ({"path_regex": "^/"}, {"path_prefix": "/x/y", "method": ("GET",)}),
        ({"path_regex": "^/x", "method": ("GET",)}, {"path_regex": "/y$"}),
        ({"path_prefix": "/x/y"}, {"path_prefix": "/x", "method": ("GET",)}),
        ({"path_prefix": "/x"}, {"path_prefix": "/", "method": ("GET",)}),
        ({"path_prefix": "/"}, {"method": ("GET",)}),
        ({"method": ("GET",), "header": {"A": "1"}}, {"method": ("GET",)}),
        ({"method": ("GET",)}, {}),
        ({"priority": 5}, {"priority": 4, "path": "/x/y"}),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_the_order(first: dict[str, Any], second: dict[str, Any], swapped: bool) -> None:
    # Names are against the order, so that they cannot be what decides.
    routes = [route("z", **first), route("a", **second)]
    asked = request("a.b.org", "/x/y", fields={"A": "1"})
    assert chosen(routes[::-1] if swapped else routes, asked) == "z"


def test_a_condition_that_fails_leaves_the_request_to_the_next() -> None:
    routes = [
        route("one", host="a", path="/x", method=("POST",)),
        route("two", host="a", path_prefix="/", header={"A": "1"}),
        route("three", path="/x", method=("POST",)),
        route("four"),
    ]
    assert chosen(routes, request("a", "/x", method="POST")) == "one"
    assert chosen(routes, request("a", "/x", fields={"A": "1"})) == "two"
    assert chosen(routes, request("b", "/x", method="POST")) == "three"
    assert chosen(routes, request("a", "/x")) == "four"


def test_equal_routes_come_by_name() -> None:
    routes = [route("b", path="/x"), route("a", path="/x")]
    assert chosen(routes, request(path="/x")) == chosen(routes[::-1], request(path="/x")) == "a"


def test_named_groups_of_the_chosen_route() -> None:
    routes = [
        route("r", host="~^(?P<who>[a-z]+)[.]test$", path_regex="^/u/(?P<id>.+)$"),
        route("other", path_regex="^/(?P<x>v)$"),
        route("rest"),
    ]
    router = Router(routes)
    asked = request("ann.test", "/u/\udcff")
    assert router.choose(asked) is routes[0]
    assert asked.match == {"who": "ann", "id": "\udcff"}
    asked = request("b", "/v")
    assert router.choose(asked) is routes[1]
    assert asked.match == {"x": "v"}
    asked = request("b", "/w")
    assert router.choose(asked) is routes[2]
    assert asked.match is None


def test_a_route_carries_what_the_data_path_needs() -> None:
    one = route("r", upstream=(Share("app"),), access_log=False)
    assert (one.handler, one.logged, one.conditions) == (None, False, ())
    assert one.settings.upstream == (Share("app"),)
    assert repr(one) == "<Route r>"
    assert repr(Router([one]).entries[0]).startswith("<Entry 0 r ")


def test_no_routes_no_route() -> None:
    assert Router([]).choose(request()) is None


class Case(NamedTuple):
    routes: list[Route]
    asked: Request


HOSTS = ["a.b.c", "b.c", "c", "*.b.c", "*.c", "~^a", "~b.", "~c$"]
PATHS = ["/", "/x", "/x/y", "/x/y/z", "/xy"]
REGEXES = ["^/x", "/y$", "^/x/y$", "."]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def some(values: list[str]) -> str:
        return " ".join(draw(st.lists(st.sampled_from(values), max_size=2, unique=True)))

    routes = []
    for number in range(draw(st.integers(0, 7))):
        options: dict[str, Any] = {
            "host": some(HOSTS),
            "path": some(PATHS),
            "path_prefix": some(PATHS),
            "priority": draw(st.sampled_from([0, 0, 0, 1, 2])),
            "method": draw(st.sampled_from([(), ("GET",), ("POST",)])),
            "header": draw(st.sampled_from([{}, {"A": "1"}])),
        }
        if draw(st.booleans()):
            options["path_regex"] = draw(st.sampled_from(REGEXES))
        routes.append(route(f"r{number}", **options))
    fields = draw(st.sampled_from([{}, {"A": "1"}]))
    host = draw(st.sampled_from(["a.b.c", "b.c", "c", "x.c", "d", ""]))
    path = draw(st.sampled_from([*PATHS, "/x/", "/q/y", "*"]))
    return Case(routes, request(host, path, method=draw(st.sampled_from(["GET", "POST"])), fields=fields))


def host_ranks(one: Route, host: str) -> list[tuple[int, int]]:
    if not one.settings.host:
        return [(0, 0)]
    ranks = []
    for wanted in one.settings.host:
        if wanted.exact and wanted.exact == host:
            ranks.append((3, 0))
        elif wanted.suffix and host.endswith(wanted.suffix) and host != wanted.suffix:
            ranks.append((2, len(wanted.suffix)))
        elif wanted.regex is not None and wanted.regex.test(host):
            ranks.append((1, len(wanted.regex.pattern)))
    return ranks


def path_ranks(one: Route, path: str) -> list[tuple[int, int]]:
    wanted = one.settings
    if not (wanted.path or wanted.path_prefix or wanted.path_regex):
        return [(0, 0)]
    ranks = [(3, 0) for exact in wanted.path if exact == path]
    if wanted.path_regex is not None and path != "*" and wanted.path_regex.test(path):
        ranks.append((2, len(wanted.path_regex.pattern)))
    for prefix in wanted.path_prefix:
        if prefix == "/" or (path + "/").startswith(prefix + "/"):
            ranks.append((1, len(prefix.rstrip("/"))))
    return ranks


def naive(case: Case) -> str | None:
    """All that match, sorted by the whole order."""
    matching = [
        (-one.settings.priority, [-n for n in host], [-n for n in path], -len(one.conditions), one.name)
        for one in case.routes
        if all(condition.matches(case.asked) for condition in one.conditions)
        for host in host_ranks(one, case.asked.host)
        for path in path_ranks(one, case.asked.path)
    ]
    return min(matching)[-1] if matching else None


@settings(max_examples=200)
@given(cases())
def test_the_router_chooses_what_a_naive_search_would(case: Case) -> None:
    assert chosen(case.routes, case.asked) == naive(case)


@pytest.mark.parametrize("step", [0, 1])
def test_ten_thousand_routes_are_looked_up_without_looking_at_them(step: int) -> None:
    class Counted(str):
        """A host that counts how often it is compared or hashed."""

        seen = 0

        def __hash__(self) -> int:
            Counted.seen += 1
            return super().__hash__()

    routes = [
        route(f"r{n}", host=f"h{n % 100}.example.org", path_prefix=f"/p{n}/q", priority=n * step)
        for n in range(10_000)
    ]
    started = time.process_time()
    router = Router(routes)
    # The bound is far from what it takes, and far below what anything quadratic would.
    assert time.process_time() - started < 5
    asked = request(path="/p4207/q/x")
    asked.host = Counted("h7.example.org")
    found = router.choose(asked)
    assert found is not None
    assert found.name == "r4207"
    assert Counted.seen <= 2


def test_long_hosts_and_paths_cost_no_more_than_routes_are_deep() -> None:
    class Cut(str):
        """A text that counts how often it is searched."""

        seen = 0

        def find(self, *arguments: Any) -> int:
            Cut.seen += 1
            return super().find(*arguments)

        def rfind(self, *arguments: Any) -> int:
            Cut.seen += 1
            return super().rfind(*arguments)

    router = Router([route("r", host="*.example.org", path_prefix="/a/b")])
    asked = request()
    asked.host = Cut("x." * 4000 + "example.org")
    asked.path = Cut("/a/b" + "/c" * 4000)
    found = router.choose(asked)
    assert found is not None
    assert Cut.seen <= 6
