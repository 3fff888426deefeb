"""The demo upstream starts, bounds its connections, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.demo import server as module
from sidecar.demo import start
from sidecar.errors import ConfigurationError

TIMEOUT = 10


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIMEOUT)
        try:
            client.connect(address.removeprefix("unix:"))
        except OSError:
            client.close()
            raise
        return client
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)


def status_line(client: socket.socket) -> bytes:
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with client.makefile("rb") as answers:
        return answers.readline()


@pytest.mark.parametrize("family", ["v4", "v6", "unix"])
def test_every_kind_of_address(family: str, tmp_path: Path) -> None:
    path = tmp_path / "demo.sock"
    server = start({"v4": "127.0.0.1:0", "v6": "[::1]:0", "unix": f"unix:{path}"}[family])
    with connect(server.address) as client:
        assert status_line(client) == b"HTTP/1.1 200 OK\r\n"
    server.stop()
    with pytest.raises(OSError):
        connect(server.address)
    assert not path.exists()


def test_the_end_cuts_off_what_is_open_and_what_waits() -> None:
    server = start("127.0.0.1:0")
    idle, waiting = connect(server.address), connect(server.address)
    with idle, waiting:
        assert status_line(idle).startswith(b"HTTP/1.1 200")
        waiting.sendall(b"GET /?delay=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        # One more exchange, so that the one that waits has been accepted.
        with connect(server.address) as client:
            status_line(client)
        server.stop()
        assert waiting.recv(100) == b""


def test_a_socket_that_another_process_takes_over_stays_open() -> None:
    first = start("127.0.0.1:0")
    with connect(first.address) as idle:
        assert status_line(idle).startswith(b"HTTP/1.1 200")
        second = start(first.address, socket.socket(fileno=os.dup(first.descriptor)))
        assert second.address == first.address
        first.leave()
        # An open connection gets one more answer, and hears that it is the last.
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with idle.makefile("rb") as answer:
            assert b"\r\nConnection: close\r\n" in answer.read()
        with connect(second.address) as client:
            assert status_line(client) == b"HTTP/1.1 200 OK\r\n"
    first.stop()
    with connect(second.address) as client:
        assert status_line(client) == b"HTTP/1.1 200 OK\r\n"
    second.stop()


def test_a_connection_that_another_one_accepted_holds_nobody_up() -> None:
    """Two that listen on one socket wake up for each connection; one of them gets it."""
    first = start("127.0.0.1:0")
    second = start(first.address, socket.socket(fileno=os.dup(first.descriptor)))
    for _ in range(20):
        with connect(first.address) as client:
            assert status_line(client) == b"HTTP/1.1 200 OK\r\n"
    first.stop()
    second.stop()


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    server = start("127.0.0.1:0")
    with connect(server.address) as first:
        assert status_line(first) == b"HTTP/1.1 200 OK\r\n"
        with connect(server.address) as second:
            assert second.recv(100).startswith(b"HTTP/1.1 503 ")
    server.stop()


def test_a_client_that_goes_away_is_no_news(capfd: pytest.CaptureFixture[str]) -> None:
    server = start("127.0.0.1:0")
    with connect(server.address) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    server.stop()
    assert capfd.readouterr().err == ""


def test_a_bug_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = start("127.0.0.1:0")
    monkeypatch.setattr(server._server, "pause", lambda seconds: 1 // 0)
    with connect(server.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100) == b""
    server.stop()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_an_address_that_is_none_or_in_use_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="demo upstream: .* no port"):
        start("nowhere")
    with pytest.raises(ConfigurationError, match="fd:web is for listeners: write host:port or unix:/path"):
        start("fd:web")
    server = start("127.0.0.1:0")
    with pytest.raises(ConfigurationError, match="in use"):
        start(server.address)
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serving_alone_until_a_signal(number: signal.Signals) -> None:
    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from sidecar import demo; raise SystemExit(demo.serve('127.0.0.1:0'))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ, "PYTHONWARNINGS": "error"}
    )
    try:
        assert process.stderr is not None
        address = process.stderr.readline().decode().removeprefix("demo upstream: ").strip()
        with connect(address) as client:
            assert status_line(client) == b"HTTP/1.1 200 OK\r\n"
            process.send_signal(number)
            assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()
