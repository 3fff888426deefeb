"""Drain, reload and upgrade while clients come over TLS: what has begun ends, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.certificates import Files
from tests.support.chain import PublicAuthority
from tests.support.heirs import Line, Load, is_alive
from tests.support.live import Live, until
from tests.support.openssl import Said, s_client
from tests.support.peers import Accepting, Stream
from tests.support.programs import program

CONFIG = """
[sidecar]
drain_timeout = 5s
[certificate site]
{files}
[upstream app]
server.a = {app}
[route hello]
path = /hello
respond = 200 hello
[route app]
upstream = app
"""
PIECES = 20
#: Requests on one HTTP/2 connection, if nobody ends it before.
ROUND = 300


class Site:
    """A sidecar with TLS, before an app whose answers the test gives by hand."""

    def __init__(self, live: Live, app: Accepting) -> None:
        authority = PublicAuthority()
        self.live = live
        self.app = app
        self.root = live.folder / "root.pem"
        self.root.write_bytes(authority.pem)
        self._context = self._trust()
        files = Files(live.folder / "tls", authority.issue("localhost"))
        live.conf.write("10-test.ini", CONFIG.format(files=files.options, app=app.address))
        live.listen("tls = site")
        self.line = Line(live)
        self.line.serving()

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.root))

    def connect(self) -> Stream:
        """One that speaks HTTP/1.1."""
        sock = socket.create_connection(("127.0.0.1", self.live.port), 10)
        return Stream(self._context.wrap_socket(sock, server_hostname="localhost"))

    def curl(self, target: str, *options: str) -> list[str]:
        """What asks over HTTP/2. (The package `h2` holds a connection for closed after any GOAWAY.)"""
        words = [program("curl"), "-sS", "--http2", "--ipv4", "--cacert", str(self.root), *options]
        return [*words, f"https://localhost:{self.live.port}{target}"]

    @contextlib.contextmanager
    def downloads(self) -> Iterator[None]:
        """A long answer over each version, begun before what the test does and ended after it."""
        with self.connect() as stream, contextlib.ExitStack() as stack:
            stream.send(b"GET /long HTTP/1.1\r\nHost: test\r\n\r\n")
            servers = [stack.enter_context(self._begin())]
            assert stream.read_head().status == 200
            client = stack.enter_context(subprocess.Popen(self.curl("/long"), stdout=subprocess.PIPE))
            stack.callback(client.kill)
            servers.append(stack.enter_context(self._begin()))
            yield
            for number in range(PIECES):
                for server in servers:
                    server.send(b"%02d" % number * 500)
            whole = b"".join(b"%02d" % number * 500 for number in range(PIECES))
            assert stream.read(len(whole)) == whole
            assert client.communicate(timeout=20) == (whole, None)
            assert client.returncode == 0

    def _begin(self) -> Stream:
        server = self.app.accept()
        server.read_message()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PIECES * 1000))
        return server


@pytest.fixture
def site(live: Live) -> Iterator[Site]:
    with Accepting() as app:
        yield Site(live, app)


class _Streams:
    """Clients that ask over HTTP/2 until it is enough, several requests at one time on each connection."""

    def __init__(self, site: Site, clients: int = 2) -> None:
        self._enough = threading.Event()
        self.errors: list[str] = []
        self.rounds = self.done = 0
        told = "%{http_code} %{http_version} %{errormsg}\n"
        options = ("--parallel", "--parallel-max", "5", "-o", os.devnull, "-w", told)
        self._words = site.curl(f"/hello?[1-{ROUND}]", *options)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End each after its round."""
        self._enough.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a round never ended"

    def _run(self) -> None:
        while not self._enough.is_set():
            # With --parallel it draws a progress meter whatever it is told.
            done = subprocess.run(
                self._words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60
            )
            lines = done.stdout.splitlines()
            self.errors += [line for line in lines if line.split() != ["200", "2"]]
            if done.returncode or len(lines) != ROUND:
                self.errors.append(f"exit status {done.returncode} after {len(lines)} answers")
            self.done += len(lines)
            self.rounds += 1


@contextlib.contextmanager
def _loaded(site: Site) -> Iterator[tuple[Load, _Streams]]:
    load, streams = Load(site.connect, kept=3, single=2), _Streams(site)
    try:
        load.wait(100)
        until(lambda: streams.rounds >= 2, "the load has begun", 20)
        yield load, streams
        load.wait(load.done + 100)
        by_then = streams.rounds
        until(lambda: streams.rounds >= by_then + 3, "the load goes on", 20)
    finally:
        load.stop()
        streams.stop()
        print(f"HTTP/1.1: {load.done} requests, {load.closes} closes, {len(load.errors)} errors; ", end="")
        print(f"HTTP/2: {streams.done} requests, {len(streams.errors)} errors")
    assert load.errors == []
    assert streams.errors == []


def test_reloads_lose_nothing(site: Site) -> None:
    """Also such as change what the listener is and what it shows."""
    with _loaded(site), site.downloads():
        for number in range(5):
            site.live.conf.write("20-more.ini", f"[route more]\npath = /more\nrespond = 200 {number}\n")
            site.line.wait_event("reload_applied", number + 1)
        site.live.listen("tls = site\nmax_headers = 50")
        site.line.wait_event("reload_applied", 6)


def test_an_upgrade_loses_nothing(site: Site) -> None:
    """A ticket of the old process costs a handshake with the new one, which nobody notices."""
    kept = str(site.live.folder / "session")

    def hello(option: str) -> Said:
        asked = b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        said = s_client(site.live.port, "-CAfile", str(site.root), option, kept, send=asked)
        assert said.body.startswith("hello")
        assert said.is_ended_well
        return said

    assert not hello("-sess_out").is_reused
    assert hello("-sess_in").is_reused
    with _loaded(site), site.downloads():
        heir = site.line.upgrade()
        site.line.seen("upgrade_applied")
    assert site.line.wait_exit() == 0
    assert not hello("-sess_in").is_reused
    assert is_alive(heir)
    assert site.line.events("drained")[0]["cut_off"] == 0


def test_a_drain_ends_what_is_idle_and_finishes_what_is_not(site: Site) -> None:
    with site.connect() as idle:
        assert idle.ask("GET", "/hello").body == b"hello"
        with site.downloads():
            site.line.process.send_signal(signal.SIGTERM)
            site.line.seen("draining")
            # The end comes with a goodbye: no SSLError, no reset.
            assert idle.sock.recv(1) == b""
            assert site.line.process.poll() is None
            with pytest.raises(OSError):
                site.connect()
    assert site.line.wait_exit() == 0
    assert site.line.events("drained")[0]["cut_off"] == 0
