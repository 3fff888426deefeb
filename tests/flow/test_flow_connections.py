"""Connections through a session and a forward: kept, pipelined, pooled, found dead, and ended."""

from __future__ import annotations

import gevent
import pytest

from sidecar.upstream.pool import Connection, ServerPool
from sidecar.upstream.retry import RetryOptions
from sidecar.wire.body import ChunkedDecoder
from tests.support.proxies import Path, exchange
from tests.support.streams import Script, ServerSide, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\n\r\nhi"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def then_reset(side: ServerSide) -> None:
    """Answer once, take the next request and reset: a connection that dies of old age, just too late."""
    side.read_request()
    side.send(OK)
    side.read_request()
    side.reset()


def then_close(side: ServerSide) -> None:
    side.read_request()
    side.send(OK)
    side.read_request()
    side.close()


# -- the client's side


def test_one_connection_serves_request_after_request() -> None:
    with Path([OK] * 5) as path:
        client = path.connect()
        for number in range(5):
            client.send(GET % number)
            assert client.read(len(OK)) == OK
        assert path.received[0].count(b"GET /") == 5
        assert [r["attempts"][0]["reused"] for r in path.records] == [False, True, True, True, True]


@pytest.mark.parametrize("piece", [0, 1])
def test_pipelined_requests_are_answered_in_order(piece: int) -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nDate: x\r\n\r\n%d" % number for number in range(8)]
    requests = b"".join(GET % number for number in range(8))
    got = exchange(requests, [answers], requests=8, piece=piece)
    assert got.client == b"".join(answers)
    assert [upstream.count(b"GET /") for upstream in got.upstream] == [8]
    assert [record["path"] for record in got.records] == [f"/{number}" for number in range(8)]


def test_pipelined_requests_with_bodies_are_told_apart() -> None:
    chunks = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    got = exchange(POST + chunks + GET % 3, [[OK, OK, OK]], requests=3)
    assert got.client == OK * 3
    assert [record["method"] for record in got.records] == ["POST", "POST", "GET"]


@pytest.mark.parametrize(
    ("request_head", "kept"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", False),
    ],
)
def test_the_connection_stays_as_the_client_asked(request_head: bytes, kept: bool) -> None:
    with Path([OK, OK]) as path:
        client = path.connect()
        client.send(request_head + b"\r\n")
        head = client.read_until(b"\r\n\r\n")
        assert client.read(2) == b"hi"
        if kept:
            assert b"Connection: close" not in head
            assert (b"Connection: keep-alive" in head) == (b"1.0" in request_head)
            client.send(request_head + b"\r\n")
            assert client.read(12) == b"HTTP/1.1 200"
        else:
            assert b"Connection: close" in head
            assert client.read_all() == b""
            assert not client.was_reset


def test_a_keep_alive_client_of_http_1_0_is_let_go_when_the_length_is_not_known() -> None:
    request = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    got = exchange(request * 2, [[answer]])
    assert b"Connection: close" in got.head
    assert got.body == b"hi"
    assert len(got.records) == 1


# -- the server's side


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_server_that_will_close_is_not_asked_again(answer: bytes) -> None:
    got = exchange((GET % 1) + (GET % 2), [[answer], [answer]], requests=2)
    assert [request.count(b"GET /") for request in got.upstream] == [1, 1]
    assert [record["status"] // 100 for record in got.records] == [2, 2]


def test_a_server_of_http_1_0_that_keeps_the_connection_is_asked_again() -> None:
    answer = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"
    got = exchange((GET % 1) + (GET % 2), [[answer, answer]], requests=2)
    assert len(got.upstream) == 1


def test_bytes_behind_a_response_are_never_taken_for_the_next_one() -> None:
    poisoned = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    got = exchange((GET % 1) + (GET % 2), [[poisoned], [OK]], requests=2)
    assert got.client == OK * 2


def test_connections_of_one_server_are_shared_by_clients() -> None:
    with Path([OK, OK]) as path:
        for number in range(2):
            client = path.connect()
            client.send(GET % number)
            assert client.read(len(OK)) == OK
            client.close()
            client.end()
        assert len(path.received) == 1


def test_a_client_that_leaves_between_requests_costs_the_server_nothing() -> None:
    with Path([OK]) as path:
        client = path.connect()
        client.send(GET % 1)
        client.read(len(OK))
        client.close()
        client.end()
        assert path.server.open_connections == 1
        assert len(path.pool.pool.items) == 1


# -- a pooled connection that is dead


def attempts(record: dict[str, list[dict[str, object]]]) -> list[tuple[bool, object]]:
    return [(attempt["reused"] is True, attempt.get("reason")) for attempt in record["attempts"]]


@pytest.mark.parametrize("script", [then_reset, then_close])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
def test_what_may_be_repeated_is_repeated_once_on_a_new_connection(script: Script, method: bytes) -> None:
    again = b"%b /2 HTTP/1.1\r\nHost: a\r\n\r\n" % method
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    got = exchange((GET % 1) + again, [script, [answer]], requests=2)
    assert [record["status"] for record in got.records] == [200, 204]
    assert attempts(got.records[1]) == [(True, "connection_terminated"), (False, None)]


def test_it_is_repeated_only_once() -> None:
    def reset(side: ServerSide) -> None:
        side.read_request()
        side.reset()

    got = exchange((GET % 1) + (GET % 2), [then_reset, reset, [OK]], requests=2)
    assert got.records[1]["status"] == 502
    assert attempts(got.records[1]) == [
        (True, "connection_terminated"),
        (False, "connection_terminated"),
    ]


def test_a_new_connection_that_dies_is_not_repeated_whatever_the_method() -> None:
    def reset(side: ServerSide) -> None:
        side.read_request()
        side.reset()

    got = exchange(GET % 1, [reset, [OK]])
    assert got.status == 502
    assert len(got.upstream) == 1


@pytest.mark.parametrize("request_bytes", [POST, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"])
def test_a_post_that_a_server_may_have_seen_is_not_repeated(request_bytes: bytes) -> None:
    got = exchange((GET % 1) + request_bytes, [then_reset, [OK]], requests=2)
    assert got.records[1]["status"] == 502
    assert got.records[1]["reason"] == "connection_terminated"
    assert len(got.upstream) == 1


class _Blind(ServerPool):
    """A pool that gives connections out without a look, as if they died right after it."""

    def acquire(self, now: float, careful: bool = False) -> Connection | None:
        if not self.pool.items:
            return None
        connection = self.pool.items.pop()
        connection.channel.parked = None
        connection.link.waited = 0.0
        return connection


@pytest.mark.parametrize("request_bytes", [POST, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"])
def test_a_post_of_which_nothing_was_sent_is_repeated_with_its_body(request_bytes: bytes) -> None:
    with Path([OK], [OK]) as path:
        path.pool.__class__ = _Blind
        client = path.connect()
        client.send(GET % 1)
        client.read(len(OK))
        path.pool.pool.items[0].channel.parked = None
        path.server.connections[0].reset()
        client.send(request_bytes)
        assert client.read(len(OK)) == OK
        assert path.received[1].endswith(request_bytes.partition(b"\r\n\r\n")[2])
        assert attempts(path.records[1]) == [(True, "connection_terminated"), (False, None)]


@pytest.mark.parametrize(
    ("size", "status", "requests"),
    [
        pytest.param(5, b"200", 2, id="kept"),
        pytest.param(RetryOptions.retry_body, b"200", 2, id="just so kept"),
        pytest.param(RetryOptions.retry_body + 2, b"502", 1, id="too large"),
    ],
)
def test_a_chunked_body_is_begun_again_from_its_beginning_or_not_at_all(
    size: int, status: bytes, requests: int
) -> None:
    """Another server would take the middle of the body for its beginning."""

    def die(side: ServerSide) -> None:
        side.read_request()
        side.send(OK)
        side.read_until(b"\r\n\r\n")
        side.read(len(chunk))
        side.reset()

    chunk = b"%x\r\n%b\r\n" % (size - 1, b"x" * (size - 1))
    with Path(die, [OK]) as path:
        client = path.connect()
        client.send(GET % 1)
        client.read(len(OK))
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        wait_until(lambda: path.server.connections[0].sock.closed)
        client.send(b"1\r\ny\r\n0\r\n\r\n")
        assert client.read(12) == b"HTTP/1.1 " + status
        assert len(path.received) == requests
        if requests == 2:
            body, _ = ChunkedDecoder().feed(path.received[1].partition(b"\r\n\r\n")[2])
            assert body == b"x" * (size - 1) + b"y"


def test_an_interim_response_means_that_the_server_acts() -> None:
    def die(side: ServerSide) -> None:
        side.read_request()
        side.send(OK)
        side.read_request()
        side.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        settle()
        side.reset()

    got = exchange((GET % 1) + (GET % 2), [die, [OK]], requests=2)
    assert got.records[1]["status"] == 502
    assert len(got.upstream) == 1


def test_a_connection_that_died_while_it_rested_costs_nobody_anything() -> None:
    with Path([OK], [OK]) as path:
        client = path.connect()
        client.send(GET % 1)
        client.read(len(OK))
        path.server.connections[0].reset()
        settle()
        client.send(POST)
        assert client.read(len(OK)) == OK
        assert attempts(path.records[1]) == [(False, None)]


def test_many_clients_at_once_get_each_its_own_answer() -> None:
    def echo(side: ServerSide) -> None:
        while True:
            line = side.read_request().partition(b" HTTP")[0]
            side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line))

    with Path(*[echo] * 40, keepalive=40) as path:
        clients = [path.connect() for _ in range(40)]

        def ask(number: int) -> None:
            client = clients[number]
            for turn in range(5):
                client.send(b"GET /%d/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (number, turn))
                client.read_until(b"\r\n\r\n")
                expected = b"GET /%d/%d" % (number, turn)
                assert client.read(len(expected)) == expected

        gevent.joinall([gevent.spawn(ask, number) for number in range(40)], raise_error=True)
        assert len(path.records) == 200
