"""`check --probe`: every server is dialed once, as it is when requests are served, and all at one time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.event import Event

from sidecar.config.merge import load
from sidecar.net.names import Names
from sidecar.probing import Found, probe
from sidecar.runtime import SystemClock
from sidecar.upstream.settings import UpstreamSettings
from sidecar.wire.proxy_protocol import LOCAL
from tests.support.dns import DnsServer
from tests.support.streams import TIMEOUT, FakeServer, ServerSide, settle, start, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

#: Nobody listens there, and nobody can: a port below those that the system gives away.
NOWHERE = "127.0.0.1:1"


def probed(directory: Path, text: str, *name_servers: str) -> list[Found]:
    (directory / "a.ini").write_text(text)
    upstreams = load(directory, [UpstreamSettings], {}).named(UpstreamSettings)
    return list(probe(upstreams, name_servers, SystemClock()))


def lines(found: list[Found]) -> list[str]:
    """What is told, without the time."""
    return [f"{str(one).rsplit(', ', 1)[0]}, …" if str(one).endswith(" ms") else str(one) for one in found]


@pytest.fixture
def listening() -> Iterator[Any]:
    made: list[FakeServer] = []

    def listen(*scripts: Any) -> FakeServer:
        made.append(FakeServer(*scripts))
        return made[-1]

    yield listen
    for server in made:
        server.close()


def leave(side: ServerSide) -> None:
    side.read_request()
    side.close()


def test_each_server_has_a_line(tmp_path: Path, listening: Any) -> None:
    server = listening([], [])
    text = f"[upstream app]\nserver.a = {server.address}\nserver.b = {NOWHERE}\nserver.c = 127.0.0.1:2 down\n"
    text += f"server.d = unix:{tmp_path}/none\n[upstream other]\nserver.a = {server.address} backup\n"
    text += "server.b = 127.0.0.1:3\n"
    assert lines(probed(tmp_path, text)) == [
        f"upstream app: server.a {server.address}: ok, …",
        f"upstream app: server.b {NOWHERE}: connection_refused: Connection refused",
        "upstream app: server.c 127.0.0.1:2: down, not dialed",
        f"upstream app: server.d unix:{tmp_path}/none: connection_refused: No such file or directory",
        f"upstream other: server.a {server.address}: ok, …",
        "upstream other: server.b 127.0.0.1:3: connection_refused: Connection refused",
    ]
    assert server.received == [b"", b""]


def test_the_health_check_is_asked_where_there_is_one(tmp_path: Path, listening: Any) -> None:
    good, bad, closing = listening([OK]), listening([BUSY]), listening(leave)
    text = (
        f"[upstream app]\nserver.a = {good.address}\nserver.b = {bad.address}\nserver.c = {closing.address}\n"
    )
    found = probed(tmp_path, f"{text}health_check = GET /healthz\nhealth_host = app.example\n")
    assert lines(found) == [
        f"upstream app: server.a {good.address}: ok, …",
        f"upstream app: server.b {bad.address}: status: 503",
        f"upstream app: server.c {closing.address}: connection_terminated: before the response began",
    ]
    (asked,) = good.received
    assert asked.startswith(b"GET /healthz HTTP/1.1\r\nHost: app.example\r\n")
    assert [one.reason for one in found] == ["", "status", "connection_terminated"]


def test_a_server_that_never_answers_has_the_time_of_its_check(tmp_path: Path, listening: Any) -> None:
    server = listening(lambda side: side.read_all())
    text = f"[upstream app]\nserver.a = {server.address}\nhealth_check = GET /\nhealth_timeout = 100ms\n"
    assert lines(probed(tmp_path, text)) == [
        f"upstream app: server.a {server.address}: response_timeout: not complete after 0.1 s"
    ]


def test_a_server_hears_first_what_it_hears_from_us_always(tmp_path: Path, listening: Any) -> None:
    server = listening([])
    found = probed(tmp_path, f"[upstream app]\nserver.a = {server.address}\nsend_proxy = v2\n")
    assert [one.reason for one in found] == [""]
    wait_until(lambda: server.received == [LOCAL[2]])


def test_names_are_resolved_as_they_are_when_requests_are_served(tmp_path: Path, listening: Any) -> None:
    server = listening([], [], [])
    port = server.address.port
    with DnsServer() as dns:
        dns.set("app.test", "A", "127.0.0.1", "127.0.0.2")
        dns.set("_http._tcp.test", "SRV", f"10 1 {port} app.test.")
        text = f"[upstream app]\nserver.a = app.test:{port}\nserver.b = gone.test:80\n"
        text += "server.c = lost.test:80 down\n"
        text += "[upstream service]\nserver.s = srv:_http._tcp.test\n"
        assert lines(probed(tmp_path, text, dns.address)) == [
            f"upstream app: server.a 127.0.0.1:{port}: ok, …",
            f"upstream app: server.a 127.0.0.2:{port}: connection_refused: Connection refused",
            "upstream app: server.b gone.test:80: dns_error: no such name (NXDOMAIN)",
            "upstream app: server.c lost.test:80: down, not dialed",
            f"upstream service: server.s 127.0.0.1:{port}: ok, …",
            f"upstream service: server.s 127.0.0.2:{port}: connection_refused: Connection refused",
        ]
        assert dns.count("lost.test") == 0


def test_a_name_of_both_families_is_one_server(tmp_path: Path, listening: Any) -> None:
    server = listening([])
    port = server.address.port
    with DnsServer() as dns:
        dns.set("app.test", "A", "127.0.0.1")
        dns.set("app.test", "AAAA", "::1")
        (found,) = probed(tmp_path, f"[upstream app]\nserver.a = app.test:{port}\n", dns.address)
    assert found.address == f"[::1]:{port} or 127.0.0.1:{port}"
    assert found.reason == ""


def test_two_names_of_one_place_are_dialed_both(tmp_path: Path, listening: Any) -> None:
    server = listening([], [])
    port = server.address.port
    text = f"[upstream app]\nserver.a = {server.address}\nserver.b = localhost:{port}\n"
    assert [(one.server, one.reason) for one in probed(tmp_path, text)] == [("a", ""), ("b", "")]


def test_at_most_32_are_dialed_at_one_time_and_told_in_their_order(tmp_path: Path, listening: Any) -> None:
    """The first answers last; what was found of the others waits for it."""
    may_answer = Event()

    def answer(side: ServerSide) -> None:
        side.read_request()
        may_answer.wait(TIMEOUT)
        side.send(OK)

    servers = [listening(answer) for _ in range(40)]
    text = "[upstream app]\nhealth_check = GET /\nhealth_interval = 1m\nhealth_timeout = 30s\n"
    text += "".join(f"server.s{at} = {server.address}\n" for at, server in enumerate(servers))
    asking = start(probed, tmp_path, text)
    wait_until(lambda: sum(len(server.connections) for server in servers) >= 32)
    settle()
    assert sum(len(server.connections) for server in servers) == 32
    may_answer.set()
    found = asking.get(timeout=TIMEOUT)
    assert [(one.server, one.reason) for one in found] == [(f"s{at}", "") for at in range(40)]


def test_who_stops_listening_leaves_nothing_behind(tmp_path: Path, listening: Any) -> None:
    quick, slow = listening([OK]), listening(lambda side: side.read_all())
    text = f"[upstream app]\nserver.a = {quick.address}\nserver.b = {slow.address}\nhealth_check = GET /\n"
    (tmp_path / "a.ini").write_text(text)
    found = probe(load(tmp_path, [UpstreamSettings], {}).named(UpstreamSettings), (), SystemClock())
    assert next(found).reason == ""
    wait_until(lambda: slow.open_connections == 1)
    found.close()  # type: ignore[attr-defined]
    wait_until(lambda: slow.open_connections == 0)


def test_a_mistake_of_ours_is_no_finding(
    tmp_path: Path, listening: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sidecar.probing.Probe.run", fail)
    with pytest.raises(ZeroDivisionError):
        probed(tmp_path, f"[upstream app]\nserver.a = {NOWHERE}\n")


def test_a_name_that_nobody_answers_for_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.probing._NAMES_WITHIN", 0.05)
    monkeypatch.setattr(Names, "files", lambda *_: Event().wait(TIMEOUT))
    assert lines(probed(tmp_path, "[upstream app]\nserver.a = app.test:80\n")) == [
        "upstream app: server.a app.test:80: dns_error: no answer in time"
    ]


def test_what_programs_read() -> None:
    good = Found("app", "a", "127.0.0.1:1", 0.0004)
    assert str(good) == "upstream app: server.a 127.0.0.1:1: ok, 0.4 ms"
    assert good.as_dict() == {
        "upstream": "app",
        "server": "a",
        "address": "127.0.0.1:1",
        "ok": True,
        "reason": None,
        "detail": None,
        "seconds": 0.0004,
    }
    bad = Found("app", "a", "127.0.0.1:1", 5.0, "connection_timeout")
    assert str(bad) == "upstream app: server.a 127.0.0.1:1: connection_timeout"
    assert [bad.as_dict()[key] for key in ("ok", "reason")] == [False, "connection_timeout"]
    assert Found("app", "a", "127.0.0.1:1", 0.0, is_dialed=False).as_dict()["ok"] is None
