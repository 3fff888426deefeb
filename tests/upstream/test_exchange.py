"""One attempt on one connection: what the server gets, how long it may take, and what is counted."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from sidecar.errors import Failure
from sidecar.net.body import RequestBody
from sidecar.runtime import FakeClock
from sidecar.upstream.retry import Retry, RetryOptions
from sidecar.upstream.server import Server
from sidecar.wire.head import LENGTH
from tests.support.streams import (
    TIMEOUT,
    Script,
    ScriptedPeer,
    ServerSide,
    now,
    outcome,
    settle,
    start,
    wait_until,
)
from tests.support.upstreams import OK, SOON, Fleet, answer, fleet, post, request_of, terms

pytestmark = pytest.mark.usefixtures("no_leaks")

EARLY = b"HTTP/1.1 103 Early Hints\r\n\r\n"


def silent(side: ServerSide) -> None:
    side.read_request()


def resetting(side: ServerSide) -> None:
    side.read_request()
    side.reset()


# -- what the server gets


def test_a_body_that_was_kept_goes_with_its_head_and_its_length() -> None:
    with fleet([[OK]], [[OK]]) as it:
        assert it.status(post(method=b"PUT")) == 200
        assert it.received[0] == [b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"]
        assert it.request is not None
        assert it.request.body.kept == b"hello"
        assert it.request.body.settle()


@pytest.mark.parametrize("options", [{"retry_on": ()}, {"retry_attempts": 1}, {"retry_body": 4}])
def test_a_body_that_nobody_sends_twice_is_not_kept(options: dict[str, Any]) -> None:
    with fleet([[OK]], [[OK]], **options) as it:
        assert it.status(post(method=b"PUT")) == 200
        assert it.request is not None
        assert it.request.body.kept is None
        assert it.received[0][0].endswith(b"\r\n\r\nhello")


def test_a_body_of_a_method_that_is_not_repeated_streams() -> None:
    with fleet([[OK]], [[OK]]) as it:
        assert it.status(post()) == 200
        assert it.request is not None
        assert it.request.body.kept is None


@pytest.mark.parametrize(
    ("name", "host"), [("127.0.0.1:8001", b"127.0.0.1:8001"), ("unix:/run/app.sock", b"localhost")]
)
def test_a_request_without_host_gets_the_servers(name: str, host: bytes) -> None:
    with fleet([[OK]]) as it:
        it.servers[0].name = name
        it.ask(b"GET /a HTTP/1.0\r\n\r\n")
        assert b"\r\nHost: %b\r\n" % host in it.received[0][0]


# -- how long it may take


@pytest.mark.parametrize(
    ("bounds", "reason", "fails"),
    [
        ({"read": SOON}, "upstream_read_timeout", 1),
        ({"attempt": SOON}, "upstream_read_timeout", 1),
        ({"attempt": SOON, "request": TIMEOUT}, "upstream_read_timeout", 1),
        ({"request": SOON}, "response_timeout", 0),
        ({"request": SOON, "attempt": TIMEOUT}, "response_timeout", 0),
        ({"attempt": SOON, "read": 0.0}, "upstream_read_timeout", 1),
    ],
)
def test_the_shortest_bound_counts(bounds: dict[str, float], reason: str, fails: int) -> None:
    """That the whole exchange has a bound says nothing about a server."""
    with fleet([silent], **bounds) as it:
        assert it.failure().reason == reason
        assert it.fails == [fails]


def stuck(side: ServerSide) -> None:
    """Read the head, and nothing of the body."""
    side.read_until(b"\r\n\r\n")
    wait_until(lambda: not side.is_open)


def uploading(it: Fleet, sent: bytes, length: int = 64 << 20) -> Any:
    """A POST of which `sent` is there; the client goes on as the test wants."""
    data = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (length, sent)
    return start(it.ask, data)


def reason_of(greenlet: Any) -> tuple[str, str]:
    with pytest.raises(Failure) as caught:
        outcome(greenlet)
    return caught.value.reason, caught.value.detail


def test_an_attempt_has_a_bound_while_a_slow_client_sends_and_the_server_is_not_blamed() -> None:
    with fleet([silent], attempt=SOON) as it:
        assert reason_of(uploading(it, b"x" * 10))[0] == "request_body_timeout"
        assert it.fails == [0]


def test_an_attempt_has_a_bound_while_the_server_takes_nothing() -> None:
    with fleet([stuck], attempt=0.2) as it:
        asking = uploading(it, b"")
        feeding = start(it.client.send, b"x" * (64 << 20))
        try:
            assert reason_of(asking) == ("upstream_write_timeout", "attempt_timeout")
            assert it.fails == [1]
        finally:
            feeding.kill()


def test_the_whole_exchange_has_a_bound_while_a_kept_body_is_sent() -> None:
    body = b"x" * (1 << 20)
    with fleet([stuck], [[OK]], retry_body=1 << 20, request=0.2) as it:
        _shrink(it)
        asking = start(it.ask, post(body, method=b"PUT"))
        assert reason_of(asking)[0] == "response_timeout"
        assert it.fails == [0, 0]


def test_an_attempt_has_a_bound_while_it_connects() -> None:
    retry = Retry(RetryOptions())
    bounds = terms(retry, attempt=3.0)
    assert bounds.patience_to_connect(1.0, 2.0) == 3.0
    assert terms(retry, attempt=3.0, request=2.0).patience_to_connect(1.0, 2.0) == 1.0
    assert terms(retry, attempt=3.0, connect=1.0).patience_to_connect(1.0, 2.0) == 1.0
    assert terms(retry, connect=1.0).patience_to_connect(1.0, 2.0) == 1.0


def test_the_time_in_the_line_is_time_of_the_exchange() -> None:
    with fleet([silent], servers={1: {"limit": 1}}, request=SOON, read=TIMEOUT) as it:
        it.servers[0].take(now())
        assert reason_of(start(it.ask)) == ("upstream_overloaded", "no server in time")
        it.servers[0].give_back()


def test_interim_responses_win_no_time_for_an_attempt() -> None:
    clock = FakeClock(now=0.0)

    def hopeful(side: ServerSide) -> None:
        side.read_request()
        clock.advance(9.99)
        side.send(EARLY)

    with fleet([hopeful], terms_clock=clock.monotonic, attempt=10.0) as it:
        # Ten milliseconds are left of ten seconds, though the server has just spoken.
        assert it.failure().reason == "upstream_read_timeout"


# -- what is counted


Heard = list[tuple[str, bool | None]]


def observed(*scripts: Script, **options: Any) -> tuple[Any, Heard]:
    heard: Heard = []

    def observe(who: Server, failed: bool | None, seconds: float) -> None:
        assert seconds >= 0.0
        heard.append((who.name, failed))

    return fleet(scripts, observer=observe, **options), heard


@pytest.mark.parametrize(
    ("status", "options", "heard", "fails"),
    [
        (200, {}, False, 0),
        (404, {"retry_on": ("http_404",)}, False, 0),
        (500, {}, True, 0),
        (503, {"retry_on": ("http_503",)}, True, 1),
        (429, {"retry_on": ("http_429",)}, True, 1),
    ],
)
def test_an_answer_is_told_and_counted_if_the_configuration_says_so(
    status: int, options: dict[str, Any], heard: bool, fails: int
) -> None:
    made, told = observed([answer(status)], **options)
    with made as it:
        assert it.status() == status
        assert told == [("app-1", heard)]
        assert it.fails == [fails]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([b"nonsense\r\n\r\n"], "malformed_response"),
        (resetting, "connection_terminated"),
        (silent, "upstream_read_timeout"),
    ],
)
def test_a_failure_of_the_server_is_told_and_counted(script: Script, reason: str) -> None:
    made, told = observed(script, read=0.05)
    with made as it:
        assert it.failure().reason == reason
        assert told == [("app-1", True)]
        assert it.fails == [1]


def test_a_server_that_nobody_reaches_is_told_and_counted() -> None:
    made, told = observed()
    with made as it:
        it.fakes[0].close()
        settle()
        assert it.failure().reason == "connection_refused"
        assert (told, it.fails) == ([("app-1", True)], [1])


def test_a_client_that_leaves_says_nothing_about_the_server() -> None:
    made, told = observed(silent)
    with made as it:
        asking = start(it.ask)
        settle()
        it.client.close()
        asking.join(TIMEOUT)
        assert isinstance(asking.exception, Failure)
        assert (told, it.fails) == ([("app-1", None)], [0])


def test_a_kept_connection_that_died_is_no_failure_when_a_new_one_answers() -> None:
    def once(side: ServerSide) -> None:
        side.read_request()
        side.send(OK)
        side.read_request()
        side.reset()

    made, told = observed(once, [OK])
    with made as it:
        it.ask()
        assert it.status() == 200
        assert it.attempts == [("app-1", True, 0, "connection_terminated"), ("app-1", False, 200, "")]
        assert (told, it.fails) == ([("app-1", False)] * 2, [0])


def test_a_response_that_breaks_later_was_an_answer() -> None:
    def torn(side: ServerSide) -> None:
        side.read_request()
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")

    made, told = observed(torn)
    with made as it:
        assert it.status() == 200
        assert (told, it.fails) == ([("app-1", False)], [0])


# -- early answers


def test_an_answer_before_the_end_of_the_body_takes_the_rest_along() -> None:
    def early(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(answer(413, b"no"))

    with fleet([early]) as it:
        request = request_of(post(b"x" * 10))
        request.client_channel = it.client.channel
        request.body = RequestBody(request.head, it.client.channel, TIMEOUT)
        response = it.forward(request)
        assert response.head.status == 413
        assert it.active == [1]
        assert not response.body.is_whole_exchange
        response.body.close()


def _shrink(it: Fleet) -> None:
    """Let the way to the servers hold less than a large body."""
    for one in it.servers:

        def small(*arguments: Any, dial: Any = one.pool.dial) -> Any:
            connection = dial(*arguments)
            sock = socket.socket(fileno=connection.channel.fileno())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.detach()
            return connection

        one.pool.dial = small


def refusing(body: bytes, fields: bytes = b"") -> Script:
    """Answer at the end of the head, and reset."""

    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 413 Too Much\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
        # What is unread makes a reset of the end.
        side.close()

    return script


@pytest.mark.parametrize("body", [b"", b"too much"])
def test_a_kept_body_that_a_server_refuses_and_resets_brings_its_answer(body: bytes) -> None:
    """As a streamed one does: the server has said why it wants no more."""
    with fleet([refusing(body)], [[OK]], retry_body=1 << 20) as it:
        _shrink(it)
        response = it.ask(post(b"x" * (1 << 20), method=b"PUT"))
        assert response.head.status == 413
        if body:
            with ScriptedPeer() as client:
                client.channel.hold(b"")
                response.body.send_to(client.channel, LENGTH, TIMEOUT)
                assert client.read(len(body)) == body
            response.body.close()
        assert it.servers[0].pool.pool.items == []
        assert it.asked == ["app-1"]


def test_a_kept_body_that_meets_a_reset_without_an_answer_goes_to_another_server() -> None:
    def reset(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.reset()

    with fleet([reset], [[OK]], retry_body=1 << 20) as it:
        _shrink(it)
        assert it.status(post(b"x" * (1 << 20), method=b"PUT")) == 200
        assert it.attempts == [("app-1", False, 0, "connection_terminated"), ("app-2", False, 200, "")]


@pytest.mark.parametrize("interim", [b"HTTP/1.1 101 Now\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"])
def test_a_reset_connection_is_no_tunnel(interim: bytes) -> None:
    def switch(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(interim)
        side.close()

    fields = b"Upgrade: x\r\nConnection: upgrade\r\n"
    with fleet([switch], [[OK]], retry_body=1 << 20, retry_on=("error",)) as it:
        _shrink(it)
        failure = it.failure(post(b"x" * (1 << 20), method=b"PUT", fields=fields))
        assert failure.reason == "upgrade_failed"
