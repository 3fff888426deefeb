"""HTTP/2 connections to one server: shared, bounded by what it takes, and left by what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import h2.events
import pytest
from gevent.event import Event

from sidecar.errors import Failure
from sidecar.net.channel import HEAD
from sidecar.runtime import Tasks
from sidecar.upstream.dialer import Dialer
from sidecar.upstream.multiplexed import MultiplexedPool, StreamConnection
from sidecar.wire.head import Limits, ResponseHead
from tests.support.http2_server import Code, Speaker, serving, speak
from tests.support.streams import (
    TIMEOUT,
    FakeServer,
    Script,
    ServerSide,
    now,
    outcome,
    settle,
    start,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.05
REFUSED_STREAM = 7


class Place:
    """A scripted server and the pool of its connections."""

    def __init__(self, scripts: list[Script], keepalive: int = 4, rest: float = 60.0) -> None:
        self.fake = FakeServer(*scripts)
        self.problems: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.problems.append(error))
        self.pool = MultiplexedPool(Dialer((self.fake.address,)), Limits(), keepalive, rest, self.tasks)

    @property
    def connections(self) -> int:
        """How many were opened so far."""
        return len(self.fake.connections)

    def streams(self, count: int) -> list[StreamConnection]:
        """So many at one time."""
        return [outcome(one) for one in [start(self.pool.dial, TIMEOUT) for _ in range(count)]]

    def ask(self, connection: StreamConnection | None = None, path: str = "/a") -> tuple[int, bytes]:
        """(status, body) of a request."""
        connection = connection or self.pool.acquire(now()) or self.pool.dial(TIMEOUT)
        try:
            send(connection, path)
            return receive(connection)
        finally:
            self.pool.release(connection)


@contextmanager
def place(*scripts: Script, **options: Any) -> Iterator[Place]:
    made = Place(list(scripts), **options)
    try:
        yield made
        made.pool.close()
        wait_until(lambda: not made.tasks._group)
        assert made.problems == []
    finally:
        made.tasks.stop()
        made.fake.close()


def send(connection: StreamConnection, path: str = "/a", method: str = "GET", ends: bool = True) -> None:
    connection.channel.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), TIMEOUT)
    if ends:
        connection.channel.shutdown_write()


def head_of(connection: StreamConnection, method: bytes = b"GET") -> ResponseHead | int:
    """The head of the response, or why there is none."""
    head = ResponseHead(Limits(), method)
    code = connection.channel.read_head(head, TIMEOUT, TIMEOUT)
    return head if code == HEAD else code


def receive(connection: StreamConnection) -> tuple[int, bytes]:
    head = head_of(connection)
    assert isinstance(head, ResponseHead)
    body = b""
    while data := connection.channel.read(65536, TIMEOUT):
        body += data
    return head.status, body


def reason(function: Callable[..., Any], *args: Any) -> tuple[str, str]:
    with pytest.raises(Failure) as caught:
        function(*args)
    assert caught.value.repeatable
    return caught.value.reason, caught.value.detail


# -- sharing


def test_requests_share_a_connection() -> None:
    with place(serving()) as it:
        one, two = it.streams(2)
        send(one, "/one")
        send(two, "/two")
        assert (receive(two), receive(one)) == ((200, b"/two"), (200, b"/one"))
        one.close()
        two.close()
        assert it.ask(path="/three") == (200, b"/three")
        assert it.connections == 1


def test_a_new_pool_has_nothing_to_give() -> None:
    with place(serving()) as it:
        assert it.pool.acquire(0.0) is None


def test_many_at_once_share_one_dial() -> None:
    with place(serving()) as it:
        streams = it.streams(50)
        assert it.connections == 1
        assert len(streams[0]._line.multiplex.streams) == 50
        for one in streams:
            one.close()
        assert not streams[0]._line.multiplex.streams


def test_more_connections_are_opened_when_those_there_are_full() -> None:
    with place(*[serving(MAX_CONCURRENT_STREAMS=2)] * 4) as it:
        streams = it.streams(6)
        assert it.connections == 3
        for one in streams:
            one.close()


def test_a_server_that_takes_one_at_a_time_is_reused() -> None:
    with place(*[serving(MAX_CONCURRENT_STREAMS=1)] * 2) as it:
        for _ in range(5):
            assert it.ask() == (200, b"/a")
        assert it.connections == 1


def test_the_oldest_connection_with_room_is_taken() -> None:
    with place(*[serving(MAX_CONCURRENT_STREAMS=1)] * 2) as it:
        one, two = it.streams(2)
        lines = [one._line, two._line]
        one.close()
        two.close()
        again = it.pool.acquire(now())
        assert again is not None
        assert again._line is lines[0]
        again.close()


def test_a_limit_that_changes_is_kept_at_once() -> None:
    changed = Event()

    def script(it: Speaker) -> None:
        changed.wait()
        it.h2.update_settings({Code.MAX_CONCURRENT_STREAMS: 3})
        it.flush()

    with place(speak(script, {Code.MAX_CONCURRENT_STREAMS: 1})) as it:
        one = it.pool.dial(TIMEOUT)
        assert it.pool.acquire(now()) is None
        changed.set()
        wait_until(lambda: one._line.multiplex.peer_streams == 3)
        two, three = it.pool.acquire(now()), it.pool.acquire(now())
        assert two is not None and three is not None
        assert it.pool.acquire(now()) is None
        for stream in (one, two, three):
            stream.close()


def test_a_server_that_takes_none_is_a_failure() -> None:
    with place(serving(MAX_CONCURRENT_STREAMS=0)) as it:
        assert reason(it.pool.dial, TIMEOUT) == (
            "connection_failed",
            "the server takes no requests (SETTINGS_MAX_CONCURRENT_STREAMS is 0)",
        )


# -- dials that fail


def test_a_server_of_http_1_is_told_from_one_of_http_2() -> None:
    def old(side: ServerSide) -> None:
        side.read(24)
        side.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with place(old) as it:
        word, detail = reason(it.pool.dial, TIMEOUT)
        assert (word, "something else" in detail) == ("not_http2", True)


def test_a_server_that_says_nothing_is_too_late() -> None:
    with place(lambda side: None) as it:
        assert reason(it.pool.dial, SOON)[0] == "connection_timeout"


def test_a_server_that_ends_at_once() -> None:
    with place(lambda side: side.close()) as it:
        assert reason(it.pool.dial, TIMEOUT)[0] == "connection_terminated"


def test_a_refused_dial_fails_all_who_wait_for_it() -> None:
    with place() as it:
        it.fake.close()
        waiting = [start(reason, it.pool.dial, TIMEOUT) for _ in range(3)]
        assert {outcome(one)[0] for one in waiting} == {"connection_refused"}


def test_who_had_more_time_than_the_one_that_dialed_tries_again() -> None:
    with place(lambda side: None, serving()) as it:
        hasty = start(reason, it.pool.dial, SOON)
        settle()
        patient = start(it.pool.dial, TIMEOUT)
        assert outcome(hasty)[0] == "connection_timeout"
        outcome(patient).close()
        assert it.connections == 2


def test_one_that_gives_up_takes_nobodys_connection_away() -> None:
    go = Event()

    def slow(side: ServerSide) -> None:
        go.wait()
        serving()(side)

    with place(slow) as it:
        first, second = start(it.pool.dial, TIMEOUT), start(it.pool.dial, TIMEOUT)
        settle()
        first.kill()
        go.set()
        connection = outcome(second)
        assert it.ask(connection) == (200, b"/a")
        assert it.connections == 1


# -- what servers say


def test_streams_above_those_of_a_goaway_were_not_acted_on() -> None:
    def script(it: Speaker) -> None:
        streams = [it.request()[0] for _ in range(3)]
        it.goaway(streams[0])
        it.answer(streams[0], b"done")

    with place(speak(script), serving()) as it:
        one, two, three = streams = it.streams(3)
        for stream in streams:
            send(stream)
        assert receive(one) == (200, b"done")
        for stream in (two, three):
            assert not isinstance(head_of(stream), ResponseHead)
        assert [stream.is_refused for stream in streams] == [False, True, True]
        for stream in streams:
            stream.close()
        # What comes next goes to another connection.
        assert it.ask() == (200, b"/a")
        assert it.connections == 2


def test_one_that_waits_with_its_head_is_refused_by_a_goaway() -> None:
    go = Event()

    def script(it: Speaker) -> None:
        go.wait()
        it.goaway(0)

    with place(speak(script), serving()) as it:
        connection = it.pool.dial(TIMEOUT)
        go.set()
        wait_until(lambda: connection.is_refused)
        connection.close()


def test_a_refused_stream_ends_alone() -> None:
    def script(it: Speaker) -> None:
        first, second = it.request()[0], it.request()[0]
        it.reset(first, REFUSED_STREAM)
        it.answer(second, b"fine")

    with place(speak(script)) as it:
        one, two = it.streams(2)
        send(one)
        send(two)
        assert not isinstance(head_of(one), ResponseHead)
        assert (one.is_refused, two.is_refused) == (True, False)
        assert receive(two) == (200, b"fine")
        one.close()
        two.close()


def test_a_connection_that_refused_beside_others_is_full_for_a_moment() -> None:
    def script(it: Speaker) -> None:
        first, second = it.request()[0], it.request()[0]
        it.reset(first, REFUSED_STREAM)
        it.answer(second, b"fine")

    with place(speak(script)) as it:
        one, two = it.streams(2)
        send(one)
        send(two)
        assert not isinstance(head_of(one), ResponseHead)
        one.close()
        assert it.pool.acquire(0.0) is None
        assert receive(two) == (200, b"fine")
        two.close()
        found: list[StreamConnection] = []
        wait_until(lambda: found.extend(filter(None, [it.pool.acquire(0.0)])) or bool(found))
        found[0].close()


def test_a_stream_that_was_reset_for_another_reason_was_not_refused() -> None:
    with place(speak(lambda it: it.reset(it.request()[0], 2))) as it:
        connection = it.pool.dial(TIMEOUT)
        send(connection)
        assert not isinstance(head_of(connection), ResponseHead)
        assert not connection.is_refused
        connection.close()


def test_a_dead_connection_fails_its_streams_at_once() -> None:
    def script(side: ServerSide) -> None:
        speaker = Speaker(side)
        speaker.request()
        side.reset()

    with place(script, serving()) as it:
        one, two = it.streams(2)
        send(one)
        for stream in (one, two):
            assert not isinstance(head_of(stream), ResponseHead)
            stream.close()
        assert it.ask() == (200, b"/a")
        assert it.connections == 2


def test_a_whole_answer_outlives_its_connection() -> None:
    def script(side: ServerSide) -> None:
        speaker = Speaker(side)
        speaker.answer(speaker.request()[0], b"last words")
        side.finish()

    with place(script) as it:
        connection = it.pool.dial(TIMEOUT)
        send(connection)
        wait_until(lambda: connection._line.multiplex.is_over)
        assert receive(connection) == (200, b"last words")
        connection.close()


def test_a_connection_that_ends_before_it_is_used_is_not_used() -> None:
    with place(speak(lambda it: it.goaway(0)), serving()) as it:
        assert it.ask() == (200, b"/a")
        assert it.connections == 2


# -- what we say


def test_a_stream_that_is_given_up_is_reset_and_the_others_go_on() -> None:
    def script(it: Speaker) -> None:
        first, second = it.request()[0], it.request()[0]
        assert it.next(h2.events.StreamReset, first).error_code == 8
        it.answer(second, b"fine")

    with place(speak(script)) as it:
        one, two = it.streams(2)
        send(one)
        send(two)
        settle()
        one.close()
        assert receive(two) == (200, b"fine")
        two.close()
        assert not two._line.multiplex.streams


def test_a_complete_exchange_ends_without_a_reset() -> None:
    seen: list[Any] = []

    def script(it: Speaker) -> None:
        for _ in range(3):
            it.answer(it.request()[0], b"x")
        seen.extend(it.events)

    with place(speak(script)) as it:
        for _ in range(3):
            it.ask()
        assert not any(isinstance(event, h2.events.StreamReset) for event in seen)


def test_a_thousand_streams_that_are_given_up_leave_nothing() -> None:
    def script(it: Speaker) -> None:
        with pytest.raises(AssertionError):
            it.next(h2.events.ConnectionTerminated)

    with place(speak(script)) as it:
        multiplex = None
        for _ in range(10):
            streams = it.streams(100)
            multiplex = streams[0]._line.multiplex
            for at, stream in enumerate(streams):
                if at % 2:
                    send(stream, ends=bool(at % 3))
                stream.close()
            settle()
        assert multiplex is not None
        assert not multiplex.streams
        assert it.connections == 1


def test_idle_connections_beyond_those_that_are_kept_leave() -> None:
    with place(*[serving(MAX_CONCURRENT_STREAMS=1)] * 3, keepalive=1) as it:
        streams = it.streams(3)
        for stream in streams:
            stream.close()
        wait_until(lambda: it.fake.open_connections == 1)
        assert it.ask() == (200, b"/a")
        assert it.connections == 3


def test_without_keepalive_a_connection_lives_as_long_as_its_streams() -> None:
    with place(serving(), serving(), keepalive=0) as it:
        one, two = it.streams(2)
        one.close()
        settle()
        assert it.ask(two) == (200, b"/a")
        wait_until(lambda: not it.fake.open_connections)
        assert it.ask() == (200, b"/a")
        assert it.connections == 2


def test_a_connection_that_rests_long_enough_says_goodbye() -> None:
    seen: list[Any] = []

    def script(it: Speaker) -> None:
        it.answer(it.request()[0])
        seen.append(it.next(h2.events.ConnectionTerminated))

    with place(speak(script), rest=SOON) as it:
        assert it.ask() == (200, b"")
        wait_until(lambda: seen)
        wait_until(lambda: not it.fake.open_connections)
        assert it.pool.acquire(now()) is None


def test_a_shorter_rest_counts_for_those_that_rest() -> None:
    with place(serving()) as it:
        it.ask()
        it.pool.resize(4, SOON)
        wait_until(lambda: not it.fake.open_connections)


def test_a_pool_that_is_closed_lets_streams_finish() -> None:
    go = Event()

    def script(it: Speaker) -> None:
        stream, _ = it.request()
        go.wait()
        it.answer(stream, b"late")

    with place(speak(script)) as it:
        connection = it.pool.dial(TIMEOUT)
        send(connection)
        it.pool.close()
        assert it.pool.acquire(now()) is None
        go.set()
        assert receive(connection) == (200, b"late")
        connection.close()
        wait_until(lambda: not it.fake.open_connections)


def test_with_other_trust_new_requests_get_a_new_connection() -> None:
    with place(serving(), serving()) as it:
        it.ask()
        it.pool.refresh()
        wait_until(lambda: not it.fake.open_connections)
        it.ask()
        assert it.connections == 2


def test_a_connection_that_has_been_silent_for_too_long_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.upstream.multiplexed._SILENT", 0.0)
    with place(speak(lambda it: it.request()), serving()) as it:
        connection = it.pool.dial(TIMEOUT)
        # The answer to SETTINGS is on its way.
        wait_until(lambda: connection._line.multiplex.is_ready and not settle())
        connection._opened = now()
        send(connection)
        gevent.sleep(0.002)
        connection.close()
        assert it.ask() == (200, b"/a")
        assert it.connections == 2


# -- connections of their own


def test_what_must_be_heard_first_is_and_nobody_else_shares_it() -> None:
    heard: list[bytes] = []

    def script(side: ServerSide) -> None:
        heard.append(side.read(4))
        serving()(side)

    with place(script, script) as it:
        one = it.pool.dial(TIMEOUT, b"hey\n")
        assert it.pool.acquire(now()) is None
        assert it.ask(one) == (200, b"/a")
        wait_until(lambda: not it.fake.open_connections)
        assert it.ask(it.pool.dial(TIMEOUT, b"you\n")) == (200, b"/a")
        assert heard == [b"hey\n", b"you\n"]


def test_one_of_its_own_that_nobody_waits_for_any_more_ends() -> None:
    go = Event()

    def slow(side: ServerSide) -> None:
        go.wait()
        serving()(side)

    with place(slow) as it:
        waiting = start(it.pool.ask, TIMEOUT)
        settle()
        waiting.kill()
        go.set()
        wait_until(lambda: it.connections and not it.fake.open_connections)


def test_a_plain_connection_is_dialed_beside() -> None:
    with place(lambda side: None, lambda side: None) as it:
        it.pool.connect(TIMEOUT).close()
        channel = it.pool.open(TIMEOUT, b"first")
        wait_until(lambda: it.connections == 2)
        channel.close()
        wait_until(lambda: not it.fake.open_connections)
        assert it.fake.received[1] == b"first"
