"""Channels: bytes read ahead, held back and sent, and connections that come about."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Broken
from sidecar.net.channel import Channel
from tests.support.streams import TIMEOUT, ScriptedPeer, outcome, settle, start

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01


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


@settings(max_examples=40)
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
