"""The guard: who is let through to an upstream, and what the breaker and the limit hear of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.runtime import FakeClock
from sidecar.upstream.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, BreakerOptions
from sidecar.upstream.concurrency import Concurrency
from sidecar.upstream.guard import Guard
from sidecar.wire.head import ResponseHead
from tests.support.streams import TIMEOUT, settle, start
from tests.support.upstreams import answer, fleet, request_of

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = request_of()


class World:
    """A guard, its parts, the time, and the events that were told."""

    def __init__(self, limit: int = 0, **options: Any) -> None:
        self.clock = FakeClock()
        self.events: list[str] = []
        self.breaker = Breaker(BreakerOptions(**options), self._event) if options else None
        self.limit = Concurrency(limit) if limit else None
        self.guard = Guard(self.breaker, self.limit, self.clock.monotonic)
        self.calls = 0

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append(name)

    def run(self, what: int | str | BaseException | Callable[[Request], Response] = 200) -> Response:
        """A request that ends with this status, this reason of a failure or this error."""

        def handler(request: Request) -> Response:
            self.calls += 1
            if callable(what):
                return what(request)
            if isinstance(what, int):
                return Response(ResponseHead.make(what, []))
            raise Failure(what) if isinstance(what, str) else what

        return self.guard.run(GET, handler)

    def fails(self, what: str = "connection_refused") -> str:
        with pytest.raises(Failure) as caught:
            self.run(what)
        return caught.value.reason

    def refused(self) -> Failure:
        before = self.calls
        with pytest.raises(Failure) as caught:
            self.run()
        assert self.calls == before
        return caught.value


# -- the breaker


def test_failures_open_the_circuit_and_requests_are_refused_at_once() -> None:
    world = World(breaker_failures=3, breaker_timeout=10.0)
    for _ in range(3):
        assert world.fails() == "connection_refused"
    failure = world.refused()
    assert (failure.reason, failure.status, failure.retry_after) == ("circuit_open", 503, 10)
    assert failure.detail == "for 10.0 s more"
    world.clock.advance(7.2)
    assert world.refused().retry_after == 3
    world.clock.advance(2.7)
    assert world.refused().retry_after == 1


def test_a_probe_that_succeeds_closes_it() -> None:
    world = World(breaker_failures=1, breaker_timeout=10.0)
    world.fails()
    world.clock.advance(10.0)
    assert world.run().head.status == 200
    assert world.run().head.status == 200
    assert world.events == ["circuit_opened", "circuit_half_open", "circuit_closed"]


def test_a_probe_that_fails_opens_it_again() -> None:
    world = World(breaker_failures=1, breaker_timeout=10.0)
    world.fails()
    world.clock.advance(10.0)
    world.fails()
    assert world.refused().reason == "circuit_open"


@pytest.mark.parametrize(
    ("what", "opens"),
    [
        (500, True),
        (503, True),
        (499, False),
        (200, False),
        ("connection_refused", True),
        ("connection_timeout", True),
        ("upstream_read_timeout", True),
        ("malformed_response", True),
        ("client_gone", False),
        ("request_body_timeout", False),
        ("descriptors_exhausted", False),
        ("no_server", False),
        ("upstream_overloaded", False),
        (RuntimeError(), False),
    ],
)
def test_what_speaks_against_the_upstream(what: Any, opens: bool) -> None:
    world = World(breaker_failures=1)
    with contextlib.suppress(Failure, RuntimeError):
        world.run(what)
    assert world.breaker is not None
    assert world.breaker.state == (OPEN if opens else CLOSED)


@pytest.mark.parametrize("what", ["client_gone", "upstream_overloaded", RuntimeError()])
def test_a_probe_without_a_result_leaves_its_place_to_another(what: Any) -> None:
    world = World(breaker_failures=1, breaker_timeout=10.0)
    world.fails()
    world.clock.advance(10.0)
    with pytest.raises((Failure, RuntimeError)):
        world.run(what)
    assert world.breaker is not None
    assert world.breaker.state == HALF_OPEN
    assert world.run().head.status == 200
    assert world.breaker.state == CLOSED


def test_while_a_probe_runs_the_others_are_told_to_come_soon() -> None:
    world = World(breaker_failures=1, breaker_timeout=10.0)
    world.fails()
    world.clock.advance(10.0)

    def probe(request: Request) -> Response:
        assert world.refused().retry_after == 1
        return Response(ResponseHead.make(200, []))

    world.run(probe)


# -- the limit


def test_a_limit_holds_until_the_response_begins() -> None:
    world = World(limit=2)

    def nested(request: Request) -> Response:
        def inner(request: Request) -> Response:
            failure = world.refused()
            assert (failure.reason, failure.status) == ("upstream_overloaded", 503)
            assert failure.detail == "2 requests are in progress"
            return Response(ResponseHead.make(200, []))

        return world.run(inner)

    world.run(nested)
    assert world.limit is not None
    assert world.limit.active == 0


@pytest.mark.parametrize(
    "what", [200, 503, "connection_refused", "client_gone", RuntimeError(), GeneratorExit()]
)
def test_whoever_was_admitted_is_settled(what: Any) -> None:
    world = World(limit=1, breaker_failures=5)
    for _ in range(3):
        with contextlib.suppress(Failure, RuntimeError, GeneratorExit):
            world.run(what)
    assert world.limit is not None
    assert world.limit.active == 0


def test_a_probe_that_the_limit_refuses_leaves_its_place() -> None:
    world = World(limit=1, breaker_failures=1, breaker_timeout=10.0)
    assert world.limit is not None
    world.fails()
    world.clock.advance(10.0)
    world.limit.enter(world.clock.now)
    assert world.refused().reason == "upstream_overloaded"
    world.limit.leave(None, world.clock.now)
    assert world.run().head.status == 200
    assert world.breaker is not None
    assert world.breaker.state == CLOSED


class Heard(Concurrency):
    """A limit that remembers what it was told."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        super().__init__(10)
        self.told: list[float | None] = []

    def leave(self, seconds: float | None, now: float) -> None:
        self.told.append(seconds)
        super().leave(seconds, now)


@pytest.mark.parametrize(
    ("what", "is_measure"),
    [
        (200, True),
        (500, True),
        ("upstream_read_timeout", True),
        ("connection_timeout", True),
        ("response_timeout", True),
        ("connection_refused", False),
        ("client_gone", False),
        (RuntimeError(), False),
    ],
)
def test_only_what_took_its_time_measures_the_load(what: Any, is_measure: bool) -> None:
    clock = FakeClock()
    heard = Heard()

    def handler(request: Request) -> Response:
        clock.advance(0.25)
        if isinstance(what, int):
            return Response(ResponseHead.make(what, []))
        raise Failure(what) if isinstance(what, str) else what

    with contextlib.suppress(Failure, RuntimeError):
        Guard(None, heard, clock.monotonic).run(GET, handler)
    assert heard.told == [0.25 if is_measure else None]


# -- around a forward


def test_an_open_circuit_keeps_requests_from_the_servers() -> None:
    world = World(breaker_failures=2)
    with fleet([[answer(500)] * 9], guard=world.guard) as it:
        assert [it.status(), it.status()] == [500, 500]
        assert it.failure().reason == "circuit_open"
        assert it.attempts == []


def test_a_retry_that_succeeds_is_no_failure_of_the_upstream() -> None:
    world = World(breaker_failures=1)
    with fleet([], [[answer()] * 9], guard=world.guard) as it:
        assert it.status() == 200
        assert it.asked == ["app-1", "app-2"]
        assert it.status() == 200


def test_a_request_that_is_killed_leaves_its_place() -> None:
    world = World(limit=1, breaker_failures=1)
    with fleet([lambda side: None], guard=world.guard) as it:
        asking = start(it.ask)
        settle()
        assert world.limit is not None
        assert world.limit.active == 1
        asking.kill(timeout=TIMEOUT)
        assert world.limit.active == 0
