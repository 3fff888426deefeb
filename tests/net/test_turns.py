"""Who comes when a connection brings much at once: all others have their turn in between."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import gevent
import pytest

from sidecar.net import turns
from sidecar.net.h2 import Stream
from sidecar.wire.head import Limits, RequestHead
from tests.support.http2 import (
    DATA,
    END_STREAM,
    POST,
    RST_STREAM,
    Served,
    frame,
    greet,
    number,
    wait_for_body,
)
from tests.support.streams import TIMEOUT, outcome, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

MANY = 100
_IDS = range(1, 2 * MANY, 2)


@pytest.fixture
def no_slices() -> Iterator[None]:
    """Each slice is over as soon as it begins."""
    before = turns.slices_last(0.0)
    yield
    turns.slices_last(before)


def _use(seconds: float) -> None:
    """Take that much time of the process, as work does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _slowly(begun: list[Stream]) -> Callable[[Stream], None]:
    """A handler that takes longer than a turn, and notes what it began."""

    def serve(stream: Stream) -> None:
        begun.append(stream)
        _use(0.0005)
        greet(stream)

    return serve


def _streams() -> int:
    return sum(type(thing) is Stream for thing in gc.get_objects())


def _many(client: Served) -> bytes:
    return b"".join(client.headers(stream) for stream in _IDS)


def test_one_request_does_not_wait_for_the_many_that_another_connection_brought_before() -> None:
    begun: list[str] = []

    def serve_one(stream: Stream) -> None:
        begun.append("one")
        greet(stream)

    def serve_many(stream: Stream) -> None:
        if not begun:
            one.ask(1)
        begun.append("many")
        _use(0.0005)
        greet(stream)

    with Served(serve_one) as one, Served(serve_many) as many:
        many.send(_many(many))
        wait_until(lambda: len(begun) == MANY + 1)
        assert one.answer(1).status == 200
        assert begun.index("one") < 20
        assert many.answer(2 * MANY - 1).status == 200


def test_connections_with_many_requests_take_turns() -> None:
    begun: list[str] = []

    def serve(name: str) -> Callable[[Stream], None]:
        def served(stream: Stream) -> None:
            begun.append(name)
            greet(stream)

        return served

    with Served(serve("a")) as a, Served(serve("b")) as b:
        a.is_alive()
        b.is_alive()
        a.send(_many(a))
        b.send(_many(b))
        wait_until(lambda: len(begun) == 2 * MANY)
        assert begun.index("b") < MANY, "they take turns"
        assert begun.index("a") < MANY
        assert begun[:MANY].count("a") < MANY


def test_what_has_not_begun_when_the_connection_is_killed_never_does() -> None:
    begun: list[Stream] = []

    def serve(stream: Stream) -> None:
        begun.append(stream)
        client.multiplex.kill()
        _use(0.0005)
        wait_for_body(stream)

    with Served(serve) as client:
        client.send(_many(client))
        wait_until(lambda: bool(begun) and not client.multiplex.streams)
        settle()
        assert len(begun) < 20


def test_the_end_of_a_connection_with_many_requests_does_not_hold_up_another() -> None:
    over: list[str] = []

    def serve(stream: Stream) -> None:
        stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        begun.append(stream)
        try:
            stream.read(1, TIMEOUT)
        finally:
            if not over:
                other.ask(1)
            over.append("many")
            _use(0.0005)

    def note(stream: Stream) -> None:
        over.append("other")
        greet(stream)

    begun: list[Stream] = []
    with Served(note) as other, Served(serve) as client:
        client.send(*(client.headers(stream, ends=False) for stream in range(1, 2 * MANY, 2)))
        wait_until(lambda: len(begun) == MANY)
        client.peer.close()
        wait_until(lambda: len(over) == MANY + 1)
        assert over.index("other") < 20
        assert other.answer(1).status == 200


@pytest.mark.usefixtures("no_slices")
def test_a_connection_that_brings_frame_after_frame_lets_others_have_their_turn() -> None:
    with Served(wait_for_body) as client:
        assert client.is_alive()
        small = frame(DATA, 0, 1, b"x") * 60_000
        client.send(client.headers(1, POST, False), small, frame(DATA, END_STREAM, 1))
        taken = [client.channel.received - client.channel.pending]
        watcher = gevent.get_hub().loop.prepare()
        watcher.start(lambda: taken.append(client.channel.received - client.channel.pending))
        try:
            assert client.answer(1).status == 200
        finally:
            watcher.stop()
            watcher.close()
        shares = [after - before for before, after in pairwise(taken)]
        assert sum(shares) > len(small)
        # A slice that is over at once leaves one frame; what is read at one time is up to 256 KiB.
        assert max(shares) < 1000


def test_what_a_client_asked_for_before_it_left_does_not_begin() -> None:
    """Or a hundred requests to the upstream would cost it one packet."""
    begun: list[Stream] = []
    with Served(_slowly(begun)) as client:
        client.send(_many(client))
        client.peer.close()
        outcome(client.reader)
        settle()
        assert len(begun) < 20
        assert client.multiplex.streams == {}


def test_what_was_reset_before_its_turn_does_not_begin() -> None:
    begun: list[Stream] = []
    with Served(_slowly(begun)) as client:
        client.send(_many(client), *(number(RST_STREAM, stream, 8) for stream in range(1, 2 * MANY - 1, 2)))
        assert client.answer(2 * MANY - 1).status == 200
        assert len(begun) < 20


def test_streams_that_ended_are_not_kept_while_others_wait() -> None:
    """A client that asks anew with each answer always has some that have not begun."""

    def serve(stream: Stream) -> None:
        _use(0.0003)
        greet(stream)

    others = _streams()
    with Served(serve) as client:
        streams = range(1, 801, 2)
        client.send(*(client.headers(stream) for stream in streams[:20]))
        for stream in streams[20:]:
            client.until(DATA)
            client.ask(stream)
        assert _streams() - others < 100


def test_in_long_rounds_more_begins() -> None:
    """Others that take ten milliseconds in each round do not make the requests wait for a round each."""
    rounds = 0
    is_over = False

    def work() -> None:
        nonlocal rounds
        while not is_over:
            _use(0.01)
            rounds += 1
            gevent.sleep(1e-9)

    def serve(stream: Stream) -> None:
        _use(0.0002)
        greet(stream)

    other = gevent.spawn(work)
    with Served(serve) as client:
        client.send(_many(client))
        assert client.answer(2 * MANY - 1).status == 200
        is_over = True
        outcome(other)
        assert rounds < MANY / 4
