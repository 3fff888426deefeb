"""What goes wrong on either side, and what the other side, the pool and the log are told about it."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from tests.support.proxies import Path, exchange
from tests.support.streams import TIMEOUT, FakeServer, ServerSide, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\n\r\nhi"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
SOON = 0.01


# -- the server fails before its response


def silent(side: ServerSide) -> None:
    """Take the request and never answer."""
    side.read_until(b"\r\n\r\n")


def closes(side: ServerSide) -> None:
    side.read_until(b"\r\n\r\n")
    side.close()


def resets(side: ServerSide) -> None:
    side.read_until(b"\r\n\r\n")
    side.reset()


def says(data: bytes) -> Any:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(data)
        side.finish()

    return script


@pytest.mark.parametrize(
    ("script", "reason", "status"),
    [
        (closes, "connection_terminated", 502),
        (resets, "connection_terminated", 502),
        (says(b"HTTP/1.1 200 OK\r\nContent-"), "connection_terminated", 502),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "malformed_response", 502),
        (says(b"HTTP/1.1 999 Odd\r\n\r\n"), "malformed_response", 502),
        (says(b"HTTP/2 200\r\n\r\n"), "malformed_response", 502),
        (
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"),
            "malformed_response",
            502,
        ),
        (
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "malformed_response",
            502,
        ),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), "malformed_response", 502),
        (says(b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n"), "malformed_response", 502),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), "malformed_response", 502),
        (says(b"\x00\xff" * 100), "malformed_response", 502),
    ],
)
def test_a_server_that_gives_no_response_is_a_failure_with_its_own_reason(
    script: Any, reason: str, status: int
) -> None:
    got = exchange(GET, [script])
    assert got.status == status
    assert got.records[0]["reason"] == reason
    assert got.records[0]["attempts"][0]["reason"] == reason
    assert b"Proxy-Status: sidecar; error=" in got.head
    assert b"127.0.0.1" not in got.client
    assert b"app-1" not in got.client
    assert not got.was_reset


def test_after_a_failure_the_client_may_go_on() -> None:
    got = exchange(GET * 2, [closes, [OK]], requests=2)
    assert [record["status"] for record in got.records] == [502, 200]


def test_nobody_listening_is_told_as_such_without_an_address() -> None:
    server = FakeServer()
    server.close()
    settle()
    with Path() as path:
        path.pool._dialer._targets = [(2, (server.address.host, server.address.port))]
        client = path.connect()
        client.send(GET)
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"error=connection_refused" in head
        assert str(server.address.port).encode() not in head
        assert path.records[0]["reason"] == "connection_refused"


@pytest.mark.parametrize(
    ("timeouts", "reason"),
    [
        ({"read": SOON}, "upstream_read_timeout"),
        ({"request": SOON}, "response_timeout"),
        ({"request": SOON, "read": 5.0}, "response_timeout"),
        ({"request": 5.0, "read": SOON}, "upstream_read_timeout"),
    ],
)
@pytest.mark.parametrize("request_bytes", [GET, UPLOAD + b"x" * 100])
def test_a_server_that_does_not_answer_in_time_is_a_gateway_timeout(
    request_bytes: bytes, timeouts: dict[str, float], reason: str
) -> None:
    got = exchange(request_bytes, [silent], timeouts=timeouts)
    assert got.status == 504
    assert got.records[0]["reason"] == reason


def test_a_server_that_does_not_read_the_request_is_a_gateway_timeout() -> None:
    def deaf(side: ServerSide) -> None:
        side.sock.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
        gevent.sleep(TIMEOUT)

    with Path(deaf, timeouts={"send": SOON}) as path:
        client = path.connect()
        sending = gevent.spawn(client.send, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        more = gevent.spawn(client.send, b"x" * 20_000_000)
        assert client.read(12) == b"HTTP/1.1 504"
        assert path.records[0]["reason"] == "upstream_write_timeout"
        gevent.killall([sending, more])


# -- the server fails in the middle of its response

HALVES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "in_chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
    "in_trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    "bad_chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
}


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET], ids=["1.1", "1.0"])
@pytest.mark.parametrize("half", HALVES)
def test_a_response_cut_off_never_looks_complete(half: str, request_bytes: bytes) -> None:
    first, hello, rest = HALVES[half].partition(b"hello")

    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(first + hello)
        settle()
        side.send(rest)
        side.finish()

    with Path(script) as path:
        client = path.connect()
        client.send(request_bytes)
        data = client.read_all()
        client.end()
        assert client.was_reset
        assert b"0\r\n\r\n" not in data
        record = path.records[0]
        expected = "malformed_response" if half == "bad_chunk" else "response_incomplete"
        assert record["reason"] == record["attempts"][0]["reason"] == expected
        assert path.pool.pool.items == []


@pytest.mark.parametrize("half", ["length", "chunk"])
def test_a_response_that_stops_in_the_middle_is_cut_off_in_time(half: str) -> None:
    def stall(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(HALVES[half])

    for timeouts, reason in (
        ({"read": SOON * 5}, "upstream_read_timeout"),
        ({"read": SOON * 5, "request": 5.0}, "upstream_read_timeout"),
        ({"request": SOON * 5}, "response_timeout"),
    ):
        with Path(stall, timeouts=timeouts) as path:
            client = path.connect()
            client.send(GET)
            client.read_all()
            client.end()
            assert client.was_reset
            assert path.records[0]["reason"] == reason
            assert_freed(path)


def test_a_close_delimited_response_that_is_reset_is_not_complete() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        settle()
        side.reset()

    with Path(script) as path:
        client = path.connect()
        client.send(GET)
        data = client.read_all()
        client.end()
        assert client.was_reset
        assert b"0\r\n\r\n" not in data


def test_a_session_that_is_killed_never_looks_complete() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    with Path(script) as path:
        client = path.connect()
        client.send(OLD_GET)
        client.read_until(b"hello")
        client.greenlet.kill()
        assert client.read_all() == b""
        assert client.was_reset
        wait_until(lambda: not path.server.open_connections)


def assert_freed(path: Path) -> None:
    wait_until(lambda: not path.server.open_connections)


# -- the client fails


def test_a_client_that_leaves_while_the_server_thinks_frees_the_server() -> None:
    with Path(silent) as path:
        client = path.connect()
        client.send(GET)
        wait_until(lambda: path.received and path.received[0].endswith(b"\r\n\r\n"))
        assert path.server.open_connections == 1
        client.close()
        client.end()
        wait_until(lambda: not path.server.open_connections)
        assert path.records[0]["status"] == 499
        assert path.records[0]["reason"] == "client_gone"
        assert path.pool.pool.items == []


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_of_a_response_frees_the_server(leave: str) -> None:
    def stream(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            side.send(b"x" * 65536)

    with Path(stream) as path:
        client = path.connect()
        client.send(GET)
        client.read(1000)
        getattr(client, leave)()
        client.end()
        wait_until(lambda: not path.server.open_connections)
        assert path.records[0]["reason"] == "client_gone"


def test_a_client_that_leaves_while_nothing_comes_frees_the_server_too() -> None:
    def stall(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(HALVES["length"])

    with Path(stall) as path:
        client = path.connect()
        client.send(GET)
        client.read_until(b"hello")
        client.close()
        client.end()
        wait_until(lambda: not path.server.open_connections)
        assert path.records[0]["reason"] == "client_gone"


@pytest.mark.parametrize("leave", ["finish", "reset"])
def test_a_client_that_leaves_in_the_middle_of_its_upload_frees_the_server(leave: str) -> None:
    with Path(silent) as path:
        client = path.connect()
        client.send(UPLOAD + b"x" * 50)
        wait_until(lambda: path.received and path.received[0].endswith(b"\r\n\r\n"))
        getattr(client, leave)()
        client.end()
        wait_until(lambda: not path.server.open_connections)
        assert path.records[0]["status"] == 499


def test_a_client_that_stops_uploading_gets_408() -> None:
    with Path(silent, body_timeout=SOON) as path:
        client = path.connect()
        client.send(UPLOAD + b"x" * 50)
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close" in head
        client.close()
        client.end()
        wait_until(lambda: not path.server.open_connections)


def test_a_client_whose_chunks_break_the_grammar_gets_400_and_no_last_chunk_is_sent() -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
    with Path(silent) as path:
        client = path.connect()
        client.send(request)
        assert client.read(12) == b"HTTP/1.1 400"
        client.close()
        client.end()
        wait_until(lambda: not path.server.open_connections)
        assert b"0\r\n\r\n" not in path.received[0]
        assert path.records[0]["reason"] == "malformed_request"


def test_a_client_that_does_not_read_is_cut_off_in_time() -> None:
    def stream(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            side.send(b"x" * 65536)

    with Path(stream, write_timeout=SOON) as path:
        client = path.connect(send_buffer=4096, receive_buffer=4096)
        client.send(GET)
        client.end()
        wait_until(lambda: not path.server.open_connections)
        assert path.records[0]["reason"] == "client_write_timeout"


# -- the request as a whole


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        (b"GET /../etc HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ],
)
def test_a_request_that_is_none_never_reaches_a_server(request_bytes: bytes, status: int) -> None:
    got = exchange(request_bytes, [[OK]])
    assert got.status == status
    assert got.upstream == []
    assert got.records[0]["status"] == status
    assert not got.was_reset
