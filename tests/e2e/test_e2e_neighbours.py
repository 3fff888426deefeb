"""Who stands on either side: old servers, unix sockets, load balancers that speak for their clients."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Live, until
from tests.support.peers import Answering, Message, Stream, request

APP = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def _old_server(folder: Path) -> Iterator[str]:
    """Python's http.server as it is: HTTP/1.0, a connection for each request."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _facts(message: Message) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(message.body)
    return facts


def test_http10_server_serves_keep_alive_clients(live: Live, tmp_path: Path) -> None:
    """Its connections end after each answer; the client's goes on through file, HEAD, listing and 404."""
    site = tmp_path / "site"
    site.mkdir()
    content = bytes(range(256)) * 400
    (site / "file.bin").write_bytes(content)
    with _old_server(site) as address:
        sidecar = live.start(APP.format(address))
        with Stream.connect(live.port) as client:
            for _ in range(3):
                answer = client.ask("GET", "/file.bin")
                assert (answer.status, answer.body) == (200, content)
                assert answer.start.startswith("HTTP/1.1 ")
                head = client.ask("HEAD", "/file.bin")
                assert (head.status, head.fields["content-length"]) == (200, str(len(content)))
                assert client.ask("GET", "/missing").status == 404
                assert b"file.bin" in client.ask("GET", "/").body
        lines = sidecar.wait_exchanges(12)
    assert not any(line["attempts"][0]["reused"] for line in lines)
    assert not any("reason" in line for line in lines)


def test_http10_client_is_served_by_a_chunking_server(live: Live) -> None:
    """It cannot read chunks: the end of the connection ends its body."""

    def answer(_: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"

    with Answering(answer) as upstream:
        live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")
            reply = client.read_message()
    assert reply.body == b"hello world"
    assert "transfer-encoding" not in reply.fields


def test_server_on_a_unix_socket(live: Live, tmp_path: Path) -> None:
    """Its connections are kept and used again like others."""
    path = str(tmp_path / "app.sock")
    with Answering(path=path) as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            assert _facts(client.ask("POST", "/a", b"x" * 70_000))["size"] == 70_000
            facts = _facts(client.ask("GET", "/b"))
        assert facts["fields"]["host"] == "test"
        assert facts["fields"]["x-forwarded-for"] == "127.0.0.1"
        lines = sidecar.wait_exchanges(2)
    assert [line["upstream"] for line in lines] == [f"unix:{path}"] * 2
    assert lines[1]["attempts"][0]["reused"]


def test_server_by_its_name(live: Live) -> None:
    """A name is looked up, and the request keeps the host that the client asked for."""
    with Answering() as upstream:
        live.start(APP.format(upstream.address.replace("127.0.0.1", "localhost")))
        with Stream.connect(live.port) as client:
            for _ in range(2):
                assert _facts(client.ask("GET", "/"))["fields"]["host"] == "test"


def test_listener_on_a_unix_socket(live: Live, tmp_path: Path) -> None:
    """It serves, a file left by a process that died does not hinder it, and its own is removed at the end."""
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Answering() as upstream:
        live.conf.write("00-listener.ini", f"[listener public]\nbind = unix:{path}\n")
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(str(path)) as client:
            facts = _facts(client.ask("GET", "/"))
            assert "x-forwarded-for" not in facts["fields"]
            assert facts["fields"]["x-forwarded-host"] == "test"
        assert sidecar.wait_exchanges(1)[0]["client"] == "unix:"
        sidecar.process.terminate()
        assert sidecar.wait_exit() == 0
    assert not path.exists()


def _v1(client: str) -> bytes:
    return f"PROXY TCP4 {client} 192.0.2.1 40000 443\r\n".encode()


def _v2(client: str) -> bytes:
    addresses = socket.inet_aton(client) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 443)
    # A field that nobody knows follows the addresses.
    extra = b"\xee\x00\x03abc"
    return _SIGNATURE + b"\x21\x11" + struct.pack("!H", len(addresses) + len(extra)) + addresses + extra


@pytest.mark.parametrize("mode", ["accept", "require"])
def test_proxy_protocol_tells_the_client(live: Live, mode: str) -> None:
    """Both versions reach the server as X-Forwarded-For and the log as client, for every request."""
    live.listen(f"proxy_protocol = {mode}")
    with Answering() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        for header in (_v1, _v2):
            with Stream.connect(live.port) as client:
                client.send(header("203.0.113.7") + request("GET", "/one"))
                for facts in (_facts(client.read_message()), _facts(client.ask("GET", "/two"))):
                    assert facts["fields"]["x-forwarded-for"] == "203.0.113.7"
        lines = sidecar.wait_exchanges(4)
    assert {line["client"] for line in lines} == {"203.0.113.7"}


def test_proxy_protocol_in_pieces(live: Live) -> None:
    """A header that comes byte by byte is read like one in one piece."""
    live.listen("proxy_protocol = require")
    with Answering() as upstream:
        live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            for byte in _v2("203.0.113.7"):
                client.send(bytes([byte]))
            assert _facts(client.ask("GET", "/"))["fields"]["x-forwarded-for"] == "203.0.113.7"


def test_proxy_protocol_that_is_missing(live: Live) -> None:
    """With `accept` the connection speaks for itself; with `require` it is closed without a word."""
    live.listen("proxy_protocol = accept")
    with Answering() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            assert _facts(client.ask("GET", "/"))["fields"]["x-forwarded-for"] == "127.0.0.1"
        live.listen("proxy_protocol = require")
        sidecar.wait_event("reload_applied")
        with Stream.connect(live.port) as client:
            client.send(request("GET", "/"))
            assert client.read_all() == b""
        (event,) = sidecar.wait_event("proxy_header_refused")
        assert event["peer"] == "127.0.0.1"
        assert len(sidecar.exchanges()) == 1


def test_forwarding_fields_are_believed_from_trusted_proxies_alone(live: Live) -> None:
    """From others they are replaced, so that nobody can pretend to be somebody else."""
    claims: dict[str, Any] = {
        "X_Forwarded_For": "203.0.113.9",
        "X_Forwarded_Proto": "https",
        "Forwarded": "for=203.0.113.9",
    }
    with Answering() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            fields = _facts(client.ask("GET", "/", **claims))["fields"]
            assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == ("127.0.0.1", "http")
            assert "forwarded" not in fields
            live.listen("trusted_proxies = 127.0.0.0/8")
            sidecar.wait_event("reload_applied")
            # The same connection, so that it is the generation that counts and not the connection.
            fields = _facts(client.ask("GET", "/", **claims))["fields"]
            assert fields["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
            assert fields["x-forwarded-proto"] == "https"
            assert fields["x-real-ip"] == "203.0.113.9"
        until(lambda: len(sidecar.exchanges()) == 2, "two lines")
    assert [line["client"] for line in sidecar.exchanges()] == ["127.0.0.1", "203.0.113.9"]
