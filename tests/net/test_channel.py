"""Channels: heads read, bytes sent, waits with deadlines, rest in a pool, and every way to end."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Broken, Malformed
from sidecar.net.channel import CLOSED, GONE, HEAD, IDLE, SLOW, TORN, Channel
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


@settings(max_examples=30, deadline=None)
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


# -- bytes


def test_fill_reads_ahead_and_peek_skip_unread_walk_in_it() -> None:
    with ScriptedPeer() as peer:
        filling = start(peer.channel.fill, 5, TIMEOUT)
        peer.send_pieces(b"abcdef", 2)
        assert outcome(filling) is True
        assert peer.channel.peek() == b"abcdef"
        assert peer.channel.peek(4) == b"ef"
        assert peer.channel.peek(99) == b""
        peer.channel.skip(4)
        peer.channel.unread(b"XY")
        assert peer.channel.peek() == b"XYef"
        peer.channel.skip(99)
        assert peer.channel.pending == 0


def test_fill_keeps_what_is_pending_when_the_buffer_grows() -> None:
    data = bytes(range(256)) * 400
    with ScriptedPeer() as peer:
        filling = start(peer.channel.fill, len(data), TIMEOUT)
        sending = start(peer.send, data)
        assert outcome(filling) is True
        outcome(sending)
        assert peer.channel.peek() == data


def test_fill_tells_that_the_peer_ended_first() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"ab")
        peer.finish()
        assert peer.channel.fill(3, TIMEOUT) is False
        assert peer.channel.peek() == b"ab"


@pytest.mark.parametrize("call", ["fill", "read"])
def test_reading_fails_in_time_and_on_a_reset(call: str) -> None:
    with ScriptedPeer(tcp=True) as peer:
        with pytest.raises(Broken) as caught:
            getattr(peer.channel, call)(1, SOON)
        assert (caught.value.side, caught.value.what) == ("source", "timeout")
        peer.reset()
        with pytest.raises(Broken) as caught:
            getattr(peer.channel, call)(1, TIMEOUT)
        assert (caught.value.side, caught.value.what) == ("source", "reset")


def test_read_gives_at_most_what_is_asked_and_nothing_at_the_end() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"abc")
        peer.finish()
        pieces = [peer.channel.read(2, TIMEOUT) for _ in range(4)]
        assert pieces == [b"ab", b"c", b"", b""]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40_000), st.binary(max_size=40_000), st.integers(0, 50_000))
def test_what_is_unread_comes_first(first: bytes, second: bytes, skipped: int) -> None:
    with ScriptedPeer() as peer:
        peer.channel.unread(second)
        peer.channel.skip(skipped)
        peer.channel.unread(first)
        assert peer.channel.peek() == first + second[skipped:]


def test_what_is_held_leaves_with_the_next_bytes_or_a_flush() -> None:
    with ScriptedPeer() as peer:
        peer.channel.hold(b"head ")
        peer.channel.hold(b"more ")
        peer.channel.flush(TIMEOUT)
        assert peer.sock.recv(99) == b"head more "
        peer.channel.flush(TIMEOUT)
        peer.channel.hold(b"again ")
        peer.channel.send(b"body", TIMEOUT)
        assert peer.sock.recv(99) == b"again body"
        assert peer.channel.sent == 20


def test_a_send_larger_than_the_socket_takes_is_completed_as_the_peer_reads() -> None:
    data = os.urandom(1_000_000)
    with ScriptedPeer(send_buffer=4096) as peer:
        sending = start(peer.channel.send, data, TIMEOUT)
        settle()
        assert not sending.dead
        assert peer.read(len(data)) == data
        outcome(sending)
        assert peer.channel.sent == len(data)


def test_a_peer_that_does_not_read_breaks_the_sink_in_time() -> None:
    with ScriptedPeer(send_buffer=4096) as peer, pytest.raises(Broken) as caught:
        peer.channel.send(b"x" * 1_000_000, SOON)
    assert (caught.value.side, caught.value.what) == ("sink", "timeout")


def test_a_peer_that_is_gone_breaks_the_sink() -> None:
    with ScriptedPeer() as peer:
        peer.close()
        with pytest.raises(Broken) as caught:
            peer.channel.send(b"x", TIMEOUT)
        assert (caught.value.side, caught.value.what) == ("sink", "reset")


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


# -- connecting


def test_what_a_server_says_at_once_and_its_end_survive_the_connecting() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        sock = socket.socket()
        sock.setblocking(False)
        assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        accepted, _ = listener.accept()
        accepted.sendall(b"early")
        accepted.shutdown(socket.SHUT_WR)
        channel = Channel(sock.detach())
        assert channel.wait_connected(TIMEOUT) == 0
        assert channel.read(99, TIMEOUT) == b"early"
        assert channel.read(99, TIMEOUT) == b""
        channel.close()
        accepted.close()


# -- resting


def test_a_parked_channel_is_called_back_when_its_peer_speaks_or_leaves() -> None:
    for act in (lambda peer: peer.send(b"x"), lambda peer: peer.finish(), lambda peer: peer.close()):
        with ScriptedPeer() as peer:
            called: list[Channel] = []
            peer.channel.park(called.append, TIMEOUT)
            settle()
            assert called == []
            act(peer)
            wait_until(lambda called=called: called)
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
