"""Channels: waits with deadlines, rest in a pool, and every way to end."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gevent
import pytest

from sidecar.errors import Broken
from sidecar.net.channel import CLOSED, HEAD, Channel
from sidecar.wire.head import Limits, RequestHead, ResponseHead
from tests.support.streams import (
    TIMEOUT,
    ScriptedPeer,
    now,
    open_descriptors,
    outcome,
    settle,
    start,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

REQUEST = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SOON = 0.01


def request_head(**limits: int) -> RequestHead:
    return RequestHead(Limits(**limits))


def read_head(peer: ScriptedPeer, first: float = TIMEOUT, total: float = TIMEOUT) -> int:
    return peer.channel.read_head(request_head(), first, total)


# -- waiting


def test_only_one_greenlet_waits_on_a_channel() -> None:
    with ScriptedPeer() as peer:
        first = start(read_head, peer)
        settle()
        with pytest.raises(RuntimeError, match="another greenlet waits"):
            peer.channel.read(1, TIMEOUT)
        peer.send(REQUEST)
        assert outcome(first) == HEAD


def test_a_killed_greenlet_leaves_no_waiter_behind() -> None:
    with ScriptedPeer() as server, ScriptedPeer() as client:
        head = ResponseHead(Limits())
        waiting = start(server.channel.read_head, head, TIMEOUT, TIMEOUT, client.channel)
        settle()
        waiting.kill()
        client.send(b"c")
        server.send(b"s")
        assert server.channel.read(9, TIMEOUT) == b"s"
        assert client.channel.read(9, TIMEOUT) == b"c"


def test_closing_a_channel_wakes_who_waits_on_it() -> None:
    with ScriptedPeer() as peer:
        reading = start(read_head, peer)
        settle()
        peer.channel.close()
        assert outcome(reading) == CLOSED
        with pytest.raises(Broken):
            peer.channel.send(b"x", TIMEOUT)


def test_a_deadline_of_an_earlier_wait_does_not_end_a_later_one() -> None:
    with ScriptedPeer() as peer:
        reading = start(peer.channel.read, 1, SOON)
        peer.send(b"a")
        assert outcome(reading) == b"a"
        reading = start(peer.channel.read, 1, TIMEOUT)
        gevent.sleep(SOON * 2)
        assert not reading.dead
        peer.send(b"b")
        assert outcome(reading) == b"b"


def test_a_deadline_that_was_met_does_not_end_what_others_wait_for() -> None:
    with ScriptedPeer() as server, ScriptedPeer() as client:
        reading = start(client.channel.read, 1, SOON)
        client.send(b"a")
        assert outcome(reading) == b"a"
        waiting = start(server.channel.read_head, request_head(), TIMEOUT, TIMEOUT, client.channel)
        gevent.sleep(SOON * 2)
        server.send(REQUEST)
        assert outcome(waiting) == HEAD
        reading = start(client.channel.read, 1, TIMEOUT)
        settle()
        client.send(b"b")
        assert outcome(reading) == b"b"


def test_a_shorter_deadline_counts_although_a_longer_timer_still_runs() -> None:
    with ScriptedPeer() as peer:
        reading = start(peer.channel.read, 1, TIMEOUT)
        peer.send(b"a")
        assert outcome(reading) == b"a"
        began = now()
        with pytest.raises(Broken):
            peer.channel.read(1, SOON)
        assert now() - began < TIMEOUT / 2


def test_many_channels_are_woken_each_by_its_own_peer() -> None:
    peers = [ScriptedPeer() for _ in range(300)]
    reading = [start(peer.channel.read, 9, TIMEOUT) for peer in peers]
    settle()
    for number, peer in enumerate(peers):
        peer.send(b"%d" % number)
    assert [int(outcome(one)) for one in reading] == list(range(300))
    for peer in peers:
        peer.close()
        peer.channel.close()


def test_a_channel_that_another_one_closes_in_the_same_turn_gets_no_event() -> None:
    one, two = ScriptedPeer(), ScriptedPeer()
    three = ScriptedPeer()

    def read_and_drop(own: ScriptedPeer, others: list[ScriptedPeer]) -> object:
        try:
            data = own.channel.read(1, TIMEOUT)
        except Broken as broken:
            return broken.what
        for other in others:
            other.channel.close()
        return data

    everyone = [one, two, three]
    reading = [start(read_and_drop, peer, [p for p in everyone if p is not peer]) for peer in everyone]
    settle()
    for peer in everyone:
        peer.send(b"x")
    results = [outcome(task) for task in reading]
    assert results.count(b"x") == 1
    for peer in everyone:
        peer.close()
        peer.channel.close()


# -- resting


@pytest.mark.parametrize("act", [lambda peer: peer.send(b"x"), ScriptedPeer.finish, ScriptedPeer.close])
def test_a_parked_channel_is_called_back_when_its_peer_speaks_or_leaves(
    act: Callable[[ScriptedPeer], None],
) -> None:
    with ScriptedPeer() as peer:
        called: list[Channel] = []
        peer.channel.park(called.append, TIMEOUT)
        settle()
        assert called == []
        act(peer)
        wait_until(lambda: called)
        assert called[0] is peer.channel
        assert peer.channel.unpark() is False


def test_a_parked_channel_is_called_back_when_it_rested_long_enough() -> None:
    with ScriptedPeer() as peer:
        called: list[Channel] = []
        peer.channel.park(called.append, SOON)
        wait_until(lambda: called)
        assert peer.channel.unpark() is True


def test_an_unparked_channel_is_not_called_back_any_more() -> None:
    with ScriptedPeer() as peer:
        called: list[Channel] = []
        peer.channel.park(called.append, SOON)
        assert peer.channel.unpark() is True
        gevent.sleep(SOON * 2)
        peer.send(b"x")
        settle()
        assert called == []


def test_an_end_that_no_event_told_yet_is_found_when_unparking() -> None:
    with ScriptedPeer(tcp=True) as peer:
        peer.channel.park(lambda channel: None, TIMEOUT)
        peer.reset()
        assert peer.channel.unpark() is False


def test_a_read_that_filled_its_buffer_exactly_leaves_a_usable_channel() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"x" * 16384)
        assert len(peer.channel.read(16384, TIMEOUT)) == 16384
        peer.channel.park(lambda channel: None, TIMEOUT)
        assert peer.channel.unpark() is True


def test_a_closed_channel_cannot_be_unparked() -> None:
    with ScriptedPeer() as peer:
        peer.channel.close()
        assert peer.channel.unpark() is False


# -- the end


def test_abort_resets_what_the_peer_reads() -> None:
    with ScriptedPeer(tcp=True) as peer:
        peer.channel.send(b"half of it", TIMEOUT)
        peer.channel.abort()
        peer.read_all()
        assert peer.was_reset


def test_close_ends_cleanly_and_can_be_repeated() -> None:
    with ScriptedPeer(tcp=True) as peer:
        peer.channel.send(b"all of it", TIMEOUT)
        peer.channel.close()
        peer.channel.close()
        peer.channel.abort()
        assert peer.read_all() == b"all of it"
        assert not peer.was_reset
        assert peer.channel.fd == -1


def test_linger_lets_a_peer_that_still_sends_read_the_end() -> None:
    with ScriptedPeer(tcp=True) as peer:
        peer.channel.send(b"no", TIMEOUT)
        lingering = start(peer.channel.linger, TIMEOUT)
        peer.send(b"u" * 100_000)
        assert peer.read_all() == b"no"
        assert not peer.was_reset
        peer.close()
        outcome(lingering)
        assert peer.channel.fd == -1


def test_whoever_lingers_on_a_peer_that_sends_and_sends_lets_others_have_their_turn() -> None:
    with ScriptedPeer(tcp=True) as peer:
        sent = peer.fill(bytes(1_000_000))
        assert sent > 1_500_000, "or one turn is enough"
        received = [0]
        turn = gevent.get_hub().loop.prepare()
        turn.start(lambda: received.append(peer.channel.received))
        outcome(start(peer.channel.linger, TIMEOUT, sent))
        turn.stop()
        turn.close()
        received.append(peer.channel.received)
        assert max(after - before for before, after in pairwise(received)) < 1_100_000


def test_linger_ends_in_time_and_after_its_limit() -> None:
    with ScriptedPeer(tcp=True) as peer:
        outcome(start(peer.channel.linger, SOON))
        assert peer.channel.fd == -1
    with ScriptedPeer(tcp=True) as peer:
        peer.send(b"u" * 50_000)
        outcome(start(peer.channel.linger, TIMEOUT, 1000))
        assert peer.channel.fd == -1


def test_a_channel_that_is_forgotten_gives_its_descriptor_back() -> None:
    one, two = socket.socketpair()
    before = open_descriptors()
    channel = Channel(one.detach(), True)
    two.sendall(b"x")
    channel.read(1, TIMEOUT)
    del channel
    gc.collect()
    assert open_descriptors() == before - 1
    settle()
    two.close()


def watched_descriptors() -> int:
    """How many descriptors the epolls of this process watch."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{fd}") as lines:
            count += sum(line.startswith("tfd:") for line in lines)
    return count


@pytest.mark.parametrize("end", [Channel.close, Channel.abort, None])
def test_a_closed_channel_is_watched_no_more_although_its_socket_lives_on_elsewhere(end: Any) -> None:
    before = watched_descriptors()
    one, two = socket.socketpair()
    channel = Channel(os.dup(one.fileno()))
    with pytest.raises(Broken):
        channel.read(1, SOON)
    assert watched_descriptors() == before + 1
    if end is not None:
        end(channel)
    del channel
    settle()  # the hub is still in the timer's callback
    gc.collect()
    assert watched_descriptors() == before
    two.sendall(b"x")
    settle()
    one.close()
    two.close()
