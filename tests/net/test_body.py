"""Request bodies: bounded, read ahead, passed on, and settled after the response."""

from __future__ import annotations

import contextlib
from functools import partial

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Broken, Failure, Malformed
from sidecar.net.body import RequestBody
from sidecar.net.channel import Channel
from sidecar.net.flow import Flow, pump
from sidecar.wire.body import ChunkedDecoder
from sidecar.wire.head import Limits, RequestHead
from tests.support.streams import TIMEOUT, ScriptedPeer, outcome, start, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01
CHUNKED = "Transfer-Encoding: chunked"


def body_of(peer: ScriptedPeer, fields: str, timeout: float = TIMEOUT) -> RequestBody:
    head = RequestHead(Limits())
    data = f"POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode()
    assert head.feed(data) == len(data)
    return RequestBody(head, peer.channel, timeout)


def reason(call: object, *args: object) -> str:
    with pytest.raises(Failure) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.reason


# -- bounds


def test_a_length_over_the_bound_is_refused_before_a_byte_is_read() -> None:
    with ScriptedPeer() as peer:
        body = body_of(peer, "Content-Length: 11")
        assert reason(body.bound, 10) == "request_body_too_large"
        body_of(peer, "Content-Length: 10").bound(10)


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
def test_chunks_are_bounded_while_they_are_read_ahead(size: int, fits: bool) -> None:
    with ScriptedPeer(readable=True) as peer:
        body = body_of(peer, CHUNKED)
        body.bound(10)
        peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
        if fits:
            body.fill(1000)
        else:
            assert reason(body.fill, 1000) == "request_body_too_large"


def test_the_bound_holds_for_the_flow_too() -> None:
    with ScriptedPeer(readable=True) as peer, ScriptedPeer() as server:
        body = body_of(peer, CHUNKED)
        body.bound(3)
        peer.send(b"4\r\nabcd\r\n0\r\n\r\n")
        with pytest.raises(Exception, match="too_large"):
            pump(body.flow(server.channel, TIMEOUT))


# -- reading ahead


@pytest.mark.parametrize("piece", [1, 100])
@pytest.mark.parametrize(
    ("fields", "wire"),
    [("Content-Length: 5", b"hello"), (CHUNKED, b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n")],
)
def test_a_body_read_ahead_is_still_whole_and_can_be_passed_on(fields: str, wire: bytes, piece: int) -> None:
    with ScriptedPeer() as peer, ScriptedPeer() as server:
        body = body_of(peer, fields)
        filling = start(body.fill, 1000)
        peer.send_pieces(wire, piece)
        outcome(filling)
        seen = [(body.is_whole, body.moved)]
        pump(body.flow(server.channel, TIMEOUT))
        seen.append((body.is_whole, body.moved))
        assert seen == [(True, 0), (False, 5)]
        server.channel.close()
        assert b"hello" in server.read_all().replace(b"2\r\nhe\r\n3\r\nllo", b"hello")
        assert body.settle()


def test_no_more_is_read_ahead_than_asked_for() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"x" * 100)
        body_of(peer, "Content-Length: 1000000").fill(100)
        assert peer.channel.pending == 100
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"f4240\r\n" + b"x" * 100)
        body_of(peer, CHUNKED).fill(100)
        assert peer.channel.pending == 107


def test_chunk_framing_cannot_make_reading_ahead_endless() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"1;%b\r\nx\r\n" % (b"e" * 900) * 20)
        body_of(peer, CHUNKED).fill(100)


def test_a_client_that_waits_for_100_gets_it_from_who_reads_ahead() -> None:
    with ScriptedPeer() as peer:
        body = body_of(peer, "Content-Length: 2\r\nExpect: 100-continue")
        filling = start(body.fill, 1000)
        assert peer.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"ok")
        outcome(filling)
        assert body.continued


def test_a_client_that_sends_without_waiting_gets_no_100() -> None:
    with ScriptedPeer() as peer:
        peer.channel.unread(b"ok")
        body = body_of(peer, "Content-Length: 2\r\nExpect: 100-continue")
        body.fill(1000)
        assert not body.continued
        peer.channel.close()
        assert peer.read_all() == b""


def test_a_client_that_stops_sending_is_a_timeout_and_one_that_leaves_is_gone() -> None:
    with ScriptedPeer() as peer:
        assert reason(body_of(peer, "Content-Length: 2", SOON).fill, 10) == "request_body_timeout"
        assert reason(body_of(peer, CHUNKED, SOON).fill, 10) == "request_body_timeout"
        peer.finish()
        assert reason(body_of(peer, "Content-Length: 2").fill, 10) == "client_gone"
        assert reason(body_of(peer, CHUNKED).fill, 10) == "client_gone"


def test_a_client_that_is_gone_when_it_is_told_to_continue_is_a_failure_too() -> None:
    with ScriptedPeer() as peer:
        peer.close()
        body = body_of(peer, "Content-Length: 2\r\nExpect: 100-continue")
        assert reason(body.fill, 10) == "client_gone"


def test_chunks_against_the_grammar_are_refused_while_they_are_read_ahead() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"nonsense\r\n")
        with pytest.raises(Malformed):
            body_of(peer, CHUNKED).fill(10)


# -- kept to be sent more than once


def test_a_small_body_is_taken_out_of_the_channel_and_can_be_sent_again_and_again() -> None:
    with ScriptedPeer() as peer:
        body = body_of(peer, "Content-Length: 5")
        keeping = start(body.keep, 5)
        peer.send_pieces(b"helloNEXT", 2)
        outcome(keeping)
        assert (body.kept, body.is_whole, body.moved) == (b"hello", True, 5)
        assert peer.channel.fill(4, TIMEOUT)
        assert peer.channel.peek() == b"NEXT"
        assert body.settle()
        assert peer.channel.peek() == b"NEXT"
        body.keep(5)
        assert body.kept == b"hello"


@pytest.mark.parametrize(
    "fields", ["Content-Length: 6", CHUNKED, "Content-Length: 5\r\nExpect: 100-continue"]
)
def test_a_body_that_is_large_or_unknown_or_held_back_stays_where_it_is(fields: str) -> None:
    with ScriptedPeer() as peer:
        peer.channel.unread(b"hello!")
        body = body_of(peer, fields)
        body.keep(5)
        assert (body.kept, body.content, body.is_whole, body.moved) == (None, None, True, 0)
        assert peer.channel.peek() == b"hello!"


@pytest.mark.parametrize(
    ("fields", "wire", "content"),
    [
        (CHUNKED, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (CHUNKED, b"0\r\n\r\n", b""),
        ("Content-Length: 5\r\nExpect: 100-continue", b"hello", b"hello"),
        ("Content-Length: 6\r\nExpect: 100-continue", b"hello!", None),
        (CHUNKED, b"6\r\nhello!\r\n0\r\n\r\n", None),
        (CHUNKED, b"3\r\nhel\r\n3\r\nlo!\r\n0\r\n\r\n", None),
        # Fields behind it are more than bytes.
        (CHUNKED, b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", None),
    ],
)
def test_one_that_is_unknown_or_held_back_is_kept_as_it_passes(
    fields: str, wire: bytes, content: bytes | None
) -> None:
    with ScriptedPeer() as peer, ScriptedPeer() as server:
        body = body_of(peer, fields)
        body.keep(5)
        flow = body.flow(server.channel, TIMEOUT)
        pumping = start(pump, flow)
        peer.send_pieces(wire, 2)
        outcome(pumping)
        assert body.content == content
        assert body.is_whole == (b"!" not in wire)
        assert body.settle()
        flow.forget()
        assert body.content is None
        assert not body.is_whole


def test_what_was_kept_as_it_passed_is_sent_again_and_the_rest_follows() -> None:
    with ScriptedPeer() as peer, ScriptedPeer() as first, ScriptedPeer() as second:
        body = body_of(peer, CHUNKED)
        body.keep(100)
        pumping = start(pump, body.flow(first.channel, TIMEOUT))
        peer.send(b"5\r\nhello\r\n3")
        assert first.read(10) == b"5\r\nhello\r\n"
        pumping.kill()
        assert (body.is_whole, body.content) == (True, None)
        peer.send(b"\r\nyou\r\n0\r\n\r\n")
        for sink in (second, first):
            pump(body.flow(sink.channel, TIMEOUT))
            assert (body.is_whole, body.content, body.moved) == (True, b"helloyou", 8)
        second.channel.close()
        assert second.read_all() == b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
        first.channel.close()
        assert first.read_all() == b"8\r\nhelloyou\r\n0\r\n\r\n"


def test_a_body_that_was_read_ahead_is_kept_from_there() -> None:
    with ScriptedPeer(readable=True) as peer:
        peer.send(b"hello")
        body = body_of(peer, "Content-Length: 5")
        body.fill(1000)
        body.keep(1000)
        assert (body.kept, peer.channel.pending) == (b"hello", 0)


def test_a_body_that_does_not_come_is_not_kept() -> None:
    with ScriptedPeer() as peer:
        peer.send(b"hel")
        body = body_of(peer, "Content-Length: 5", SOON)
        assert reason(body.keep, 5) == "request_body_timeout"
        assert body.kept is None
        peer.finish()
        assert reason(body_of(peer, "Content-Length: 5").keep, 5) == "client_gone"


# -- whole


def test_a_body_is_not_whole_once_chunk_framing_was_consumed() -> None:
    """Another flow would take data for framing: the next bytes would be read as something else."""
    with ScriptedPeer(readable=True) as peer, ScriptedPeer() as server:
        body = body_of(peer, CHUNKED, SOON)
        assert body.is_whole
        peer.send(b"5\r\n")
        with pytest.raises(Exception, match="timeout"):
            pump(body.flow(server.channel, TIMEOUT))
        assert body.moved == 0
        assert not body.is_whole


@settings(max_examples=300)
@given(
    data=st.binary(min_size=1, max_size=20),
    chunk=st.integers(1, 20),
    is_chunked=st.booleans(),
    limit=st.integers(0, 20),
    attempts=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=4),
)
def test_while_it_is_whole_whoever_comes_next_gets_all_of_it(
    data: bytes, chunk: int, is_chunked: bool, limit: int, attempts: list[tuple[int, bool]]
) -> None:
    """However many attempts break off, with sinks that are gone before they begin or take what has come."""
    wire, fields = data, f"Content-Length: {len(data)}\r\nExpect: 100-continue"
    if is_chunked:
        pieces = [data[at : at + chunk] for at in range(0, len(data), chunk)]
        wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        fields = CHUNKED
    sent = 0
    with ScriptedPeer() as peer, contextlib.ExitStack() as stack:
        body = body_of(peer, fields)
        body.keep(limit)
        for cut, is_gone in sorted(attempts):
            end = min(cut, len(wire))
            sink = stack.enter_context(ScriptedPeer())
            if is_gone:
                sink.close()
            pumping = start(broken_or_done, body.flow(sink.channel, TIMEOUT))
            peer.send(wire[sent:end])
            sent = end
            wait_until(partial(_is_still, pumping, peer.channel, sent))
            pumping.kill()
            if not body.is_whole:
                return
        peer.send(wire[sent:] + b"NEXT")
        sink = stack.enter_context(ScriptedPeer())
        pump(body.flow(sink.channel, TIMEOUT))
        sink.channel.close()
        received = sink.read_all()
        assert (ChunkedDecoder().feed(received)[0] if is_chunked else received) == data
        assert body.moved == len(data)
        assert body.content == (data if len(data) <= limit else None)
        assert body.settle()
        assert peer.channel.fill(4, TIMEOUT)
        assert peer.channel.peek() == b"NEXT"


def _is_still(pumping: gevent.Greenlet, channel: Channel, sent: int) -> bool:
    return pumping.dead or (channel.received == sent and channel.pending == 0)


def broken_or_done(flow: Flow) -> None:
    """What becomes of an attempt that nobody looks at."""
    with contextlib.suppress(Broken):
        pump(flow)


# -- settling


@pytest.mark.parametrize(
    ("fields", "wire", "settled"),
    [
        ("Content-Length: 5", b"helloNEXT", True),
        ("Content-Length: 5", b"hell", False),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\nNEXT", True),
        (CHUNKED, b"5\r\nhello\r\n0\r\n", False),
        (CHUNKED, b"", False),
        (CHUNKED, b"nonsense\r\n", False),
        (f"{CHUNKED}\r\nExpect: 100-continue", b"", False),
    ],
)
def test_a_body_nobody_wanted_is_settled_only_when_all_of_it_is_there(
    fields: str, wire: bytes, settled: bool
) -> None:
    with ScriptedPeer() as peer:
        peer.channel.unread(wire)
        assert body_of(peer, fields).settle() is settled
        if settled:
            assert peer.channel.peek() == b"NEXT"


def test_a_body_that_was_passed_on_in_part_is_not_settled() -> None:
    with ScriptedPeer(readable=True) as peer, ScriptedPeer() as server:
        peer.send(b"hell")
        body = body_of(peer, "Content-Length: 5", SOON)
        with pytest.raises(Exception, match="timeout"):
            pump(body.flow(server.channel, TIMEOUT))
        assert body.moved == 4
        assert not body.settle()
