"""Forwarding: one request to one server, and what becomes of the connection, the attempt and the failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.errors import Failure
from sidecar.net.body import RequestBody
from sidecar.upstream.pool import ServerPool
from sidecar.upstream.relay import Relay, Tunnel
from sidecar.upstream.retry import IDEMPOTENT
from sidecar.wire.head import CHUNKED, LENGTH, Names
from tests.support.streams import TIMEOUT, FakeServer, Script, ServerSide, outcome, settle, start, wait_until
from tests.support.upstreams import GET, OK, SOON, Fleet, request_of

pytestmark = pytest.mark.usefixtures("no_leaks")


class Case(Fleet):
    """A forward to one scripted server, and a client's channel."""

    def __init__(self, *scripts: Script, **options: Any) -> None:
        super().__init__(scripts, **options)

    @property
    def server(self) -> FakeServer:
        return self.fakes[0]

    @property
    def pool(self) -> ServerPool:
        return self.servers[0].pool

    @property
    def tried(self) -> list[tuple[bool, int, str]]:
        return [attempt[1:] for attempt in self.attempts]

    @property
    def last(self) -> bytes:
        return self.server.received[-1]


@contextmanager
def case(*scripts: Script, **options: Any) -> Iterator[Case]:
    made = Case(*scripts, **options)
    try:
        yield made
        assert made.active == [0]
    finally:
        made.close()


def test_a_response_without_body_comes_back_and_its_connection_rests() -> None:
    with case([OK]) as it:
        response = it.ask()
        assert response.head.status == 200
        assert response.body is None
        assert len(it.pool.pool.items) == 1
        assert it.request is not None
        (attempt,) = it.request.attempts
        assert attempt.server == "app-1"
        assert not attempt.reused
        assert 0 <= attempt.connect <= attempt.first_byte <= attempt.total
        assert (attempt.status, attempt.reason) == (200, "")


def test_a_response_with_body_leaves_it_on_its_way() -> None:
    with case([OK.replace(b"0", b"2") + b"hi"]) as it:
        response = it.ask()
        assert isinstance(response.body, Relay)
        assert it.pool.pool.items == []
        assert it.request is not None
        assert it.request.attempts[0].total < 0
        response.body.close()
        wait_until(lambda: not it.server.open_connections)


def test_what_the_route_changes_is_what_the_server_gets() -> None:
    data = b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Drop: 1\r\nX-Keep: 1\r\n\r\n"
    with case([OK]) as it:
        it.ask(data, target=b"/v1/a?b", host_header=b"app", drop=Names([b"X-Drop"]), extra=b"X-Extra: 1\r\n")
        assert it.last == b"GET /v1/a?b HTTP/1.1\r\nHost: app\r\nX-Keep: 1\r\nX-Extra: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b"Content-Length: 5\r\n\r\nhello", LENGTH),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", CHUNKED),
    ],
)
def test_a_request_body_goes_along(body: bytes, framing: int) -> None:
    with case([OK]) as it:
        it.ask(b"POST /a HTTP/1.1\r\nHost: x\r\n" + body)
        assert it.last.endswith(body)
        assert it.request is not None
        assert it.request.body.framing == framing
        assert it.request.body.moved == 5
        assert it.request.body.settle()
        assert len(it.pool.pool.items) == 1


def test_a_body_can_be_read_ahead_before_a_server_is_troubled() -> None:
    with case([OK], buffer=1000) as it:
        asking = start(it.ask, b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
        settle()
        assert it.server.connections == []
        it.client.send(b"lo")
        assert outcome(asking).head.status == 200
        assert it.last.endswith(b"\r\n\r\nhello")


def test_a_client_that_waits_for_100_is_asked_by_us_when_we_read_ahead() -> None:
    with case([OK], buffer=1000) as it:
        asking = start(
            it.ask, b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert it.client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        it.client.send(b"ok")
        outcome(asking)
        assert b"Expect" not in it.last


def test_a_body_over_its_limit_is_cut_off_without_a_last_chunk() -> None:
    def take(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")

    with case(take) as it:
        data = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        request = request_of(data)
        it.client.channel.unread(data[len(request.head.raw) :])
        request.client_channel = it.client.channel
        request.body = RequestBody(request.head, it.client.channel, TIMEOUT)
        request.body.bound(4)
        with pytest.raises(Failure) as caught:
            it.forward(request)
        assert caught.value.reason == "request_body_too_large"
        wait_until(lambda: not it.server.open_connections)
        assert b"0\r\n\r\n" not in it.last


# -- repeating


def dies(side: ServerSide) -> None:
    """Answer once and reset at the second request."""
    side.read_request()
    side.send(OK)
    side.read_request()
    side.reset()


@pytest.mark.parametrize("method", sorted(IDEMPOTENT))
def test_an_idempotent_request_is_repeated_when_a_kept_connection_dies(method: bytes) -> None:
    with case(dies, [OK]) as it:
        it.ask()
        assert it.ask(method + b" /a HTTP/1.1\r\nHost: x\r\n\r\n").head.status == 200
        assert it.tried == [(True, 0, "connection_terminated"), (False, 200, "")]


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"LOCK", b"get"])
def test_another_request_is_not(method: bytes) -> None:
    with case(dies, [OK]) as it:
        it.ask()
        error = it.failure(method + b" /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert error.reason == "connection_terminated"
        assert not error.repeatable
        assert it.tried == [(True, 0, "connection_terminated")]


PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"


def test_a_put_whose_body_was_kept_is_repeated_whole() -> None:
    with case(dies, [OK]) as it:
        it.ask()
        assert it.ask(PUT).head.status == 200
        assert it.tried == [(True, 0, "connection_terminated"), (False, 200, "")]
        assert it.last.endswith(b"\r\n\r\nhello")


def test_a_put_whose_body_was_sent_and_not_kept_is_not_repeated() -> None:
    with case(dies, [OK], retry_body=4) as it:
        it.ask()
        error = it.failure(PUT)
        assert not error.repeatable
        assert it.tried == [(True, 0, "connection_terminated")]


def test_a_client_that_names_its_request_may_have_it_repeated() -> None:
    with case(dies, [OK]) as it:
        it.ask()
        assert it.status(b"POST /a HTTP/1.1\r\nHost: x\r\nIdempotency-Key: 1\r\n\r\n") == 200
        assert it.tried == [(True, 0, "connection_terminated"), (False, 200, "")]


def test_a_failure_on_a_new_connection_is_not_repeatable() -> None:
    def reset(side: ServerSide) -> None:
        side.read_request()
        side.reset()

    with case(reset) as it:
        assert not it.failure().repeatable


def test_a_failure_to_connect_is_recorded_and_repeatable() -> None:
    with case() as it:
        it.server.close()
        settle()
        error = it.failure()
        assert error.reason == "connection_refused"
        assert error.repeatable
        assert it.tried == [(False, 0, "connection_refused")]
        assert it.request is not None
        assert it.request.attempts[0].total >= 0


# -- failing


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\nX", "connection_terminated", "in the response's head"),
        (b"", "connection_terminated", "before the response began"),
        (b"nonsense\r\n\r\n", "malformed_response", ""),
    ],
)
def test_no_response_is_a_failure_and_the_connection_is_closed(
    answer: bytes, reason: str, detail: str
) -> None:
    def script(side: ServerSide) -> None:
        side.read_request()
        side.send(answer)
        side.finish()

    with case(script) as it:
        error = it.failure()
        assert error.reason == reason
        assert detail in error.detail
        assert it.tried == [(False, 0, reason)]
        wait_until(lambda: not it.server.open_connections)
        assert it.pool.pool.items == []


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [({"read": SOON}, "upstream_read_timeout"), ({"request": SOON}, "response_timeout")],
)
def test_a_server_that_is_silent_too_long(bounds: dict[str, float], reason: str) -> None:
    with case(lambda side: None, **bounds) as it:
        assert it.failure().reason == reason
        wait_until(lambda: not it.server.open_connections)


def test_the_bound_of_the_whole_exchange_holds_while_the_body_comes() -> None:
    with case(lambda side: None, request=SOON) as it:
        error = it.failure(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
        assert error.reason == "response_timeout"


def test_a_client_that_leaves_is_a_failure_of_the_client() -> None:
    with case(lambda side: None) as it:
        asking = start(it.ask)
        wait_until(lambda: it.server.connections)
        it.client.close()
        with pytest.raises(Failure) as caught:
            outcome(asking)
        assert caught.value.reason == "client_gone"
        wait_until(lambda: not it.server.open_connections)


def test_a_greenlet_that_is_killed_closes_the_connection() -> None:
    with case(lambda side: None) as it:
        asking = start(it.ask)
        wait_until(lambda: it.server.connections)
        asking.kill()
        wait_until(lambda: not it.server.open_connections)
        assert it.pool.pool.items == []


# -- interim responses and upgrades


def test_interim_responses_are_handed_on_one_by_one() -> None:
    seen: list[int] = []
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK
    with case([answer]) as it:
        it.ask(interim=lambda head: seen.append(head.status))
        assert seen == [103, 102]
        assert it.tried == [(False, 200, "")]


def test_interim_responses_nobody_wants_are_dropped() -> None:
    with case([b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK]) as it:
        assert it.ask().head.status == 200


def test_too_many_interim_responses_are_a_malformed_one() -> None:
    with case([b"HTTP/1.1 102 Processing\r\n\r\n" * 1000]) as it:
        error = it.failure()
        assert (error.reason, error.detail) == ("malformed_response", "too_many_interim")


UPGRADE = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_101_that_was_asked_for_is_a_tunnel() -> None:
    with case([SWITCHED]) as it:
        response = it.ask(UPGRADE)
        assert response.head.status == 101
        assert isinstance(response.body, Tunnel)
        assert it.pool.pool.items == []
        response.body.close()


@pytest.mark.parametrize(
    ("data", "answer", "options"),
    [
        (GET, SWITCHED, {}),
        (UPGRADE, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", {}),
        (UPGRADE, SWITCHED, {"upgrade": False}),
    ],
)
def test_a_101_that_was_not_asked_for_or_names_nothing_is_a_failure(
    data: bytes, answer: bytes, options: dict[str, bool]
) -> None:
    with case([answer], **options) as it:
        assert it.failure(data).reason == "upgrade_failed"
        wait_until(lambda: not it.server.open_connections)
