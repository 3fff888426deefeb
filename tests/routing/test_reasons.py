from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import Configuration, load
from sidecar.routing.asked import Question
from sidecar.routing.check import everywhere
from sidecar.routing.reasons import PassedOver, has_host, has_path, passed_over
from sidecar.routing.settings import RouteSettings


def conf(directory: Path, text: str) -> Configuration:
    (directory / "a.ini").write_text(text)
    return load(directory, [RouteSettings], {})


def over(directory: Path, text: str, url: str) -> list[PassedOver]:
    configuration = conf(directory, text)
    router = everywhere(configuration)
    request = Question("GET", url, (), "192.0.2.7").request("", None)
    return passed_over(router, request, router.choose(request), configuration)


@pytest.mark.parametrize(
    ("options", "why", "is_near"),
    [
        ("host = a, *.b\n ~^c$\n d, e, f", "host h is not a or *.b or ~^c$ or d or 2 more", False),
        ("path = /a\npath_prefix = /b\npath_regex = ^/c$", "path is not /a or /b and below or ~^/c$", False),
        ("host = a\npath = /b", "host h is not a; path is not /b", False),
        ("method = PUT\nquery.v = 1", "method is GET, not PUT; query v is missing, not '1'", True),
        ("priority = -1\nhost = h", "matches too, but its priority is lower than that of first", True),
        ("path_prefix = /", "matches too, but its path is less specific than that of first", True),
        ("path_regex = x", "matches too, but its path pattern is shorter than that of first", True),
        ("path_regex = ^/xy", "matches too, but it has fewer conditions than first", True),
        (
            "path_regex = /xyz?\nclient = 192.0.2.0/24",
            "matches too, but its path pattern is shorter than that of first",
            True,
        ),
    ],
)
def test_reasons(tmp_path: Path, options: str, why: str, is_near: bool) -> None:
    first = "path_regex = ^/xy\nmethod = GET" if "fewer" in why else "path_regex = ^/xyz*$"
    text = f"[route other]\n{options}\nrespond = 200\n[route first]\n{first}\nrespond = 200\n"
    (one,) = over(tmp_path, text, "http://h/xyz")
    assert (one.route, one.origin, one.why) == ("other", f"{tmp_path}/a.ini:1", why)
    assert (one.is_near, one.is_match) == (is_near, why.startswith("matches"))


def test_a_less_specific_host(tmp_path: Path) -> None:
    text = (
        "[route c]\nhost = *.b\nrespond = 200\n[route b]\nhost = *.a.b\nrespond = 200\n"
        "[route a]\nhost = x.a.b\nrespond = 200\n"
    )
    assert [one.why for one in over(tmp_path, text, "http://x.a.b/")] == [
        "matches too, but its host is less specific than that of a"
    ] * 2
    assert [one.why for one in over(tmp_path, text, "http://y.a.b/")] == [
        "host y.a.b is not x.a.b",
        "matches too, but its host pattern is shorter than that of b",
    ]


def test_equals_come_by_name(tmp_path: Path) -> None:
    text = "[route b]\nrespond = 200\n[route a]\nrespond = 200\n"
    assert [(one.route, one.why) for one in over(tmp_path, text, "/")] == [
        ("b", "matches too, but its name comes later")
    ]


@pytest.mark.parametrize("url", ["http://a.b/x", "http://b/x/y", "http://c/", "http://a.c/z"])
def test_they_look_as_the_router_does(tmp_path: Path, url: str) -> None:
    text = "".join(
        f"[route r{h}{p}]\nhost = {host}\n{path}\nrespond = 200\n"
        for h, host in enumerate(["a.b", "*.b", "~c"])
        for p, path in enumerate(["path = /x", "path_prefix = /x", "path_prefix = /", "path_regex = z"])
    )
    router = everywhere(conf(tmp_path, text))
    request = Question("GET", url, (), "192.0.2.7").request("", None)
    matching = [entry for entry in router.entries if has_host(entry, request) and has_path(entry, request)]
    chosen = router.choose(request)
    assert (matching[0].route if matching else None) is chosen
