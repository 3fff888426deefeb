"""What the demo upstream answers, byte for byte where it matters. Real sockets."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.demo import DemoServer, start

TIMEOUT = 10


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    running = start("127.0.0.1:0")
    yield running
    running.stop()


def connect(server: DemoServer) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT)


def exchange(server: DemoServer, data: bytes) -> bytes:
    """Send and read until the server closes."""
    with connect(server) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answers:
            return answers.read()


def told(server: DemoServer, data: bytes) -> dict[str, Any]:
    """The description of the only request of `data`."""
    head, _, body = exchange(server, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    description = json.loads(body)
    assert isinstance(description, dict)
    return description


def get(server: DemoServer, target: str) -> bytes:
    return exchange(server, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


def test_a_request_is_told_as_it_came(server: DemoServer) -> None:
    description = told(
        server,
        b"PROPFIND //a/%2e?q=1&q=2#f HTTP/1.1\r\n"
        b"Host: x\r\nX-A: 1\r\nb: \xe9\r\nx-a:  2\r\nConnection: close\r\n\r\n",
    )
    assert description["method"] == "PROPFIND"
    assert description["target"] == "//a/%2e?q=1&q=2#f"
    assert description["version"] == "HTTP/1.1"
    assert description["headers"] == [
        ["Host", "x"],
        ["X-A", "1"],
        ["b", "é"],
        ["x-a", "2"],
        ["Connection", "close"],
    ]
    assert description["body_size"] == 0
    assert description["server"] == server.address
    assert description["client"].startswith("127.0.0.1:")


def test_bodies_of_both_framings_on_one_connection(server: DemoServer) -> None:
    answers = exchange(
        server,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst"
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\nA: b\r\n\r\n"
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answers.index(b'"body": "first"') < answers.index(b'"body": "second"')
    assert b'"A",\n      "b"' in answers


def test_a_client_that_waits_for_permission_gets_it(server: DemoServer) -> None:
    with connect(server) as client:
        client.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"x")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("status", [200, 204, 205, 304, 404, 503, 599])
def test_any_final_status(server: DemoServer, status: int) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=TIMEOUT)
    # The second exchange proves that the first one ended where it said.
    for _ in range(2):
        connection.request("GET", f"/?status={status}")
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, status not in (204, 205, 304))
    connection.close()


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_001])
@pytest.mark.parametrize(
    "how", ["", "&chunked=1", "&trailers=1", "&close=1", "&drip=0.01", "&drip=0.01&chunked=1"]
)
def test_bodies_of_any_size_and_framing(server: DemoServer, size: int, how: str) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=TIMEOUT)
    connection.request("GET", f"/?size={size}{how}")
    response = connection.getresponse()
    body = response.read()
    assert (len(body), body[:16]) == (size, b"0000000\n0000001\n"[:size])
    assert response.getheader("Content-Length") == (str(size) if how in ("", "&drip=0.01") else None)
    connection.close()


def test_trailers_follow_the_last_chunk(server: DemoServer) -> None:
    answer = get(server, "/?size=8&trailers=1")
    digest = hashlib.sha256(b"0000000\n").hexdigest().encode()
    assert b"\r\nTrailer: X-Demo-Sha256\r\n" in answer
    assert answer.endswith(b"\r\n\r\n8\r\n0000000\n\r\n0\r\nX-Demo-Sha256: " + digest + b"\r\n\r\n")


def test_the_end_of_the_connection_ends_the_body(server: DemoServer) -> None:
    head, _, body = exchange(server, b"GET /?size=3&close=1 HTTP/1.1\r\nHost: x\r\n\r\n").partition(
        b"\r\n\r\n"
    )
    assert body == b"000"
    assert b"Connection: close" in head
    assert b"Content-Length" not in head


def test_a_head_has_no_body(server: DemoServer) -> None:
    answers = exchange(
        server,
        b"HEAD /?size=7 HTTP/1.1\r\nHost: x\r\n\r\nHEAD /?size=7&chunked=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    first, second, rest = answers.split(b"\r\n\r\n")
    assert b"Content-Length: 7" in first
    assert b"Transfer-Encoding: chunked" in second
    assert rest == b""


def test_http_1_0_closes_unless_asked_not_to(server: DemoServer) -> None:
    answers = exchange(server, b"GET /?size=1 HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 1
    answers = exchange(server, b"GET /?size=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert answers.count(b"\r\nConnection: keep-alive\r\n") == 2


def test_the_answer_comes_after_the_delay(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(server._server, "pause", pauses.append)
    get(server, "/?delay=1.5&size=100&drip=2")
    assert pauses[0] == 1.5
    assert sum(pauses[1:]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("request_bytes", "status", "text"),
    [
        (b"GET /?size=x HTTP/1.1\r\nHost: x\r\n\r\n", 400, b"size='x': write a whole number"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405, b"this is no proxy"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, b"Content-Length is not a number"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, b"two lengths"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, b"two lengths"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, b"transfer coding"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, b"chunk"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n", 413, b"larger than 1073741824"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, b"malformed"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431, b"headers"),
        (b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400, b"RFC 6455"),
    ],
)
def test_refusals_explain_and_close(
    server: DemoServer, request_bytes: bytes, status: int, text: bytes
) -> None:
    answer = exchange(server, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"\r\nConnection: close" in head
    assert text in body


def test_a_websocket_echoes(server: DemoServer) -> None:
    answer = exchange(
        server,
        b"GET /ws?x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0",
    )
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert frames == b"\x81\x02hi\x88\x00"


def test_attributes_that_do_not_exist_do_not_exist(server: DemoServer) -> None:
    # Methods are looked up by name, so that any is answered; nothing else may be.
    handler_class = server._server.RequestHandlerClass
    assert not hasattr(handler_class.__new__(handler_class), "anything")
