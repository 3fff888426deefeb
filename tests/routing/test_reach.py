from __future__ import annotations

from typing import Any

import pytest

from sidecar.routing.reach import unreachable
from sidecar.routing.regex import Regex
from sidecar.routing.settings import RouteSettings
from sidecar.routing.table import Route, Router
from sidecar.routing.values import parse_host


def route(name: str, **options: Any) -> Route:
    given = dict(options)
    if "host" in given:
        given["host"] = tuple(parse_host(one) for one in given["host"].split())
    if "path_regex" in given:
        given["path_regex"] = Regex(given["path_regex"])
    return Route(name, RouteSettings(**given))


@pytest.mark.parametrize(
    ("first", "hidden"),
    [
        ({"priority": 1}, {"host": "a", "path": ("/x",)}),
        ({"priority": 1, "path_prefix": ("/",)}, {"path_regex": "^/x"}),
        ({"priority": 1, "path_prefix": ("/x",)}, {"path": ("/x/y",)}),
        ({"priority": 1, "path_prefix": ("/x",)}, {"path": ("/x/y", "/x"), "path_prefix": ("/x/z",)}),
        ({"priority": 1, "path": ("/x",)}, {"path": ("/x",), "method": ("GET",)}),
        ({"priority": 1, "host": "*.b"}, {"host": "a.b *.a.b"}),
        ({"priority": 1, "host": "a.b"}, {"host": "a.b", "path_regex": "x"}),
        ({"path_prefix": ("/",)}, {}),
    ],
)
def test_a_route_behind_one_that_takes_everything_is_hidden(
    first: dict[str, Any], hidden: dict[str, Any]
) -> None:
    assert list(unreachable(Router([route("f", **first), route("h", **hidden)]))) == [("h", "f")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"priority": 1, "method": ("GET",)}, {}),
        ({"priority": 1, "host": "a"}, {}),
        ({"priority": 1, "host": "*.b"}, {"host": "b"}),
        ({"priority": 1, "path": ("/x",)}, {"path_prefix": ("/x",)}),
        ({"priority": 1, "path_prefix": ("/x",)}, {"path": ("/xy",)}),
        ({"priority": 1, "path_prefix": ("/x",)}, {"path": ("/x", "/y")}),
        ({"priority": 1, "path_regex": "."}, {"path": ("/x",)}),
        ({"priority": 1, "host": "~."}, {"host": "a"}),
        ({}, {"path": ("/x",)}),
        ({"path": ("/x",)}, {"path": ("/x",)}),
        ({"method": ("GET",), "path": ("/x",)}, {"path": ("/x",)}),
    ],
)
def test_other_routes_are_not(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert list(unreachable(Router([route("f", **first), route("s", **second)]))) == []
