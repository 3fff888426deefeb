"""Calls of gRPC on their way to an upstream: their deadline, their silence, their status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.errors import Failure, Malformed
from sidecar.message import Response
from sidecar.upstream.breaker import Breaker, BreakerOptions
from sidecar.upstream.calls import Calls
from sidecar.upstream.guard import Guard
from tests.support.streams import TIMEOUT, Script, now, settle
from tests.support.upstreams import GET, OK, SOON, Fleet, request_of

pytestmark = pytest.mark.usefixtures("no_leaks")

NO_WORD: Script = []


def call(fields: str = "") -> bytes:
    """A call without a body, as it would never be: what matters are its fields."""
    lines = f"Host: x\r\nContent-Type: application/grpc\r\n{fields}".encode()
    return b"GET /a HTTP/1.1\r\n%b\r\n" % lines


@contextmanager
def calls(*scripts: Script, **options: Any) -> Iterator[Fleet]:
    """A fleet whose forward is asked as for HTTP/2."""
    made = Fleet(scripts, **options)
    made.forward = Calls(made.forward, 1000)  # type: ignore[assignment]
    try:
        yield made
        assert made.active == [0]
    finally:
        made.close()


def ended(status: int) -> bytes:
    """An answer that is a status alone, as servers end a call that brought nothing."""
    return OK.replace(b"\r\n\r\n", b"\r\ngrpc-status: %d\r\n\r\n" % status)


def status_of(response: Response, it: Fleet) -> int:
    assert it.request is not None
    assert response.body is None
    return it.request.grpc_status


def test_what_is_no_call_passes_by() -> None:
    with calls([OK], read=SOON) as it:
        assert it.status(GET.replace(b"\r\n\r\n", b"\r\ngrpc-timeout: nonsense\r\n\r\n")) == 200
        assert it.request is not None
        assert it.request.grpc_status == -1


def test_an_answer_without_a_body_has_its_status_in_the_head() -> None:
    with calls([ended(5)]) as it:
        assert status_of(it.ask(call()), it) == 5


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        (0, False),
        (1, False),
        (2, True),
        (4, True),
        (5, False),
        (8, False),
        (12, False),
        (13, True),
        (14, True),
    ]
    + [(15, True), (16, False)],
)
def test_a_server_that_says_it_failed_has_failed(status: int, failed: bool) -> None:
    """For who looks at servers that do worse than others; a method that it has not is no such thing."""
    heard: list[bool | None] = []
    answer = ended(status)
    with calls([answer], observer=lambda _, failed, __: heard.append(failed)) as it:
        response = it.ask(call())
        assert response.head.status == 200
        assert status_of(response, it) == status
        assert heard == [failed]
        assert it.fails == [0]  # as with HTTP's 5xx


def test_a_status_that_counts_as_a_failure_keeps_that_of_the_call() -> None:
    answer = ended(14).replace(b"200 OK", b"503 Unavailable")
    with calls([answer], retry_on=("error", "http_503")) as it:
        response = it.ask(call())
        assert (response.head.status, status_of(response, it), it.fails) == (503, 14, [1])


def test_what_another_server_said_before_is_no_failure_of_the_call() -> None:
    """The last answer counts, also while its end is still to come."""
    guard = Guard(Breaker(BreakerOptions(breaker_failures=1), lambda *_, **__: None), None, now)
    refused = ended(14).replace(b"200 OK", b"503 Unavailable")
    made = Fleet([[refused] * 2], [[OK] * 2], guard=guard, retry_on=("error", "http_503"))
    made.forward = Calls(made.forward, 1000)  # type: ignore[assignment]
    try:
        response = made.ask(call())
        assert made.asked == ["app-1", "app-2"]
        assert status_of(response, made) == -1
        assert made.status(call()) == 200  # the circuit is closed
    finally:
        made.close()


def test_calls_that_a_server_fails_open_the_circuit() -> None:
    answer = ended(14)
    guard = Guard(Breaker(BreakerOptions(breaker_failures=2), lambda *_, **__: None), None, now)
    with calls([answer, answer], guard=guard) as it:
        for _ in range(2):
            assert status_of(it.ask(call()), it) == 14
        assert it.failure(call()).reason == "circuit_open"


def test_what_is_no_call_may_say_what_it_likes() -> None:
    heard: list[bool | None] = []
    answer = ended(14)
    with calls([answer], observer=lambda _, failed, __: heard.append(failed)) as it:
        assert status_of(it.ask(GET), it) == -1
        assert heard == [False]


def test_a_deadline_ends_a_call() -> None:
    with calls(NO_WORD) as it:
        failure = it.failure(call("grpc-timeout: 20m\r\n"))
        assert failure.reason == "response_timeout"


def test_the_shorter_bound_holds() -> None:
    with calls(NO_WORD, NO_WORD, request=SOON) as it:
        assert it.failure(call("grpc-timeout: 1H\r\n")).reason == "response_timeout"
        assert it.failure(call()).reason == "response_timeout"


def test_a_call_whose_time_is_over_reaches_nobody() -> None:
    with calls(NO_WORD) as it:
        assert it.failure(call("grpc-timeout: 0n\r\n")).reason == "response_timeout"
        assert it.attempts == []


def test_a_deadline_that_is_none_is_refused() -> None:
    with calls(NO_WORD) as it:
        with pytest.raises(Malformed, match="bad_grpc_timeout"):
            it.ask(call("grpc-timeout: soon\r\n"))
        assert it.attempts == []


def test_silence_is_bounded_by_the_tunnels_bound() -> None:
    with calls(NO_WORD, read=TIMEOUT, tunnel=SOON) as it:
        assert it.failure(call()).reason == "upstream_read_timeout"
    with calls([OK], read=0.000001, tunnel=TIMEOUT) as it:
        assert it.status(call()) == 200


def test_bounds_of_one_call_are_not_those_of_the_next() -> None:
    with calls(NO_WORD, [OK]) as it:
        assert it.failure(call("grpc-timeout: 10m\r\n")).reason == "response_timeout"
        settle()
        assert it.status(call()) == 200


def test_a_failure_is_told_as_it_is() -> None:
    with calls([b"nonsense\r\n\r\n"]) as it:
        failure = it.failure(call())
        assert isinstance(failure, Failure)
        assert failure.reason == "malformed_response"


def test_a_request_without_a_call_is_not_marked() -> None:
    assert request_of(call()).grpc_status == -1
