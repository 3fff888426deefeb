from __future__ import annotations

import time
from pathlib import Path

from sidecar.config.merge import Configuration, load
from sidecar.net.settings import ListenerSettings
from sidecar.routing.check import build, check, everywhere
from sidecar.routing.settings import RouteSettings
from sidecar.upstream.settings import UpstreamSettings

BASE = """\
[listener public]
bind = 127.0.0.1:8080
[listener private]
bind = 127.0.0.1:8081
[upstream app]
server.a = 127.0.0.1:8000
"""


def conf(directory: Path, text: str, base: str = BASE) -> Configuration:
    (directory / "0.ini").write_text(base)
    (directory / "a.ini").write_text(text)
    return load(directory, [ListenerSettings, UpstreamSettings, RouteSettings], {})


def told(directory: Path, text: str, base: str = BASE) -> tuple[list[str], list[str]]:
    mistakes, warnings = check(conf(directory, text, base))
    start = f"{directory}/"
    return [line.replace(start, "") for line in mistakes], [line.replace(start, "") for line in warnings]


def test_a_sound_configuration_has_nothing_wrong(tmp_path: Path) -> None:
    text = "[route a]\nupstream = app\n[route b]\nlistener = private, public\npath = /x\nrespond = 200\n"
    assert told(tmp_path, text) == ([], [])


def test_unknown_names(tmp_path: Path) -> None:
    mistakes, warnings = told(
        tmp_path,
        "[route a]\nupstream = ap\nlistener = publik\n[route b]\npath = /b\nupstream = zzz\nlistener = x\n",
    )
    assert mistakes == [
        "a.ini:2: [route a] upstream: there is no [upstream ap]: did you mean app?",
        "a.ini:3: [route a] listener: there is no [listener publik]: did you mean public?",
        "a.ini:6: [route b] upstream: there is no [upstream zzz]: known are app",
        "a.ini:7: [route b] listener: there is no [listener x]: known are public, private",
    ]
    assert warnings == []


def test_every_upstream_of_a_split_is_there(tmp_path: Path) -> None:
    mistakes, _ = told(tmp_path, "[route a]\nupstream = app 90%, cannary 10%\n")
    assert mistakes == [
        "a.ini:2: [route a] upstream: there is no [upstream cannary]: known are app",
    ]


def test_an_unknown_name_where_there_are_none(tmp_path: Path) -> None:
    mistakes, _ = told(tmp_path, "[route a]\nupstream = app\n", base="")
    assert mistakes == ["a.ini:2: [route a] upstream: there is no [upstream app]: add [upstream app]"]


def test_an_ambiguity_names_both_and_a_url(tmp_path: Path) -> None:
    mistakes, warnings = told(
        tmp_path, "[route a]\npath = /x\nupstream = app\n\n[route b]\npath = /x\nrespond = 200\n"
    )
    assert mistakes == [
        "a.ini:5: [route b]: is as good as [route a] (a.ini:1) for GET http://example.org/x: "
        "give one of them a higher priority, or another condition"
    ]
    assert warnings == []


def test_an_ambiguity_of_regexes_is_a_warning(tmp_path: Path) -> None:
    mistakes, warnings = told(
        tmp_path,
        "[route a]\npath_regex = ^/a.$\nupstream = app\n[route b]\npath_regex = ^/.1$\nrespond = 200\n",
    )
    assert mistakes == []
    (warning,) = warnings
    assert "[route b]: is as good as [route a] (a.ini:1) for GET http://example.org/a1: " in warning


def test_routes_of_different_listeners_do_not_meet(tmp_path: Path) -> None:
    text = "[route a]\nlistener = public\nupstream = app\n[route b]\nlistener = private\nrespond = 200\n"
    assert told(tmp_path, text) == ([], [])


def test_without_a_listener_routes_are_compared_too(tmp_path: Path) -> None:
    mistakes, _ = told(tmp_path, "[route a]\nrespond = 200\n[route b]\nrespond = 200\n", base="")
    assert len(mistakes) == 1


def test_a_hidden_route_is_a_warning(tmp_path: Path) -> None:
    hiding = "[route a]\npriority = 1\nupstream = app\n[route b]\npath = /x\nrespond = 200\n"
    assert told(tmp_path, hiding) == (
        [],
        ["a.ini:4: [route b]: is never reached: [route a] (a.ini:1) takes all its requests before"],
    )
    assert told(tmp_path, hiding.replace("[route b]", "listener = public\n[route b]")) == ([], [])


def test_what_does_nothing_is_a_mistake_where_it_is_written(tmp_path: Path) -> None:
    mistakes, _ = told(tmp_path, "[route a]\nrespond = 200\nbuffering = on\nrequest_header.X-A = 1\n")
    assert mistakes == [
        f"a.ini:{place}: does nothing beside respond, which asks no upstream: remove it"
        for place in ("4: [route a] request_header.X-A", "3: [route a] buffering")
    ]


def test_defaults_may_be_for_other_routes(tmp_path: Path) -> None:
    text = (
        "[defaults route]\nread_timeout = 1s\nrequest_header.X-A = {match.id}\n"
        "[route a]\nrespond = 200\n[route b]\npath_regex = (?P<id>x)\nupstream = app\n"
    )
    assert told(tmp_path, text) == ([], [])


def test_what_does_nothing_in_an_upstream_is_a_mistake_unless_it_may_be_for_others(tmp_path: Path) -> None:
    text = "[upstream app]\nhealth_rise = 5\n"
    line = "[upstream app] health_rise: does nothing without health_check: add that, or remove this"
    assert told(tmp_path, text) == ([f"a.ini:2: {line}"], [])
    shared = "[defaults upstream]\nhealth_rise = 5\n"
    assert told(tmp_path, shared) == ([f"a.ini:2: {line}"], [])
    assert told(tmp_path, f"{shared}[upstream b]\nserver.a = h:1\nhealth_check = tcp\n") == ([], [])


def test_a_router_for_each_listener_with_its_routes(tmp_path: Path) -> None:
    configuration = conf(
        tmp_path, "[route a]\nupstream = app\n[route b]\nlistener = private\npath = /x\nupstream = app\n"
    )
    routers = build(configuration)
    assert {name: [route.name for route in router.routes] for name, router in routers.items()} == {
        "public": ["a"],
        "private": ["a", "b"],
    }
    assert routers["public"].routes[0] is routers["private"].routes[0]
    assert [route.name for route in everywhere(configuration).routes] == ["a"]


def test_ten_thousand_routes_are_checked(tmp_path: Path) -> None:
    text = "".join(
        f"[route r{n}]\nhost = h{n % 500}.example.org\npath_prefix = /p{n}\nupstream = app\n"
        f"priority = {n % 7}\n"
        for n in range(10_000)
    )
    configuration = conf(tmp_path, text)
    started = time.process_time()
    assert check(configuration) == ([], [])
    # The bound is far from what it takes, and far below what anything quadratic would.
    assert time.process_time() - started < 15
