"""How HTTP/2 connections end, and the greenlets that serve them: whoever ends it, nothing is left."""

from __future__ import annotations

import struct
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from sidecar.net.channel import Channel
from sidecar.net.h2 import Multiplex, Stream
from sidecar.wire.head import Limits, RequestHead
from tests.support import http2
from tests.support.http2 import (
    ACK,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GET,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PING,
    POST,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Served,
    frame,
    number,
    wait_for_body,
)
from tests.support.streams import TIMEOUT, outcome, settle, tcp_pair, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_leave_ends_a_connection_that_serves_nothing(client: Served) -> None:
    """GOAWAY for nothing yet, a PING, and when its answer shows that the client knows, the last GOAWAY."""
    client.ask(1)
    client.answer(1)
    client.multiplex.leave()
    first = client.until(GOAWAY)
    assert int.from_bytes(first.payload[:4], "big") == 0x7FFFFFFF
    ping = client.until(PING)
    client.send(frame(PING, ACK, 0, ping.payload))
    second = client.until(GOAWAY)
    assert struct.unpack("!II", second.payload) == (1, NO_ERROR)
    assert client.next() is None
    assert client.refused == ""


def test_requests_on_their_way_as_we_leave_are_served() -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False))
        client.is_alive()
        client.multiplex.leave()
        ping = client.until(PING)
        client.ask(3)
        client.send(frame(PING, ACK, 0, ping.payload))
        # Behind our last word nothing is begun; what a client tells of such a stream breaks nothing.
        client.send(client.headers(5, POST, False), frame(DATA, 0, 5, b"abc"), number(WINDOW_UPDATE, 5, 9))
        assert client.answer(3).status == 200
        assert client.reset_with(5) == REFUSED_STREAM
        client.send(frame(DATA, END_STREAM, 1, b"x"))
        assert client.answer(1).status == 200
        assert client.next() is None


def _resting(told: list[Stream], begun: Event, over: Event, *, stays: bool) -> Callable[[Stream], None]:
    """Rest as in a queue, and for a stream that does not stay: leave it in the round in which it is reset."""

    def serve(stream: Stream) -> None:
        stream.park(told.append, 0.0)
        begun.set()
        if not stays:
            while not stream.peer_finished:
                gevent.sleep(0)
            stream.unpark()
        over.wait(TIMEOUT)
        stream.unpark()

    return serve


@pytest.mark.parametrize("stays", [True, False])
def test_a_stream_that_rests_tells_of_its_end_and_not_when_it_rests_no_more(stays: bool) -> None:
    told: list[Stream] = []
    begun, over = Event(), Event()
    with Served(_resting(told, begun, over, stays=stays)) as client:
        client.ask(1)
        assert begun.wait(TIMEOUT)
        client.send(number(RST_STREAM, 1, 8))
        client.is_alive()
        if stays:
            wait_until(lambda: bool(told))
        settle()
        assert len(told) == stays
        over.set()


def test_a_client_that_says_goaway_gets_its_answers_and_the_end() -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), frame(GOAWAY, 0, 0, bytes(8)))
        client.is_alive()
        client.send(frame(DATA, END_STREAM, 1, b"x"))
        assert client.answer(1).status == 200
        assert client.ended_with() == (-1, "")
        assert client.refused == ""


def test_a_client_that_leaves_ends_its_streams() -> None:
    with Served(wait_for_body) as client:
        client.send(client.headers(1, POST, False), client.headers(3, POST, False))
        client.is_alive()
        client.peer.close()
        outcome(client.reader)
        assert client.multiplex.streams == {}


def test_a_connection_without_streams_ends_with_goaway() -> None:
    with Served(idle_timeout=0.05) as client:
        assert client.ended_with() == (NO_ERROR, "")
        assert client.refused == ""


def test_pings_do_not_keep_a_connection_that_asks_nothing() -> None:
    with Served(idle_timeout=0.05) as client:
        with pytest.raises((AssertionError, OSError)):
            while client.is_alive():
                gevent.sleep(0.005)
            raise AssertionError
        outcome(client.reader)


def test_whoever_cuts_a_connection_off_leaves_nothing() -> None:
    """Killed while streams wait, in every state a stream has: no greenlet, no timer, no stream is left."""
    with Served(wait_for_body, idle_timeout=30, write_timeout=30, header_timeout=30) as client:
        client.ask(1)
        client.send(client.headers(3, POST, False), client.headers(5, POST, False), number(RST_STREAM, 5, 8))
        client.send(client.headers(7, [*POST, ("Bad", "x")], False))
        client.is_alive()
        client.send(frame(HEADERS, 0, 9, client.block(GET)))
        gevent.sleep(0)
        client.reader.kill(block=False)
        wait_until(lambda: client.reader.dead and not client.multiplex.streams)
        assert client.channel.fileno() == -1


def test_a_multiplex_may_be_dropped_before_it_runs() -> None:
    ours, theirs = tcp_pair()
    channel = Channel(ours.detach(), True)
    multiplex = Multiplex(channel, Limits(), wait_for_body, idle_timeout=5, header_timeout=5)
    multiplex.leave()
    multiplex.kill()
    channel.close()
    theirs.close()
    gevent.sleep(0)


def test_a_handler_that_fails_resets_its_stream_alone() -> None:
    def fail(stream: Stream) -> None:
        raise ValueError("on purpose")

    with Served(fail) as client:
        client.ask(1)
        assert client.reset_with(1) == http2.INTERNAL_ERROR
        assert client.is_alive()


def test_calm_is_the_code_of_whoever_does_too_much() -> None:
    with Served() as client:
        client.send(frame(SETTINGS, payload=bytes(6) * 100))
        assert client.ended_with() == (ENHANCE_YOUR_CALM, "settings_flood")


def test_to_cut_off_one_connection_cuts_off_no_other() -> None:
    """Who served a stream may serve one of another connection by the time that it is to end."""
    with Served() as one, Served(wait_for_body) as other:
        one.ask(1)
        one.answer(1)
        one.send(one.headers(3))
        wait_until(lambda: one.channel.pending or one.multiplex.streams or one.multiplex.handled == 2)
        one.multiplex.kill()
        other.send(other.headers(1, POST, False))
        other.is_alive()
        one.multiplex.kill()
        other.send(frame(DATA, END_STREAM, 1, b"x"))
        assert other.answer(1).status == 200


def test_requests_are_served_by_greenlets_that_rest_between_them() -> None:
    """Hundreds of streams, more at one time than may rest: each is served once."""
    served: list[int] = []

    def note(stream: Stream) -> None:
        stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        served.append(stream.id)
        gevent.sleep(0)
        stream.send(http2.HI, TIMEOUT)
        stream.finish()

    with Served(note, max_streams=1000) as client:
        for _ in range(3):
            first = max(served, default=-1) + 2
            numbers = range(first, first + 1000, 2)
            client.send(*[client.headers(n) for n in numbers])
            for n in numbers:
                client.until(DATA, n)
            assert served[-500:] == list(numbers)
