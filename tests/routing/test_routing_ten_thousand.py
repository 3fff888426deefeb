"""Ten thousand routes are looked up by the work of one, and loaded by ten times the work of a thousand.

Work is counted in lines that run, so that nothing here depends on the machine.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import pytest

from sidecar.config.merge import Configuration, load
from sidecar.config.schema import Kind, Section, option
from sidecar.message import Request
from sidecar.net.settings import ListenerSettings
from sidecar.routing import check as routing
from sidecar.routing.settings import RouteSettings
from sidecar.routing.values import parse_host
from sidecar.upstream.settings import UpstreamSettings
from sidecar.wire.head import Limits, RequestHead


def _as_written() -> Any:
    """table.py as it is written: it is compiled too, and the lines of compiled code cannot be counted."""
    source = Path(str(routing.__file__)).with_name("table.py")
    found = importlib.util.spec_from_file_location("sidecar.routing.table_as_written", source)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


_TABLE = _as_written()
Route, Router = _TABLE.Route, _TABLE.Router

MANY = 10_000
#: How much more work ten times as many may be, over ten times: what is done once weighs more with few.
SLACK = 1.02

#: Shape → (hosts, path, path_prefix) of the route of a number.
Shape = Callable[[int], tuple[str, str, str]]
SHAPES: dict[str, Shape] = {
    "exact hosts": lambda n: (f"h{n}.example.org", "", "/api"),
    "wildcards": lambda n: (f"*.h{n}.example.org", "", "/api"),
    "prefixes of one host": lambda n: ("example.org", "", f"/api/v{n}"),
    "prefixes of any host": lambda n: ("", "", f"/api/v{n}"),
    "paths of one host": lambda n: ("example.org", f"/api/v{n}/x", ""),
    "hosts with paths": lambda n: (f"h{n % 500}.example.org", "", f"/api/v{n // 500}"),
}


def router(shape: Shape, count: int) -> Router:
    routes = []
    for number in range(count):
        host, path, prefix = shape(number)
        settings = RouteSettings(
            host=(parse_host(host),) if host else (),
            path=(path,) if path else (),
            path_prefix=(prefix,) if prefix else (),
            upstream="app",
        )
        routes.append(Route(f"r{number}", settings))
    return Router(routes)


def request(shape: Shape, number: int) -> Request:
    """A request for the route of that number, whatever the shape."""
    host, path, prefix = shape(number)
    head = RequestHead(Limits())
    assert head.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    made = Request(head, path or f"{prefix}/x", "192.0.2.7", "http", "public")
    made.host = host.replace("*", "www") or "example.org"
    return made


def work(function: Callable[..., Any], *arguments: object) -> int:
    """Lines of Python that run while `function` is called."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    assert lines, "nothing to count: compiled code runs no lines"
    return lines


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def full(shape: Shape) -> Router:
    return router(shape, MANY)


@pytest.mark.parametrize("number", [0, 4_711, MANY - 1])
def test_a_route_among_ten_thousand_is_found_by_the_work_of_one(
    shape: Shape, full: Router, number: int
) -> None:
    alone = router(lambda _: shape(number), 1)
    asked = request(shape, number)
    found = full.choose(asked)
    assert found is not None
    assert found.name == f"r{number}"
    assert work(full.choose, asked) == work(alone.choose, asked)


def test_what_no_route_takes_is_refused_by_the_work_of_one(shape: Shape, full: Router) -> None:
    alone = router(shape, 1)
    asked = request(shape, MANY)
    asked.host = asked.host.replace("h0.", f"h{MANY}.")  # some shapes come back to their first host
    asked.path = "/elsewhere"
    assert full.choose(asked) is None
    assert work(full.choose, asked) == work(alone.choose, asked)


def test_a_router_is_built_in_linear_work(shape: Shape) -> None:
    few, more = router(shape, 200).routes, router(shape, 2_000).routes
    assert work(Router, more) <= 10 * work(Router, few) * SLACK


def write(directory: Path, count: int, extra: str = "") -> Path:
    directory.mkdir()
    sections = [
        "[listener public]\nbind = 127.0.0.1:8080\n[upstream app]\nserver.a = 127.0.0.1:9000\n",
        extra,
    ]
    for number in range(count):
        host = f"h{number}.example.org"
        sections.append(f"[route r{number}]\nhost = {host}\npath_prefix = /api/v{number}\nupstream = app\n")
    (directory / "a.ini").write_text("".join(sections))
    return directory


def read(directory: Path) -> Configuration:
    return load(directory, (ListenerSettings, UpstreamSettings, RouteSettings), {})


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda directory: (read, directory), id="load"),
        pytest.param(lambda directory: (routing.build, read(directory)), id="build"),
        pytest.param(lambda directory: (routing.check, read(directory)), id="check"),
    ],
)
def test_a_configuration_is_loaded_in_linear_work(tmp_path: Path, step: Callable[[Path], Any]) -> None:
    few, more = step(write(tmp_path / "few", 100)), step(write(tmp_path / "more", 1_000))
    assert work(*more) <= 10 * work(*few) * SLACK


def test_listeners_with_the_same_routes_share_a_router(tmp_path: Path) -> None:
    other = "[listener other]\nbind = 127.0.0.1:8081\n"
    own = "[listener own]\nbind = 127.0.0.1:8082\n[route own]\nlistener = own\nupstream = app\n"
    routers = routing.build(read(write(tmp_path / "conf", 3, other + own)))
    assert routers["public"] is routers["other"]
    assert [route.name for route in routers["public"].routes] == ["r0", "r1", "r2"]
    assert [route.name for route in routers["own"].routes] == ["own", "r0", "r1", "r2"]


def test_what_was_built_is_not_built_again_to_be_checked(tmp_path: Path) -> None:
    configuration = read(write(tmp_path / "conf", 50))
    built = routing.build(configuration)
    assert routing.check(configuration, built) == routing.check(configuration)
    spared = work(routing.check, configuration) - work(routing.check, configuration, built)
    assert spared >= 0.9 * work(routing.build, configuration)


def test_a_text_that_many_options_hold_is_parsed_once(tmp_path: Path) -> None:
    parsed: list[str] = []

    def parse(text: str) -> str:
        parsed.append(text)
        return text

    @dataclass(frozen=True, slots=True)
    class Item(Section):
        KIND: ClassVar[str] = "item"
        DOC: ClassVar[str] = "An item."

        one: str = option("", Kind("text", parse), "One.")

    texts = [f"[item {number}]\none = {number % 3}${{NOTHING:-}}\n" for number in range(30)]
    (tmp_path / "a.ini").write_text("".join(texts))
    items = load(tmp_path, (Item,), {}).named(Item)
    assert [item.one for item in items.values()] == [str(number % 3) for number in range(30)]
    assert parsed == ["0", "1", "2"]
