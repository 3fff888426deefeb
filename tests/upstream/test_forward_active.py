"""In progress or not: whatever way an attempt ends, its server is given back, once.

Each test counts while it lasts and afterwards; `fleet` and `Path` count at the end of every other test, too.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.runtime import FakeClock
from sidecar.upstream.group import QueueOptions
from sidecar.upstream.pool import ServerPool
from tests.support.proxies import Path
from tests.support.streams import TIMEOUT, Script, ServerSide, outcome, settle, start, wait_until
from tests.support.upstreams import GET, OK, SOON, Fleet, answer, fleet, post

pytestmark = pytest.mark.usefixtures("no_leaks")

UPGRADE = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
HELLO = answer(body=b"hello")


def silent(side: ServerSide) -> None:
    side.read_until(b"\r\n\r\n")


def resets(side: ServerSide) -> None:
    side.read_request()
    side.reset()


def half(side: ServerSide) -> None:
    """Half of a body, and no more until the connection ends."""
    side.read_request()
    side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")


def torn(side: ServerSide) -> None:
    half(side)
    side.finish()


def deaf(side: ServerSide) -> None:
    """Read the head, and not a byte of what follows."""
    side.read_until(b"\r\n\r\n")
    wait_until(lambda: side.sock.fileno() < 0)


@contextmanager
def unreachable(it: Fleet) -> Iterator[None]:
    """The first server's address is one that takes no connection and refuses none: its line is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        it.servers[0].pool = ServerPool(Address(*address), 4, 60.0)
        try:
            yield
        finally:
            for one in waiting:
                one.close()


# -- without a body it is over with the head


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (GET, OK),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (GET, OK.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")),
    ],
)
def test_an_answer_without_a_body_ends_the_attempt(data: bytes, reply: bytes) -> None:
    with fleet([[reply]]) as it:
        assert it.ask(data).body is None
        assert it.active == [0]


def test_an_answer_with_a_body_ends_it_with_the_body() -> None:
    with fleet([[HELLO]]) as it:
        response = it.ask()
        assert it.active == [1]
        response.body.close()
        response.body.close()
        assert it.active == [0]


def test_a_tunnel_counts_until_it_is_closed() -> None:
    with fleet([[SWITCHED]]) as it:
        response = it.ask(UPGRADE)
        assert it.active == [1]
        response.body.close()
        assert it.active == [0]


# -- failures at each stage


@pytest.mark.parametrize(
    ("script", "data", "options", "reason"),
    [
        (resets, GET, {}, "connection_terminated"),
        (silent, GET, {"read": SOON}, "upstream_read_timeout"),
        (silent, GET, {"request": SOON}, "response_timeout"),
        ([b"garbage\r\n\r\n"], GET, {}, "malformed_response"),
        ([b"HTTP/1.1 102 Processing\r\n\r\n" * 99], GET, {}, "malformed_response"),
        ([SWITCHED], GET, {}, "upgrade_failed"),
        ([b"HTTP/1.1 101 No\r\n\r\n"], UPGRADE, {}, "upgrade_failed"),
        (silent, post(b"")[:-4] + b"\r\nX: y\r\n\r\n", {"read": SOON}, "upstream_read_timeout"),
        (deaf, post(b"x" * 9_000_000), {"send": 0.05}, "upstream_write_timeout"),
    ],
)
def test_a_failure_gives_the_server_back(
    script: Script, data: bytes, options: dict[str, Any], reason: str
) -> None:
    with fleet([script], **options) as it:
        assert it.failure(data).reason == reason
        assert it.active == [0]


def test_a_server_that_is_not_reached_is_given_back() -> None:
    with fleet([], connect=SOON) as it:
        with unreachable(it):
            assert it.failure().reason == "connection_timeout"
            assert it.active == [0]
        it.servers[0].pool = ServerPool(it.fakes[0].address, 4, 60.0)
        it.fakes[0].close()
        settle()
        assert it.failure().reason == "connection_refused"
        assert it.active == [0]


def test_an_error_that_nobody_foresaw_gives_the_server_back() -> None:
    def breaks(head: object) -> None:
        raise RuntimeError

    with fleet([[b"HTTP/1.1 103 Early\r\n\r\n" + OK]]) as it:
        with pytest.raises(RuntimeError):
            it.ask(interim=breaks)
        assert it.active == [0]
        wait_until(lambda: not it.fakes[0].open_connections)


@pytest.mark.parametrize("reply", [answer(503), answer(503, b"busy")])
def test_attempts_that_were_thrown_away_are_over_when_the_next_begins(reply: bytes) -> None:
    seen: list[list[int]] = []

    def looks(side: ServerSide) -> None:
        side.read_request()
        seen.append(it.active)
        side.send(HELLO)

    with fleet([[reply]], [looks], retry_on=("http_503",)) as it:
        response = it.ask()
        assert (seen, it.active) == ([[0, 1]], [0, 1])
        response.body.close()
        assert it.active == [0, 0]


def test_a_dead_kept_connection_and_its_second_try_count_as_one() -> None:
    def once(side: ServerSide) -> None:
        side.read_request()
        side.send(OK)
        resets(side)

    with fleet([once, [HELLO]]) as it:
        it.ask()
        response = it.ask()
        assert it.active == [1]
        response.body.close()


# -- killed at each stage


def killed(it: Fleet, data: bytes = GET, active: int = 1) -> None:
    """Kill a request as soon as nothing moves any more."""
    asking = start(it.ask, data)
    settle(5)
    assert it.active == [active] + [0] * (len(it.servers) - 1)
    asking.kill(timeout=TIMEOUT)
    assert it.active == [0] * len(it.servers)


@pytest.mark.parametrize(
    ("script", "data"),
    [
        (silent, GET),
        (silent, post(b"hello")),
        (deaf, post(b"x" * 9_000_000)),
        ([b"HTTP/1.1 102 Processing\r\n\r\n"], GET),
        ([b"HTTP/1.1 200 OK\r\nX"], GET),
    ],
)
def test_who_is_killed_while_the_server_is_waited_for_gives_it_back(script: Script, data: bytes) -> None:
    with fleet([script]) as it:
        killed(it, data)
        wait_until(lambda: not it.fakes[0].open_connections or script is deaf)


def test_who_is_killed_while_a_connection_is_made_gives_the_server_back() -> None:
    with fleet([]) as it, unreachable(it):
        killed(it)


def test_who_is_killed_while_the_client_still_sends_has_taken_nothing_or_gives_it_back() -> None:
    with fleet([silent], [], retry_attempts=2) as it:
        killed(it, post(b"hello", b"PUT")[:-2], active=0)
        assert it.fakes[0].connections == []
    with fleet([silent]) as it:
        killed(it, post(b"hello")[:-2])


def test_who_is_killed_at_the_second_server_gives_both_back() -> None:
    with fleet([resets], [silent]) as it:
        asking = start(it.ask)
        wait_until(lambda: it.active == [0, 1])
        asking.kill(timeout=TIMEOUT)
        assert it.active == [0, 0]


def test_who_is_killed_in_the_queue_takes_nothing_along() -> None:
    options = QueueOptions(queue=10, queue_timeout=TIMEOUT)
    with fleet([[HELLO], [OK]], servers={1: {"limit": 1}}, options=options) as it:
        response = it.ask()
        waiting = start(it.ask)
        settle()
        assert it.active == [1]
        waiting.kill(timeout=TIMEOUT)
        assert it.active == [1]
        response.body.close()
        assert it.active == [0]
        assert it.status() == 200


def test_time_in_the_queue_is_no_time_of_the_server() -> None:
    clock = FakeClock()
    heard: list[float] = []
    bounds: dict[str, Any] = {"attempt": 5.0, "terms_clock": clock.monotonic, "clock": clock.monotonic}
    options = QueueOptions(queue=10, queue_timeout=TIMEOUT)
    with fleet([[HELLO], [OK]], servers={1: {"limit": 1}}, options=options, **bounds) as it:
        it.servers[0].observer = lambda who, failed, seconds: heard.append(seconds)
        response = it.ask()
        waiting = start(it.ask)
        settle()
        clock.advance(7.0)
        response.body.close()
        assert outcome(waiting).head.status == 200
        assert heard == [0.0, 0.0]
        assert it.request is not None
        assert it.request.attempts[0].total == 0.0


# -- with a client at the other end


@pytest.mark.parametrize(
    ("script", "request_"),
    [
        ([HELLO], GET),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"], GET),
        ([HELLO], post()),
        (torn, GET),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], GET),
        (resets, GET),
    ],
)
def test_after_a_whole_session_nothing_is_in_progress(script: Script, request_: bytes) -> None:
    with Path(script) as path:
        client = path.connect()
        client.send(request_)
        path.proxy.wait_records(1, client)
        assert path.one.state.active == 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("script", "request_"),
    [(silent, GET), (half, GET), (silent, post(b"x" * 99)[:-9]), ([SWITCHED], UPGRADE)],
)
def test_a_client_that_leaves_gives_the_server_back(script: Script, request_: bytes, how: str) -> None:
    with Path(script) as path:
        client = path.connect()
        client.send(request_)
        wait_until(lambda: path.one.state.active == 1 and path.server.received[:1] != [b""])
        settle()
        getattr(client, how)()
        wait_until(lambda: path.one.state.active == 0)


@pytest.mark.parametrize(
    ("script", "request_"), [(silent, GET), (half, GET), ([SWITCHED], UPGRADE), (silent, post(b"x" * 9)[:-5])]
)
def test_a_session_that_is_killed_gives_the_server_back(script: Script, request_: bytes) -> None:
    with Path(script) as path:
        client = path.connect()
        client.send(request_)
        wait_until(lambda: path.one.state.active == 1 and path.server.received[:1] != [b""])
        settle()
        client.greenlet.kill(timeout=TIMEOUT)
        assert path.one.state.active == 0


def test_an_early_answer_counts_until_its_end() -> None:
    def early(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nno")
        side.read(8)
        side.send(b"no")

    with Path(early) as path:
        client = path.connect()
        client.send(post(b"12345678")[:-4])
        client.read_until(b"\r\n\r\n")
        assert path.one.state.active == 1
        client.send(b"5678")
        path.proxy.wait_records(1, client)
        assert path.one.state.active == 0


def test_a_tunnel_counts_while_it_moves() -> None:
    def greets(side: ServerSide) -> None:
        side.read_request()
        side.send(SWITCHED + b"hi")
        side.read(2)
        side.finish()

    with Path(greets) as path:
        client = path.connect()
        client.send(UPGRADE)
        client.read_until(b"hi")
        assert path.one.state.active == 1
        client.send_all(b"yo")
        path.proxy.wait_records(1, client)
        assert path.one.state.active == 0


def test_a_failure_of_ours_is_not_the_servers() -> None:
    with fleet([silent]) as it:
        it.servers[0].pool.dial = _exhausted  # type: ignore[method-assign]
        assert it.failure().reason == "descriptors_exhausted"
        assert (it.active, it.fails) == ([0], [0])


def _exhausted(timeout: float, first: bytes) -> Any:
    raise Failure("descriptors_exhausted", repeatable=True)
