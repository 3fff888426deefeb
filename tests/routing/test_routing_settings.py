from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.routing.settings import RouteSettings


def route(directory: Path, text: str) -> RouteSettings:
    (directory / "a.ini").write_text(f"[route r]\n{text}\n")
    return load(directory, [RouteSettings], {}).named(RouteSettings)["r"]


def mistakes(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        route(directory, text)
    return [line.partition("[route r] ")[2] or line for line in error.value.mistakes]


def test_defaults(tmp_path: Path) -> None:
    settings = route(tmp_path, "upstream = app")
    assert (settings.host, settings.path, settings.path_prefix, settings.path_regex) == ((), (), (), None)
    assert (settings.priority, settings.upgrade, settings.buffering) == (0, True, False)
    assert (settings.access_log, settings.max_body_size, settings.buffer_size) == (True, 0, 1 << 20)
    assert (settings.connect_timeout, settings.request_timeout) == (None, None)
    assert list(settings.idle()) == []


def test_a_timeout_may_be_off_here_and_not_upstream(tmp_path: Path) -> None:
    assert route(tmp_path, "upstream = app\nrequest_timeout = off").request_timeout == 0.0


@pytest.mark.parametrize("text", ["respond = 200", "redirect = /x", "upstream = app"])
def test_one_action_is_enough(tmp_path: Path, text: str) -> None:
    route(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path = /", "has no action: write upstream = NAME"),
        ("upstream = a\nrespond = 200", "respond: a route has one action and this one has upstream"),
        ("upstream = a\nreplace_prefix = /", "replace_prefix: replaces a path_prefix and the route has none"),
        (
            "upstream = a\npath_prefix = /a\nreplace_prefix = /\nrewrite = a /b",
            "rewrite: the route has replace_prefix",
        ),
        (
            "upstream = a\nrequest_header.Host = b",
            "request_header.Host: Host cannot be edited: use host_header",
        ),
        ("upstream = a\nresponse_header_add.TE = b", "response_header_add.TE: TE cannot be edited"),
        ("upstream = a\nrequest_header_remove = Upgrade", "request_header_remove: Upgrade cannot be edited"),
        (
            "upstream = a\nrequest_header.X-A = 1\nrequest_header.x-a = 2",
            "request_header.x-a: request_header.X-A is the same field",
        ),
        ("upstream = a\nheader.X:A = 1", "header.X:A: 'X:A' is not a field name"),
        (
            "upstream = a\nhost = ~(?P<x>a)\npath_regex = (?P<x>b)",
            "path_regex: the group 'x' is one of host too",
        ),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, text: str, message: str) -> None:
    (mistake,) = mistakes(tmp_path, text)
    assert message in mistake


def test_conditions_may_look_at_any_field(tmp_path: Path) -> None:
    assert "Upgrade" in route(tmp_path, "upstream = a\nheader.Upgrade = ~.+").header


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("respond = 200\nbuffering = on", ["buffering"]),
        ("redirect = /x\nrequest_header.X-A = 1\nread_timeout = 1s", ["request_header.X-A", "read_timeout"]),
        ("redirect = /x\nresponse_header.X-A = 1\naccess_log = off", []),
        ("upstream = a\nbuffer_size = 2m", ["buffer_size"]),
        ("upstream = a\nbuffering = on\nbuffer_size = 2m", []),
        ("upstream = a\nrequest_header.X-A = {match.id}", ["request_header.X-A"]),
        ("redirect = /{match.x}\npath_regex = (?P<id>a)", ["redirect"]),
        ("respond = 200 {match.x}{match.id}\npath_regex = (?P<id>a)\nhost = ~(?P<x>a)", []),
        ("upstream = a\nhost_header = {match.x}", ["host_header"]),
    ],
)
def test_options_that_do_nothing(tmp_path: Path, text: str, keys: list[str]) -> None:
    assert [key for key, _ in route(tmp_path, text).idle()] == keys
