"""What the process writes: a line of JSON for each exchange, and events with stable names."""

from __future__ import annotations

import time

from tests.support.live import Live
from tests.support.peers import Accepting, Answering, Stream, ask, response

APP = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\npath_prefix = /app\n"
HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"


def test_exchange_with_a_server_is_one_line_with_every_fact(live: Live) -> None:
    """Who asked what, by which route, of which server, how it ended, how much and how long."""
    with Answering(lambda _: response(b"x" * 1000)) as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.ask("POST", "/app/one?q=1", b"y" * 500)
            client.ask("GET", "/app/two")
        first, second = sidecar.wait_exchanges(2)
    assert first["client"] == "127.0.0.1"
    assert (first["method"], first["host"], first["path"]) == ("POST", "test", "/app/one?q=1")
    assert (first["route"], first["listener"], first["upstream"]) == ("app", "public", upstream.address)
    assert first["status"] == 200
    assert 500 < first["received"] < 700
    assert 1000 < first["sent"] < 1300
    assert first["time"].endswith("Z")
    assert "reason" not in first
    (attempt,) = first["attempts"]
    assert (attempt["server"], attempt["status"], attempt["reused"]) == (upstream.address, 200, False)
    assert 0 <= attempt["connect_ms"] <= attempt["first_byte_ms"] <= attempt["total_ms"]
    assert attempt["total_ms"] <= first["duration_ms"] + 1
    (attempt,) = second["attempts"]
    assert attempt["reused"] is True
    assert "connect_ms" not in attempt


def test_stale_connection_is_two_attempts(live: Live) -> None:
    """A kept connection that the server closes under a request is tried anew, and both are told."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(b"GET /app HTTP/1.1\r\nHost: test\r\n\r\n")
            with upstream.accept() as server:
                server.read_message()
                server.send(response(b"one"))
                assert client.read_message().body == b"one"
                client.send(b"GET /app HTTP/1.1\r\nHost: test\r\n\r\n")
                server.read_message()
            with upstream.accept() as server:
                server.read_message()
                server.send(response(b"two"))
                assert client.read_message().body == b"two"
        attempts = sidecar.wait_exchanges(2)[1]["attempts"]
    assert [attempt["reused"] for attempt in attempts] == [True, False]
    assert attempts[0]["reason"] == "connection_terminated"
    assert attempts[1]["status"] == 200


def test_slow_server_shows_in_the_times(live: Live) -> None:
    """First byte and total are told apart, so that a slow answer is not taken for a slow body."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(b"GET /app HTTP/1.1\r\nHost: test\r\n\r\n")
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                client.read_head()
                began = time.monotonic()
                while time.monotonic() - began < 0.1:
                    pass
                server.send(b"ok")
                client.read(2)
        (line,) = sidecar.wait_exchanges(1)
    (attempt,) = line["attempts"]
    assert attempt["total_ms"] - attempt["first_byte_ms"] >= 95
    assert line["duration_ms"] >= 95


def test_refused_requests_are_logged_with_their_reason(live: Live) -> None:
    """No route, a broken head: the line says why, and nothing of the request can forge another line."""
    sidecar = live.start(HELLO)
    assert ask(live.port, '/nowhere"},{"x":1').status == 404
    with Stream.connect(live.port) as client:
        client.send(
            b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert client.read_message().status == 400
    first, second = sidecar.wait_exchanges(2)
    assert (first["status"], first["reason"]) == (404, "no_route")
    assert first["path"] == '/nowhere"},{"x":1'
    assert "route" not in first
    assert (second["status"], second["client"], second["listener"]) == (400, "127.0.0.1", "public")
    assert second["reason"]


def test_events_are_json_with_a_time_a_level_and_a_name(live: Live) -> None:
    """From the start to the end every line of stderr is one event, under the names people alert on."""
    sidecar = live.start(HELLO)
    live.conf.write("20-bad.ini", "nonsense")
    sidecar.wait_event("reload_refused")
    live.conf.remove("20-bad.ini")
    sidecar.wait_event("reload_unchanged")
    sidecar.process.terminate()
    assert sidecar.wait_exit() == 0
    assert sidecar.complaints() == []
    assert all({"time", "level", "event"} <= event.keys() for event in sidecar.events())
    names = [event["event"] for event in sidecar.events() if event["event"] != "descriptors_raised"]
    assert names == [
        "listener_bound",
        "started",
        "reload_refused",
        "reload_unchanged",
        "draining",
        "listener_closed",
        "drained",
        "stopped",
    ]


def test_access_log_can_be_off_and_be_turned_on(live: Live) -> None:
    """A reload changes where lines go, without losing those before."""
    log = live.folder / "access.log"
    sidecar = live.start("[sidecar]\naccess_log = off\n" + HELLO)
    ask(live.port, "/hello?silent")
    live.conf.write("20-log.ini", f"[sidecar]\naccess_log = {log}\n")
    sidecar.wait_event("reload_applied")
    ask(live.port, "/hello?loud")
    sidecar.process.terminate()
    assert sidecar.wait_exit() == 0
    assert b"loud" in log.read_bytes()
    assert b"silent" not in log.read_bytes()
    assert sidecar.exchanges() == []
