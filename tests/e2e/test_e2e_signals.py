"""How the process ends, and what the other signals do."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.heirs import Load
from tests.support.live import Live, listening_inode, until, until_steady
from tests.support.peers import Accepting, Stream, ask

HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"
APP = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stop_finishes_what_is_in_flight_and_closes_the_rest(live: Live, stop: signal.Signals) -> None:
    """The slow response arrives whole, idle connections end, new ones are refused, the status is 0."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address) + HELLO)
        with Stream.connect(live.port) as idle, Stream.connect(live.port) as slow:
            assert idle.ask("GET", "/hello").status == 200
            slow.send(SLOW)
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                assert slow.read_head().status == 200
                sidecar.signal(stop)
                sidecar.wait_event("draining")
                assert idle.is_ended()
                until(lambda: not listening_inode(live.port), "the listener is closed")
                with pytest.raises(ConnectionRefusedError):
                    ask(live.port, "/hello")
                assert sidecar.process.poll() is None
                server.send(b"world")
                assert slow.read(10) == b"helloworld"
                assert slow.is_ended()
        assert sidecar.wait_exit() == 0
    assert sidecar.wait_exchanges(2)[1]["status"] == 200
    assert [event["event"] for event in sidecar.events()][-2:] == ["drained", "stopped"]


def test_stop_meets_no_client_in_the_middle_of_a_request(live: Live) -> None:
    """Clients that ask without a pause on connections they keep all hear of the end in a response."""
    sidecar = live.start(HELLO)
    load = Load(live.port, kept=8, single=0)
    load.wait(500)
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait_exit() == 0
    load.stop()
    assert load.closes == 8
    assert all("ConnectionRefusedError" in error for error in load.errors)


@pytest.mark.parametrize("reload", [False, True])
def test_response_that_begins_while_draining_says_that_the_connection_ends(live: Live, reload: bool) -> None:
    """Also when a reload came between the request and the stop."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as slow:
            slow.send(SLOW)
            with upstream.accept() as server:
                server.read_message()
                if reload:
                    live.conf.write("20-hello.ini", HELLO)
                    sidecar.wait_event("reload_applied")
                sidecar.signal(signal.SIGTERM)
                until(lambda: not listening_inode(live.port), "the listener is closed")
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                answer = slow.read_message()
                assert answer.body == b"ok"
                assert answer.fields["connection"] == "close"
                assert slow.is_ended()
        assert sidecar.wait_exit() == 0


def test_stop_cuts_off_what_outlasts_the_drain_timeout(live: Live) -> None:
    """A response that never ends does not keep the process; its client sees that it is not whole."""
    with Accepting() as upstream:
        sidecar = live.start("[sidecar]\ndrain_timeout = 300ms\n" + APP.format(upstream.address))
        with Stream.connect(live.port) as slow:
            slow.send(SLOW)
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                assert slow.read_head().status == 200
                sidecar.signal(signal.SIGTERM)
                assert sidecar.wait_exit() == 0
                assert slow.read_all() == b"hello"
        assert sidecar.events("drained")[0]["cut_off"] == 1


def test_drain_delay_keeps_serving(live: Live) -> None:
    """For so long new connections are served as before, so that others stop sending."""
    sidecar = live.start("[sidecar]\ndrain_delay = 1s\n" + HELLO)
    before = time.monotonic()
    sidecar.signal(signal.SIGTERM)
    sidecar.wait_event("draining")
    with Stream.connect(live.port) as stream:
        first = stream.ask("GET", "/hello")
        assert first.body == stream.ask("GET", "/hello").body == b"hello"
        assert stream.is_ended()
    assert sidecar.wait_exit() == 0
    assert time.monotonic() - before >= 1.0


def test_hup_while_draining_opens_nothing(live: Live) -> None:
    """A process that ends takes no new configuration and no new connection."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as slow:
            slow.send(SLOW)
            with upstream.accept() as server:
                server.read_message()
                sidecar.signal(signal.SIGTERM)
                until(lambda: not listening_inode(live.port), "the listener is closed")
                live.conf.write("20-hello.ini", HELLO)
                sidecar.signal(signal.SIGHUP)
                is_open = until_steady(lambda: bool(listening_inode(live.port)), "the listener", still=0.7)
                assert not is_open
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                assert slow.read_message().body == b"ok"
        assert sidecar.wait_exit() == 0


@pytest.mark.parametrize("drain", ["drain_delay = 30s", "drain_timeout = 30s"])
def test_second_stop_exits_at_once(live: Live, drain: str) -> None:
    """Whoever asks twice does not want to wait, neither for the delay nor for what is in flight."""
    with Accepting() as upstream:
        sidecar = live.start(f"[sidecar]\n{drain}\n" + APP.format(upstream.address))
        with Stream.connect(live.port) as slow:
            slow.send(SLOW)
            with upstream.accept() as server:
                server.read_message()
                sidecar.signal(signal.SIGTERM)
                sidecar.wait_event("draining")
                assert sidecar.process.poll() is None
                before = time.monotonic()
                sidecar.signal(signal.SIGTERM)
                sidecar.wait_exit(timeout=5.0)
                assert time.monotonic() - before < 2.0


def test_usr1_reopens_the_log_after_a_rotation(live: Live) -> None:
    """Until the signal lines go to the renamed file, from then on to a new one; none is lost."""
    log = live.folder / "access.log"
    rotated = live.folder / "access.log.1"
    sidecar = live.start(f"[sidecar]\naccess_log = {log}\n[route any]\nrespond = 200 ok\n")
    ask(live.port, "/first")
    until(lambda: log.exists() and b"/first" in log.read_bytes(), "the first line")
    os.rename(log, rotated)
    ask(live.port, "/second")
    until(lambda: b"/second" in rotated.read_bytes(), "the second line")
    assert not log.exists()
    sidecar.signal(signal.SIGUSR1)
    sidecar.wait_event("log_reopened")
    ask(live.port, "/third")
    until(lambda: log.exists() and b"/third" in log.read_bytes(), "the third line")
    assert b"/third" not in rotated.read_bytes()
    assert log.read_bytes().count(b"\n") == 1
    assert rotated.read_bytes().count(b"\n") == 2


def test_usr1_brings_no_log_back_that_a_reload_left(live: Live) -> None:
    """A log that the configuration named once and was moved away stays away."""
    old, new = live.folder / "old.log", live.folder / "new.log"
    sidecar = live.start(f"[sidecar]\naccess_log = {old}\n" + HELLO)
    live.conf.write("20-log.ini", f"[sidecar]\naccess_log = {new}\n")
    sidecar.wait_event("reload_applied")
    for file in (old, new):
        until(file.exists, f"{file.name}")
        os.rename(file, live.folder / f"{file.name}.1")
    sidecar.signal(signal.SIGUSR1)
    sidecar.wait_event("log_reopened")
    ask(live.port, "/hello?again")
    until(lambda: new.exists() and b"again" in new.read_bytes(), "the line")
    assert not old.exists()


def test_request_sent_ahead_is_answered_although_the_process_drains(live: Live) -> None:
    """What the client had sent before the drain began is served; then the connection ends."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address) + HELLO)
        with Stream.connect(live.port) as slow:
            slow.send(SLOW + b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n")
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                assert slow.read_head().status == 200
                sidecar.signal(signal.SIGTERM)
                until(lambda: not listening_inode(live.port), "the listener is closed")
                server.send(b"ok")
                assert slow.read(2) == b"ok"
                second = slow.read_message()
                assert second.body == b"hello"
                assert second.fields["connection"] == "close"
                assert slow.is_ended()
        assert sidecar.wait_exit() == 0
