"""Channels: heads read, whatever comes between."""

from __future__ import annotations

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.net.channel import CLOSED, GONE, HEAD, IDLE, SLOW, TORN
from sidecar.wire.head import Limits, RequestHead, ResponseHead
from tests.support.streams import (
    TIMEOUT,
    ScriptedPeer,
    now,
    outcome,
    settle,
    start,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

REQUEST = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SOON = 0.01


def request_head(**limits: int) -> RequestHead:
    return RequestHead(Limits(**limits))


def read_head(peer: ScriptedPeer, first: float = TIMEOUT, total: float = TIMEOUT) -> int:
    return peer.channel.read_head(request_head(), first, total)


# -- heads


def test_a_head_that_is_there_is_read_at_once() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(REQUEST + b"rest")
        head = request_head()
        assert peer.channel.read_head(head, TIMEOUT, TIMEOUT) == HEAD
        assert head.path == b"/a"
        assert peer.channel.peek() == b"rest"


def test_a_head_that_comes_byte_by_byte_is_read_whole() -> None:
    with ScriptedPeer() as peer:
        reading = start(read_head, peer)
        peer.send_pieces(REQUEST)
        assert outcome(reading) == HEAD
        assert peer.channel.pending == 0
        assert peer.channel.received == len(REQUEST)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40_000), max_size=4), st.integers(1, 5))
def test_pipelined_heads_are_read_one_by_one_wherever_they_are_cut(cuts: list[int], count: int) -> None:
    heads = [b"GET /%d HTTP/1.1\r\nHost: x\r\nX-Fill: %b\r\n\r\n" % (i, b"f" * 7_000) for i in range(count)]
    data = b"".join(heads)
    bounds = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    with ScriptedPeer(readable=True) as peer:

        def send() -> None:
            for begin, end in zip(bounds, bounds[1:], strict=False):
                peer.send(data[begin:end])
                gevent.idle()

        sending = start(send)
        for i in range(count):
            head = request_head()
            assert peer.channel.read_head(head, TIMEOUT, TIMEOUT) == HEAD
            assert head.path == b"/%d" % i
        outcome(sending)


def test_a_head_larger_than_the_first_buffer_is_read() -> None:
    with ScriptedPeer() as peer:
        reading = start(peer.channel.read_head, head := request_head(), TIMEOUT, TIMEOUT)
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: %b\r\n\r\n" % (b"y" * 30_000))
        assert outcome(reading) == HEAD
        assert len(head.get(b"x-large") or b"") == 30_000


def test_a_head_over_its_limit_is_refused_before_it_ends() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"GET / HTTP/1.1\r\nX: " + b"y" * 3000)
        with pytest.raises(Malformed) as caught:
            peer.channel.read_head(request_head(max_header_size=2048), TIMEOUT, TIMEOUT)
        assert caught.value.status == 431


@pytest.mark.parametrize(("sent", "code"), [(b"", CLOSED), (b"GET / HT", TORN)])
def test_an_end_before_the_head_is_complete(sent: bytes, code: int) -> None:
    with ScriptedPeer() as peer:
        reading = start(read_head, peer)
        settle()
        peer.send(sent)
        peer.finish()
        assert outcome(reading) == code


@pytest.mark.parametrize(("sent", "code"), [(b"", CLOSED), (b"GET / HT", TORN)])
def test_a_reset_before_the_head_is_complete(sent: bytes, code: int) -> None:
    with ScriptedPeer(tcp=True) as peer:
        reading = start(read_head, peer)
        peer.send(sent)
        settle()
        peer.reset()
        assert outcome(reading) == code


def test_no_first_byte_in_time_is_idle_and_the_channel_can_still_read() -> None:
    with ScriptedPeer() as peer:
        assert read_head(peer, first=SOON) == IDLE
        peer.send(REQUEST)
        assert read_head(peer) == HEAD


def test_a_head_that_does_not_end_in_time_is_slow_however_often_bytes_come() -> None:
    with ScriptedPeer() as peer:

        def drip() -> None:
            peer.send(b"GET / HTTP/1.1\r\nX: ")
            while True:
                peer.send(b"y")
                gevent.sleep(SOON / 8)

        dripping = start(drip)
        began = now()
        assert read_head(peer, total=SOON * 3) == SLOW
        assert SOON * 2 <= now() - began < TIMEOUT / 2
        dripping.kill()


def test_the_time_of_a_head_whose_beginning_is_pending_counts_from_the_call() -> None:
    with ScriptedPeer() as peer:
        peer.channel.unread(b"GET / ")
        assert read_head(peer, first=TIMEOUT, total=SOON) == SLOW


def test_a_watched_peer_that_leaves_ends_the_wait() -> None:
    with ScriptedPeer() as server, ScriptedPeer() as client:
        reading = start(server.channel.read_head, ResponseHead(Limits()), TIMEOUT, TIMEOUT, client.channel)
        settle()
        client.send(b"a pipelined request is no reason to stop")
        settle()
        assert not reading.dead
        client.close()
        assert outcome(reading) == GONE
        assert client.channel.peer_finished


def test_a_peer_that_left_before_is_noticed_too() -> None:
    with ScriptedPeer() as server, ScriptedPeer() as client:
        client.finish()
        assert server.channel.read_head(request_head(), TIMEOUT, TIMEOUT, client.channel) == GONE


def test_a_head_that_is_there_counts_more_than_the_watched_peers_end() -> None:
    with ScriptedPeer(readable=True) as server, ScriptedPeer() as client:
        client.finish()
        server.send(REQUEST)
        assert server.channel.read_head(request_head(), TIMEOUT, TIMEOUT, client.channel) == HEAD
