"""What means something for TCP, and what is told about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.message import connection
from sidecar.routing.check import build, check
from sidecar.routing.explain import explain
from sidecar.settings import SECTIONS

BASE = """\
[listener web]
bind = 127.0.0.1:8080
[listener edge]
bind = 127.0.0.1:8443
protocol = tcp
[upstream app]
server.a = 127.0.0.1:8000
"""
ROUTE = "[route r]\nlistener = edge\nupstream = app\n"


def conf(folder: Path, text: str, base: str = BASE) -> Configuration:
    (folder / "0.ini").write_text(base)
    (folder / "a.ini").write_text(text)
    return load(folder, SECTIONS, {})


def told(folder: Path, text: str, base: str = BASE) -> list[str]:
    mistakes, warnings = check(conf(folder, text, base))
    return [line.replace(f"{folder}/", "") for line in [*mistakes, *warnings]]


def test_a_sound_configuration(tmp_path: Path):
    text = (
        f"{ROUTE}sni = app.example.org, *.example.net\nclient = 10.0.0.0/8\npriority = 3\naccess_log = off\n"
        "connect_timeout = 1s\ntunnel_timeout = 1h\n[route s]\nlistener = edge\nupstream = app\n"
        "[route web]\nhost = a\nupstream = app\n[listener edge]\nheader_timeout = 3s\n"
    )
    assert told(tmp_path, text) == []


def test_routes_without_a_listener_are_for_requests(tmp_path: Path):
    routers = build(
        conf(tmp_path, f"{ROUTE}[route web]\nupstream = app\n[route w2]\nlistener = web\nrespond = 200")
    )
    names = {name: sorted(route.name for route in router.routes) for name, router in routers.items()}
    assert names == {"web": ["w2", "web"], "edge": ["r"]}


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("host = a", "host: a TCP connection has no Host field: write sni for the name that a TLS client "),
        ("path = /a", "path: means nothing to a TCP connection, and its listeners are for TCP: remove it"),
        ("header.X = 1", "header.X: means nothing to a TCP connection, "),
        ("method = GET", "method: means nothing to a TCP connection, "),
        ("request_header.X = 1", "request_header.X: means nothing to a TCP connection, "),
        ("response_header_remove = X", "response_header_remove: means nothing to a TCP connection, "),
        ("read_timeout = 1s", "read_timeout: means nothing to a TCP connection, "),
        ("request_timeout = 1s", "request_timeout: means nothing to a TCP connection, "),
        ("upgrade = on", "upgrade: means nothing to a TCP connection, "),
        ("max_body_size = off", "max_body_size: means nothing to a TCP connection, "),
        ("mirror = app", "mirror: means nothing to a TCP connection, "),
    ],
)  # fmt: skip
def test_options_for_requests(tmp_path: Path, option: str, text: str):
    (line,) = told(tmp_path, f"{ROUTE}{option}\n")
    assert line.startswith(f"a.ini:4: [route r] {text}")


@pytest.mark.parametrize("action", ["respond = 200 OK", "redirect = https://{host}"])
def test_only_an_upstream_ends_a_route(tmp_path: Path, action: str):
    (line,) = told(tmp_path, f"[route r]\nlistener = edge\n{action}\n")
    key = action.partition(" ")[0]
    assert line.startswith(f"a.ini:3: [route r] {key}: a TCP connection cannot be ")
    assert line.endswith(": write upstream = NAME")


def test_defaults_are_for_other_routes(tmp_path: Path):
    text = f"[defaults route]\nread_timeout = 1s\n{ROUTE}[route web]\nupstream = app\n"
    assert told(tmp_path, text) == []
    (line,) = told(tmp_path, f"[defaults route]\nread_timeout = 1s\n{ROUTE}")
    assert line.startswith("a.ini:2: [route r] read_timeout: means nothing to a TCP connection")


def test_one_route_has_one_protocol(tmp_path: Path):
    assert told(tmp_path, "[route r]\nlistener = edge, web\nupstream = app\n") == [
        "a.ini:2: [route r] listener: web is for http, others are for tcp: write a route for each protocol"
    ]


def test_sni_is_not_for_requests(tmp_path: Path):
    assert told(tmp_path, f"{ROUTE}[route w]\nsni = a\nupstream = app\n") == [
        "a.ini:5: [route w] sni: is for routes of TCP listeners: write host"
    ]


@pytest.mark.parametrize("value", ["~a", "[::1]"])
def test_what_no_client_sends_as_a_name(tmp_path: Path, value: str):
    with pytest.raises(ConfigurationError) as caught:
        conf(tmp_path, f"{ROUTE}sni = {value}\n")
    assert caught.value.mistakes == [
        f"{tmp_path}/a.ini:4: [route r] sni: '{value}' is no name that TLS clients send: "
        "write example.org, *.example.org"
    ]


@pytest.mark.parametrize(
    "option",
    ["trusted_proxies = 10.0.0.0/8", "body_timeout = 60s", "write_timeout = 1s", "idle_timeout = 75s"]
    + ["max_header_size = 32k", "max_headers = 100", "max_target_size = 8k"],
)
def test_options_of_a_listener_for_requests(tmp_path: Path, option: str):
    """Also with the value that they have anyway: whoever writes one believes in it."""
    key = option.partition(" ")[0]
    assert told(tmp_path, f"{ROUTE}[listener edge]\n{option}\n") == [
        f"a.ini:5: [listener edge] {key}: means nothing with protocol = tcp: remove it"
    ]


def test_a_deadline_for_what_is_not_read(tmp_path: Path):
    text = f"{ROUTE}[listener edge]\nheader_timeout = 3s\n"
    assert told(tmp_path, text) == [
        "a.ini:5: [listener edge] header_timeout: bounds nothing with protocol = tcp, unless there is "
        "tls, proxy_protocol or a route with sni"
    ]
    assert told(tmp_path, f"{text}tls = site\n") == []
    assert told(tmp_path, f"{text}proxy_protocol = accept\n") == []
    assert told(tmp_path, f"{text}[route s]\nlistener = edge\nsni = a\nupstream = app\n") == []


def test_a_listener_that_leads_nowhere(tmp_path: Path):
    assert told(tmp_path, "[route web]\nupstream = app\n") == [
        "0.ini:3: [listener edge]: no route names it, so its connections are closed: add a route with "
        "listener = edge"
    ]


@pytest.mark.parametrize(
    ("upstream", "route", "text"),
    [
        ("balance = hash {client_ip}", "", ""),
        ("balance = hash {client_ip}{listener}{route} consistent", "", ""),
        ("balance = hash {host}", "sni = a", ""),
        (
            "balance = hash {request_uri}",
            "",
            "app chooses by {request_uri}, which a TCP connection does not have: usable are "
            "{client_ip}, {listener}, {route}",
        ),
        (
            "balance = hash {host}",
            "",
            "app chooses by {host}, which a TCP connection does not have: usable are "
            "{client_ip}, {listener}, {route}",
        ),
        (
            "balance = hash {header.x}",
            "sni = a",
            "app chooses by {header.x}, which a TCP connection does not have: usable are "
            "{client_ip}, {host}, {listener}, {route}",
        ),
        (
            "sticky = cookie s",
            "",
            "app is sticky by a cookie, which a TCP connection does not have: use balance = ip_hash",
        ),
    ],
)
def test_what_an_upstream_chooses_by(tmp_path: Path, upstream: str, route: str, text: str):
    lines = told(tmp_path, f"{ROUTE}{route}\n[upstream app]\n{upstream}\n")
    assert lines == ([f"a.ini:3: [route r] upstream: {text}"] if text else [])


def test_ambiguities_are_told_as_connections(tmp_path: Path):
    text = (
        "[route a]\nlistener = edge\nsni = x.org\nclient = 10.0.0.0/8\nupstream = app\n"
        "[route b]\nlistener = edge\nsni = x.org\nclient = 10.1.0.0/16\nupstream = app\n"
        "[route c]\nlistener = edge\nupstream = app\n[route d]\nlistener = edge\nupstream = app\n"
    )
    lines = told(tmp_path, text)
    advice = "give one of them a higher priority, or another condition"
    assert sorted(lines) == [
        f"a.ini:14: [route d]: is as good as [route c] (a.ini:11) for a connection: {advice}",
        "a.ini:6: [route b]: is as good as [route a] (a.ini:1) for a connection to x.org from 10.1.0.0: "
        f"{advice}",
    ]  # fmt: skip


def test_names_are_told_apart_by_how_special_they_are(tmp_path: Path):
    text = "".join(
        f"[route {name}]\nlistener = edge\nupstream = app\n{sni}\n"
        for name, sni in [
            ("exact", "sni = a.b.c"),
            ("long", "sni = *.b.c"),
            ("short", "sni = *.c"),
            ("none", ""),
        ]
    )
    router = build(conf(tmp_path, text))["edge"]
    found = {}
    for name in ("a.b.c", "x.b.c", "y.x.b.c", "b.c", "c", ""):
        asked = connection("192.0.2.7", "edge")
        asked.host = name
        route = router.choose(asked)
        found[name] = route.name if route is not None else ""
    assert found == {
        "a.b.c": "exact",
        "x.b.c": "long",
        "y.x.b.c": "long",
        "b.c": "short",
        "c": "none",
        "": "none",
    }


def test_no_connection_is_kept_where_each_is_introduced(tmp_path: Path):
    text = f"{ROUTE}[upstream app]\nsend_proxy = v1\nkeepalive = 64\nkeepalive_timeout = 9s\n"
    assert told(tmp_path, text) == [
        f"a.ini:{line}: [upstream app] {key}: no connection is kept with send_proxy: remove it"
        for line, key in ((6, "keepalive"), (7, "keepalive_timeout"))
    ]


# explain ----------------------------------------------------------------------------------------------------

TWO = (
    f"{ROUTE}sni = *.example.org\n[route rest]\nlistener = edge\nupstream = app\n[route web]\nrespond = 200\n"
)


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("tcp://A.example.org:8443", "r"),
        ("tcp://a.example.org", "r"),
        ("tcp://:8443", "rest"),
        ("tcp://example.org", "rest"),
        ("http://a.example.org/", "web"),
        ("/x", "web"),
    ],
)
def test_explained(tmp_path: Path, url: str, route: str):
    explanation = explain(conf(tmp_path, TWO), "GET", url, (), "192.0.2.7", None)
    assert explanation.route == route
    assert explanation.listener == ("web" if route == "web" else "edge")
    shown = {value.key for header, value in explanation.values if header.startswith("[route")}
    assert ("upgrade" in shown, "tunnel_timeout" in shown) == (False, False)
    assert ("response_header_remove" in shown) is False


def test_explained_for_people(tmp_path: Path):
    text = str(explain(conf(tmp_path, TWO), "GET", "tcp://example.org", (), "192.0.2.7", "edge"))
    assert text.startswith("tcp://example.org\n  listener  edge\n  route     rest (")
    assert "  outcome   upstream app\n" in text
    assert "sni example.org is not *.example.org" in text
    text = str(explain(conf(tmp_path, f"{ROUTE}sni = a\n"), "GET", "tcp://b", (), "192.0.2.7", None))
    assert "route     none: closed, no_route\n" in text


@pytest.mark.parametrize(
    ("url", "listener", "text"),
    [
        ("tcp://a", "web", "[listener web] is for http: ask for http://HOST/PATH, or another one"),
        ("/a", "edge", "[listener edge] is for tcp: ask for tcp://NAME, or another one"),
        (
            "tcp://a/b",
            None,
            "'tcp://a/b' is a TCP connection: write tcp://NAME:PORT or one of both, no fields",
        ),
    ],
)  # fmt: skip
def test_questions_that_have_no_answer(tmp_path: Path, url: str, listener: str | None, text: str):
    with pytest.raises(ConfigurationError) as caught:
        explain(conf(tmp_path, TWO), "GET", url, (), "192.0.2.7", listener)
    assert caught.value.mistakes == [text]


def test_no_listener_to_ask(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="no listener is for TCP"):
        explain(
            conf(tmp_path, "", base="[listener w]\nbind = a:1\n"), "GET", "tcp://a", (), "192.0.2.7", None
        )
