"""Connections to one server: dialed, kept, taken again, and closed when they are of no more use."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import gevent.socket
import pytest

from sidecar.errors import Failure
from sidecar.upstream.pool import Connection, ServerPool, Stack
from tests.support.streams import TIMEOUT, FakeServer, ServerSide, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01


def stay(side: ServerSide) -> None:
    """Do nothing; the player listens until the other side ends."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer(*[stay] * 10)
    yield server
    server.close()
    settle()


@pytest.fixture
def pool(server: FakeServer) -> Iterator[ServerPool]:
    pool = ServerPool(server.address, 2, 60.0)
    yield pool
    pool.close()


def dialed(pool: ServerPool, server: FakeServer, count: int = 1) -> list[Connection]:
    before = len(server.connections)
    connections = [pool.dial(TIMEOUT) for _ in range(count)]
    wait_until(lambda: len(server.connections) == before + count)
    return connections


def test_a_new_pool_has_nothing_to_give(pool: ServerPool) -> None:
    assert pool.acquire(0.0) is None


def test_a_connection_that_was_given_back_is_taken_again(pool: ServerPool, server: FakeServer) -> None:
    (connection,) = dialed(pool, server)
    pool.release(connection)
    assert pool.acquire(0.0) is connection
    assert pool.acquire(0.0) is None
    connection.close()


def test_the_last_one_given_back_is_taken_first(pool: ServerPool, server: FakeServer) -> None:
    one, two = dialed(pool, server, 2)
    pool.release(one)
    pool.release(two)
    assert [pool.acquire(0.0), pool.acquire(0.0)] == [two, one]
    one.close()
    two.close()


def test_more_than_is_kept_is_closed(pool: ServerPool, server: FakeServer) -> None:
    for connection in dialed(pool, server, 3):
        pool.release(connection)
    wait_until(lambda: server.open_connections == 2)


def test_a_pool_that_keeps_none_closes_what_comes_back(server: FakeServer) -> None:
    pool = ServerPool(server.address, 0, 60.0)
    pool.release(dialed(pool, server)[0])
    assert pool.acquire(0.0) is None
    wait_until(lambda: server.open_connections == 0)


def test_a_resting_connection_that_the_server_ends_leaves_the_pool(
    pool: ServerPool, server: FakeServer
) -> None:
    pool.release(dialed(pool, server)[0])
    server.connections[0].finish()
    wait_until(lambda: not pool.pool.items)
    wait_until(lambda: server.open_connections == 0)


def test_an_end_nobody_noticed_yet_is_noticed_when_the_connection_is_taken(
    pool: ServerPool, server: FakeServer
) -> None:
    one, two = dialed(pool, server, 2)
    pool.release(one)
    pool.release(two)
    server.connections[1].reset()
    assert pool.acquire(0.0) is one
    assert two.sock is None
    one.close()


def test_a_server_that_speaks_unasked_is_left(pool: ServerPool, server: FakeServer) -> None:
    pool.release(dialed(pool, server)[0])
    server.connections[0].send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert pool.acquire(0.0) is None
    wait_until(lambda: server.open_connections == 0)


def test_bytes_behind_a_response_make_the_connection_useless(pool: ServerPool, server: FakeServer) -> None:
    (connection,) = dialed(pool, server)
    connection.channel.unread(b"HTTP/1.1 200 OK\r\n\r\n")
    pool.release(connection)
    wait_until(lambda: server.open_connections == 0)


def test_a_connection_rests_only_so_long(server: FakeServer) -> None:
    pool = ServerPool(server.address, 2, SOON)
    pool.release(dialed(pool, server)[0])
    wait_until(lambda: not pool.pool.items)
    wait_until(lambda: server.open_connections == 0)


def test_a_connection_in_use_does_not_expire(server: FakeServer) -> None:
    pool = ServerPool(server.address, 2, SOON)
    pool.release(dialed(pool, server)[0])
    connection = pool.acquire(0.0)
    assert connection is not None
    gevent.sleep(SOON * 2)
    assert server.open_connections == 1
    connection.close()


def test_closing_ends_what_rests_and_later_what_was_in_use(server: FakeServer) -> None:
    pool = ServerPool(server.address, 2, 60.0)
    resting, used = dialed(pool, server, 2)
    pool.release(resting)
    pool.close()
    wait_until(lambda: server.open_connections == 1)
    pool.release(used)
    wait_until(lambda: server.open_connections == 0)
    assert pool.acquire(0.0) is None


def test_a_connection_knows_whether_it_is_alive(pool: ServerPool, server: FakeServer) -> None:
    (connection,) = dialed(pool, server)
    seen = [connection.is_connected]
    server.connections[0].finish()
    seen.append(connection.is_connected)
    connection.close()
    seen.append(connection.is_connected)
    assert seen == [True, False, False]


def test_dialing_that_fails_says_why() -> None:
    server = FakeServer()
    address = server.address
    server.close()
    settle()
    with pytest.raises(Failure) as caught:
        ServerPool(address, 2, 60.0).dial(TIMEOUT)
    assert caught.value.reason == "connection_refused"


def test_a_unix_socket_is_a_server_too(tmp_path: Path) -> None:
    server = FakeServer(stay, path=str(tmp_path / "app.sock"))
    pool = ServerPool(server.address, 2, 60.0)
    connection = dialed(pool, server)[0]
    pool.release(connection)
    assert pool.acquire(0.0) is connection
    connection.close()
    server.close()
    settle()


def test_the_stack_keeps_to_what_urllib3_expects_of_a_queue() -> None:
    stack = Stack(1)
    stack.put(None)
    with pytest.raises(queue.Empty):
        stack.get(block=False)
    connection = Connection("localhost", open_with=lambda timeout, first: None)  # type: ignore[arg-type, return-value]
    stack.put(connection)
    with pytest.raises(queue.Full):
        stack.put(connection)
    assert stack.get() is connection
