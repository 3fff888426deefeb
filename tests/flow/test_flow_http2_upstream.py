"""Requests to servers that speak HTTP/2: bodies through any window, ends, refusals, WebSockets."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import h2.events
import pytest
from gevent.event import Event

from sidecar.errors import Failure
from sidecar.message import Response
from sidecar.runtime import Tasks
from sidecar.upstream.dialer import Dialer
from sidecar.upstream.multiplexed import MultiplexedPool
from sidecar.upstream.relay import Tunnel
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH, Limits
from tests.support.http2_server import Code, Speaker, serving, speak
from tests.support.streams import TIMEOUT, Script, outcome, settle, start, wait_until
from tests.support.upstreams import GET, Fleet, fleet, post

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.05
REFUSED_STREAM = 7
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@contextmanager
def http2(*scripts: list[Script], **options: Any) -> Iterator[Fleet]:
    """A fleet whose servers speak HTTP/2; at its end no stream is left."""
    problems: list[BaseException] = []
    tasks = Tasks(lambda _, error: problems.append(error))
    with fleet(*scripts, **options) as it:
        it.terms.may_refuse = True
        for one, fake in zip(it.servers, it.fakes, strict=True):
            one.pool = MultiplexedPool(Dialer((fake.address,)), Limits(), 4, 60.0, tasks)
        yield it
        settle()
        for one in it.servers:
            assert not any(line.multiplex.streams for line in one.pool._lines)
            one.pool.close()
        wait_until(lambda: not tasks._group)
        assert problems == []


def body_of(it: Fleet, response: Response, framing: int = CLOSE) -> bytes:
    """What the client gets of a body."""
    if response.body is None:
        return b""
    reading = start(it.client.read_all)
    try:
        response.body.send_to(it.client.channel, framing, TIMEOUT)
    finally:
        response.body.close()
        it.client.channel.close()
    return bytes(outcome(reading))


# -- plain exchanges


def test_a_request_and_its_response() -> None:
    seen: list[dict[str, str]] = []

    def script(it: Speaker) -> None:
        stream, fields = it.request()
        seen.append(fields)
        it.answer(stream, b"hello", fields=[("content-length", "5"), ("x-own", "1")])

    with http2([speak(script)]) as it:
        response = it.ask(b"GET /a?b HTTP/1.1\r\nHost: site.test\r\nX-One: 1\r\nConnection: close\r\n\r\n")
        assert (response.head.status, response.head.get(b"x-own")) == (200, b"1")
        assert body_of(it, response) == b"hello"
    fields = seen[0]
    assert [fields[name] for name in (":method", ":scheme", ":authority", ":path")] == [
        "GET",
        "http",
        "site.test",
        "/a?b",
    ]
    assert (fields["x-one"], fields["te"]) == ("1", "trailers")
    assert not {"connection", "host", "transfer-encoding"} & fields.keys()


@pytest.mark.parametrize(
    ("request_head", "status", "fields"),
    [
        (b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n", 200, [("content-length", "5")]),
        (GET, 204, []),
        (GET, 304, [("content-length", "5")]),
        (GET, 200, [("content-length", "0")]),
    ],
)
@pytest.mark.parametrize("ends_later", [False, True])
def test_a_response_without_a_body(
    request_head: bytes, status: int, fields: list[tuple[str, str]], ends_later: bool
) -> None:
    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.head(stream, status, fields, not ends_later)
        if ends_later:
            it.data(stream, b"", True)
        # The connection is as good as before.
        it.answer(it.request()[0])

    with http2([speak(script)]) as it:
        response = it.ask(request_head)
        assert response.head.status == status
        assert body_of(it, response, LENGTH) == b""
        assert it.status() == 200
        assert it.attempts[-1][1]


def test_interim_responses_are_passed_on() -> None:
    interim: list[int] = []

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.head(stream, 103, [("link", "</a>")])
        it.answer(stream, b"x")

    with http2([speak(script)]) as it:
        response = it.ask(interim=lambda head: interim.append(head.status))
        assert body_of(it, response) == b"x"
    assert interim == [103]


def test_trailers_reach_a_client_that_reads_chunks() -> None:
    def script(it: Speaker) -> None:
        it.answer(it.request()[0], b"data", trailers=[("grpc-status", "0")])

    with http2([speak(script)]) as it:
        assert body_of(it, it.ask(), CHUNKED) == b"4\r\ndata\r\n0\r\ngrpc-status: 0\r\n\r\n"


# -- bodies


@pytest.mark.parametrize("window", [1, 100, 65535])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_body_goes_through_any_window(window: int, chunked: bool) -> None:
    size = 300 if window == 1 else 300_000
    body = bytes(range(256)) * (size // 256 + 1)
    got: list[bytes] = []

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        got.append(it.body(stream))
        it.answer(stream)

    head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else post(body)
    with http2([speak(script, {Code.INITIAL_WINDOW_SIZE: window})], retry_on=("error",)) as it:
        assert it.status(data) == 200
    assert got == [body]


def test_a_body_that_nobody_takes_waits_at_the_server_and_holds_nobody_up() -> None:
    sent: list[int] = []

    def script(it: Speaker) -> None:
        first, _ = it.request()
        it.head(first)
        while it.h2.local_flow_control_window(first):
            it.data(first, b"x" * it.h2.local_flow_control_window(first))
            sent.append(it.h2.local_flow_control_window(first))
        it.answer(it.request()[0], b"quick")

    with http2([speak(script)]) as it:
        slow = it.ask()
        assert it.status() == 200
        # One window, however long nobody takes it.
        assert sent == [0]
        assert slow.body is not None
        slow.body.close()


def test_an_answer_that_comes_early_is_passed_on_while_the_body_still_flows() -> None:
    got: list[bytes] = []

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.head(stream)
        it.data(stream, b"early ")
        got.append(it.body(stream))
        it.data(stream, b"late", True)

    body = b"b" * 500_000
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with http2([speak(script)]) as it:
        response = it.ask(head)
        assert response.head.status == 200
        reading = start(it.client.read_all)
        writing = start(it.client.send, body)
        assert response.body is not None
        response.body.send_to(it.client.channel, CLOSE, TIMEOUT)
        outcome(writing)
        response.body.close()
        it.client.channel.close()
        assert outcome(reading) == b"early late"
    assert got == [body]


def test_an_answer_that_makes_the_rest_of_the_body_useless() -> None:
    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.answer(stream, b"too large", 413)
        it.reset(stream, 0)
        it.answer(it.request()[0])

    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with http2([speak(script)]) as it:
        response = it.ask(head + b"x" * 1000)
        assert response.head.status == 413
        assert response.body is not None
        response.body.send_to(it.client.channel, CLOSE, TIMEOUT)
        response.body.close()
        assert it.client.read(9) == b"too large"
        assert it.status(client_channel=None) == 200


def test_both_windows_full_at_one_time_is_no_deadlock() -> None:
    """A server that echoes as it reads: what it sends and what it takes hold each other up."""
    body = bytes(range(256)) * 8000

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.head(stream)
        left = len(body)
        while left:
            event = it.next(h2.events.DataReceived, stream)
            left -= len(event.data)
            it.h2.acknowledge_received_data(event.flow_controlled_length, stream)
            it.flush()
            it.data(stream, event.data)
        it.data(stream, b"", True)

    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with http2([speak(script, {Code.INITIAL_WINDOW_SIZE: 1000})]) as it:
        writing = start(it.client.send, body)
        response = it.ask(head)
        assert body_of(it, response) == body
        outcome(writing)


@pytest.mark.parametrize("how", ["reset", "lost"])
def test_a_body_that_breaks_off_is_incomplete(how: str) -> None:
    go = Event()

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.head(stream)
        it.data(stream, b"half")
        go.wait()
        if how == "reset":
            it.reset(stream, 2)
        else:
            it.side.reset()

    with http2([speak(script)]) as it:
        response = it.ask()
        go.set()
        assert response.body is not None
        with pytest.raises(Failure) as caught:
            response.body.send_to(it.client.channel, CLOSE, TIMEOUT)
        response.body.close()
        assert caught.value.reason == "response_incomplete"


# -- what may be asked again


def test_a_stream_that_was_refused_is_asked_again_whatever_the_method() -> None:
    def script(it: Speaker) -> None:
        it.answer(it.request()[0])
        it.reset(it.request()[0], REFUSED_STREAM)
        stream, _ = it.request()
        it.answer(stream, it.body(stream))

    with http2([speak(script)]) as it:
        assert it.status() == 200
        assert it.status(post()) == 200
        assert it.attempts == [
            ("app-1", True, 0, "stream_refused"),
            ("app-1", True, 200, ""),
        ]
        assert it.fails == [0]


def test_what_has_passed_of_a_body_when_a_stream_is_refused_is_not_lost() -> None:
    """Its length is unknown, and a part of it comes before the refusal and a part after that."""
    refused = Event()

    def script(it: Speaker) -> None:
        it.answer(it.request()[0])
        stream, _ = it.request()
        it.next(h2.events.DataReceived, stream)
        it.reset(stream, REFUSED_STREAM)
        refused.set()
        stream, _ = it.request()
        it.answer(stream, it.body(stream))

    def send(it: Fleet) -> None:
        it.client.send(b"5\r\nhello\r\n")
        refused.wait()
        it.client.send(b"6\r\n world\r\n0\r\n\r\n")

    head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with http2([speak(script)]) as it:
        assert it.status() == 200
        sending = start(send, it)
        assert body_of(it, it.ask(head)) == b"hello world"
        outcome(sending)
        assert [one[3] for one in it.attempts] == ["stream_refused", ""]


def test_a_new_connection_that_refuses_is_followed_by_another_server() -> None:
    refusing = speak(lambda it: it.reset(it.request()[0], REFUSED_STREAM))
    with http2([refusing], [serving()]) as it:
        assert it.status(post()) == 200
        assert it.asked == ["app-1", "app-2"]


def test_requests_that_a_goaway_left_out_go_to_another_connection() -> None:
    def leaving(it: Speaker) -> None:
        it.answer(it.request()[0])
        stream, _ = it.request()
        it.goaway(stream - 2)

    with http2([speak(leaving), serving()]) as it:
        assert it.status() == 200
        assert it.status(post()) == 200
        assert it.attempts[0][1:] == (True, 0, "stream_refused")
        assert len(it.fakes[0].connections) == 2


def test_what_may_have_been_executed_is_not_asked_again() -> None:
    def dying(it: Speaker) -> None:
        it.answer(it.request()[0])
        it.request()
        it.side.reset()

    with http2([speak(dying), serving()]) as it:
        assert it.status() == 200
        assert it.failure(post()).reason == "connection_terminated"
        assert it.asked == ["app-1"]


def test_a_get_on_a_connection_that_died_is() -> None:
    def dying(it: Speaker) -> None:
        it.answer(it.request()[0])
        it.request()
        it.side.reset()

    with http2([speak(dying), serving()]) as it:
        assert it.status() == 200
        assert it.status() == 200
        assert it.asked == ["app-1", "app-1"]


def test_a_silent_server_is_too_late_and_its_stream_is_reset() -> None:
    seen: list[Any] = []

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        seen.append(it.next(h2.events.StreamReset, stream))

    with http2([speak(script)], read=SOON, retry_on=("error",)) as it:
        assert it.failure().reason == "upstream_read_timeout"
        wait_until(lambda: seen)
    assert seen[0].error_code == 8


def test_a_client_that_leaves_ends_its_stream_alone() -> None:
    go = Event()

    def script(it: Speaker) -> None:
        first, second = it.request()[0], it.request()[0]
        it.next(h2.events.StreamReset, first)
        go.wait()
        it.answer(second)

    with http2([speak(script)]) as it:
        leaving = start(it.failure)
        settle()
        wait_until(lambda: it.fakes[0].connections)
        other = it.servers[0].pool.dial(TIMEOUT)
        wait_until(lambda: len(other._line.multiplex.streams) == 2)
        other.channel.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n", TIMEOUT)
        it.client.close()
        assert outcome(leaving).reason == "client_gone"
        go.set()
        wait_until(lambda: other.channel.peer_finished or other.channel.fill(1, TIMEOUT))
        other.close()


# -- WebSockets (RFC 8441)


def test_a_websocket_goes_through_a_stream() -> None:
    seen: list[dict[str, str]] = []

    def script(it: Speaker) -> None:
        stream, fields = it.request()
        seen.append(fields)
        it.head(stream, 200, [("sec-websocket-protocol", "chat")])
        data = it.next(h2.events.DataReceived, stream).data
        it.data(stream, data.upper())
        it.next(h2.events.StreamEnded, stream)
        it.data(stream, b"", True)

    with http2([speak(script, {Code.ENABLE_CONNECT_PROTOCOL: 1})]) as it:
        response = it.ask(UPGRADE)
        assert response.head.status == 101
        assert response.head.get(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert response.head.get(b"sec-websocket-protocol") == b"chat"
        assert isinstance(response.body, Tunnel)
        relaying = start(response.body.send_to, it.client.channel, CLOSE, TIMEOUT)
        it.client.send(b"frame")
        assert it.client.read(5) == b"FRAME"
        it.client.finish()
        outcome(relaying)
        response.body.close()
    fields = seen[0]
    assert (fields[":method"], fields[":protocol"], fields[":path"]) == ("CONNECT", "websocket", "/chat")
    assert "sec-websocket-key" not in fields
    assert fields["sec-websocket-version"] == "13"


def test_a_websocket_that_is_refused() -> None:
    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.answer(stream, b"no", 403)

    with http2([speak(script, {Code.ENABLE_CONNECT_PROTOCOL: 1})]) as it:
        response = it.ask(UPGRADE)
        assert response.head.status == 403
        assert body_of(it, response) == b"no"


def test_a_server_without_websockets_is_not_asked() -> None:
    with http2([serving()]) as it:
        failure = it.failure(UPGRADE)
        assert (failure.reason, failure.status) == ("upgrade_failed", 502)
        assert it.status() == 200


def test_another_upgrade_is_left_out() -> None:
    with http2([serving()]) as it:
        assert it.status(UPGRADE.replace(b"websocket", b"tls/1.3")) == 200


# -- leaks


def _mixed(it: Speaker) -> None:
    """Do on each stream what its path says."""
    ends = {
        "/reset": lambda stream: it.reset(stream, 2),
        "/refuse": lambda stream: it.reset(stream, REFUSED_STREAM),
        "/half": lambda stream: it.head(stream),
        "/good": lambda stream: it.answer(stream, b"good"),
        "/silent": lambda stream: None,
    }
    while True:
        stream, fields = it.request()
        ends[fields[":path"]](stream)


def _ask(it: Fleet, path: str) -> None:
    with contextlib.suppress(Failure):
        response = it.ask(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode(), client_channel=None)
        if response.body is not None:
            response.body.close()


def test_exchanges_that_end_in_every_way_leave_nothing() -> None:
    paths = ("/reset", "/refuse", "/half", "/good", "/silent")
    with http2([speak(_mixed)] * 3, read=SOON, retry_on=()) as it:
        before = len(_greenlets())
        for _ in range(20):
            for one in [start(_ask, it, path) for path in paths]:
                outcome(one)
        pool = it.servers[0].pool
        # One that refuses while others are served is asked on another connection.
        assert 1 <= len(pool._lines) <= 3
        assert not any(line.multiplex.streams for line in pool._lines)
        assert len(_greenlets()) <= before + 6


def _greenlets() -> list[gevent.Greenlet]:
    return [one for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead]
