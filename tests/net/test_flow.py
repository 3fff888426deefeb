"""Flows: bodies moved and framed anew, bounded in memory and time, and never complete when they are not."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Broken, Malformed
from sidecar.net.flow import FINISHED, Flow, pump
from sidecar.wire.body import ChunkedDecoder
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH
from tests.support.streams import TIMEOUT, Pair, ScriptedPeer, now, outcome, settle, start, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01
FRAMINGS = [LENGTH, CHUNKED, CLOSE]


def chunked(data: bytes, size: int = 1000, trailer: bytes = b"") -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n" + trailer + b"\r\n"


def framed(framing: int, data: bytes) -> bytes:
    return chunked(data) if framing == CHUNKED else data


def unframed(framing: int, wire: bytes) -> bytes:
    if framing != CHUNKED:
        return wire
    decoder = ChunkedDecoder()
    data, used = decoder.feed(wire)
    assert decoder.done
    assert used == len(wire)
    return data


def length_of(framing: int, data: bytes) -> int:
    return len(data) if framing == LENGTH else 0


def broken(call: Callable[..., Any], *args: Any) -> tuple[str, str]:
    with pytest.raises(Broken) as caught:
        call(*args)
    return caught.value.side, caught.value.what


# -- framings


@pytest.mark.parametrize("framing_in", FRAMINGS)
@pytest.mark.parametrize("framing_out", FRAMINGS)
@pytest.mark.parametrize("size", [0, 1, 5000, 700_000])
def test_every_framing_becomes_every_other(framing_in: int, framing_out: int, size: int) -> None:
    data = os.urandom(size)
    with Pair() as pair:
        wire = framed(framing_in, data)
        sending = start(pair.source.send_all if framing_in == CLOSE else pair.source.send, wire)
        reading = start(pair.sink.read_all)
        pair.sink.channel.hold(b"HEAD")
        flow = pair.flow(framing_in, length_of(framing_in, data), framing_out)
        assert pump(flow) == FINISHED
        outcome(sending)
        pair.sink.channel.shutdown_write()
        received = outcome(reading)
        assert received[:4] == b"HEAD"
        assert unframed(framing_out, received[4:]) == data
        assert flow.moved == size
        assert flow.done
        assert flow.broken is None


@pytest.mark.parametrize("framing_in", FRAMINGS)
def test_bytes_that_come_one_by_one_leave_one_by_one(framing_in: int) -> None:
    with Pair() as pair:
        flow = pair.flow(framing_in, length_of(framing_in, b"hello"), CLOSE)
        pumping = start(pump, flow)
        pair.source.send_pieces(framed(framing_in, b"hello"))
        if framing_in == CLOSE:
            pair.source.finish()
        assert outcome(pumping) == FINISHED
        assert pair.sink.read(5) == b"hello"


@settings(max_examples=60)
@given(
    data=st.binary(max_size=3000),
    chunk=st.integers(1, 400),
    cuts=st.lists(st.integers(0, 6000), max_size=6),
    framing_out=st.sampled_from(FRAMINGS),
)
def test_the_data_is_the_same_wherever_the_stream_is_cut(
    data: bytes, chunk: int, cuts: list[int], framing_out: int
) -> None:
    wire = chunked(data, chunk) + b"NEXT"
    bounds = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    with Pair() as pair:

        def send() -> None:
            for begin, end in zip(bounds, bounds[1:], strict=False):
                pair.source.send(wire[begin:end])
                gevent.idle()

        sending = start(send)
        assert pump(pair.flow(CHUNKED, 0, framing_out)) == FINISHED
        outcome(sending)
        pair.sink.channel.shutdown_write()
        assert unframed(framing_out, pair.sink.read_all()) == data
        assert pair.source.channel.fill(4, TIMEOUT)
        assert pair.source.channel.peek() == b"NEXT"


def test_what_is_pending_is_moved_first_and_the_rest_stays() -> None:
    with Pair() as pair:
        pair.source.channel.unread(b"hel")
        pair.source.send(b"loNEXT")
        assert pump(pair.flow(LENGTH, 5, LENGTH)) == FINISHED
        assert pair.sink.read(5) == b"hello"
        assert pair.source.channel.peek() == b"NEXT"


def test_trailers_are_passed_on_in_chunks_only_without_those_that_frame() -> None:
    wire = chunked(b"data", 4, b"X-Sum: 1\r\nContent-Length: 9\r\n")
    with Pair() as pair:
        pair.source.send(wire)
        pump(pair.flow(CHUNKED, 0, CHUNKED))
        assert pair.sink.read_until(b"0\r\nX-Sum: 1\r\n\r\n").startswith(b"4\r\ndata\r\n")
    with Pair() as pair:
        pair.source.send(wire)
        pump(pair.flow(CHUNKED, 0, CLOSE))
        pair.sink.channel.close()
        assert pair.sink.read_all() == b"data"


def test_a_head_leaves_before_the_body_comes() -> None:
    with Pair() as pair:
        pair.sink.channel.hold(b"HEAD")
        pumping = start(pump, pair.flow(LENGTH, 2, LENGTH))
        assert pair.sink.read(4) == b"HEAD"
        pair.source.send(b"ok")
        assert pair.sink.read(2) == b"ok"
        outcome(pumping)


def test_a_small_socket_buffer_only_slows_a_flow_down() -> None:
    data = os.urandom(300_000)
    with Pair(tcp=True, send_buffer=4096, receive_buffer=4096) as pair:
        sending = start(pair.source.send, data)
        pumping = start(pump, pair.flow(LENGTH, len(data), CHUNKED))
        received = b""
        while not pumping.dead or len(received) < len(data):
            received += pair.sink.sock.recv(700)
            if received.endswith(b"\r\n0\r\n\r\n"):
                break
        outcome(sending)
        assert outcome(pumping) == FINISHED
        assert unframed(CHUNKED, received) == data


def test_a_slow_sink_bounds_what_is_in_memory() -> None:
    size = 8 << 20
    with Pair(send_buffer=4096) as pair:
        sending = start(pair.source.send, b"x" * size)
        pumping = start(pump, pair.flow(LENGTH, size, LENGTH))
        settle(10)
        channel = pair.source.channel
        assert channel.received - pair.sink.channel.sent <= 262_144
        assert not sending.dead
        assert len(pair.sink.read(size)) == size
        outcome(sending)
        outcome(pumping)


def test_a_flow_that_waits_holds_no_buffer() -> None:
    size = 100_000
    pairs = [Pair() for _ in range(64)]
    tracemalloc.start()
    pumping = [start(pump, pair.flow(CLOSE, 0, CLOSE)) for pair in pairs]
    for pair in pairs:
        sending = start(pair.source.send, b"x" * size)
        pair.sink.read(size)
        outcome(sending)
    settle()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 64 * 262_144 / 2
    for pair, one in zip(pairs, pumping, strict=True):
        one.kill()
        pair.__exit__()


MOSTLY_FRAMING = b"1\r\nx\r\n" * 600


@pytest.mark.parametrize(("framing", "piece"), [(CLOSE, b"x" * 4096), (CHUNKED, MOSTLY_FRAMING)])
def test_a_busy_flow_lets_others_run_at_least_every_mebibyte(framing: int, piece: bytes) -> None:
    turns: list[int] = []
    with ScriptedPeer(tcp=True, readable=True) as source, ScriptedPeer(tcp=True) as sink:
        assert source.fill(piece) >= 3 << 19, "this kernel buffers too little to keep a flow busy"

        def count() -> None:
            while True:
                turns.append(source.channel.received)
                gevent.sleep(0)

        counting = start(count)
        pumping = start(pump, Flow(source.channel, sink.channel, framing, 0, CLOSE, TIMEOUT, TIMEOUT))
        last = -1
        while last != source.channel.received:
            last = source.channel.received
            gevent.sleep(SOON)
        counting.kill()
        pumping.kill()
    gaps = [after - before for before, after in zip(turns, turns[1:], strict=False)]
    assert max(gaps) <= (1 << 20) + 262_144


# -- what goes wrong


@pytest.mark.parametrize(
    ("framing", "wire"), [(LENGTH, b"hel"), (CHUNKED, b"5\r\nhel"), (CHUNKED, b"3\r\nhel\r\n")]
)
def test_a_source_that_ends_early_never_looks_complete(framing: int, wire: bytes) -> None:
    with Pair() as pair:
        pair.source.send(wire)
        pair.source.finish()
        flow = pair.flow(framing, 5, CHUNKED)
        assert broken(pump, flow) == ("source", "ended")
        assert isinstance(flow.broken, Broken)
        assert not flow.done
        pair.sink.channel.close()
        assert b"0\r\n\r\n" not in pair.sink.read_all()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_source_that_is_reset_never_looks_complete(framing: int) -> None:
    with ScriptedPeer(tcp=True) as source, ScriptedPeer() as sink:
        pumping = start(pump, Flow(source.channel, sink.channel, framing, 99, CHUNKED, TIMEOUT, TIMEOUT))
        source.send(framed(framing, b"hello")[:9])
        settle()
        source.reset()
        assert broken(outcome, pumping) == ("source", "reset")
        sink.channel.close()
        assert b"0\r\n\r\n" not in sink.read_all()


def test_chunks_against_the_grammar_are_refused() -> None:
    with Pair() as pair:
        pair.source.send(b"5\r\nhello\r\nXX\r\n")
        flow = pair.flow(CHUNKED, 0, CHUNKED)
        with pytest.raises(Malformed):
            pump(flow)
        assert isinstance(flow.broken, Malformed)


@pytest.mark.parametrize("framing", [CHUNKED, CLOSE])
def test_more_than_the_limit_is_too_large_and_what_is_the_limit_is_not(framing: int) -> None:
    for size, fits in ((10, True), (11, False)):
        with Pair() as pair:
            pair.source.send(framed(framing, b"x" * size))
            pair.source.finish()
            flow = pair.flow(framing, 0, CLOSE, limit=10)
            if fits:
                assert pump(flow) == FINISHED
            else:
                assert broken(pump, flow) == ("source", "too_large")


def test_a_sink_that_is_gone_breaks_the_flow() -> None:
    with Pair() as pair:
        pair.sink.close()
        pair.source.send(b"hello")
        assert broken(pump, pair.flow(LENGTH, 5, LENGTH)) == ("sink", "reset")


def test_each_side_has_its_deadline() -> None:
    with Pair() as pair:
        assert broken(pump, pair.flow(LENGTH, 5, LENGTH, timeout=SOON)) == ("source", "timeout")
    with Pair(send_buffer=4096) as pair:
        sending = start(pair.source.send, b"x" * 900_000)
        assert broken(pump, pair.flow(LENGTH, 900_000, LENGTH, timeout=SOON)) == ("sink", "timeout")
        sending.kill()


def test_bytes_that_come_in_time_move_the_deadline() -> None:
    with Pair() as pair:
        pumping = start(pump, pair.flow(LENGTH, 6, LENGTH, timeout=SOON * 20))
        began = now()
        for _ in range(6):
            pair.source.send(b"x")
            gevent.sleep(SOON * 4)
        assert outcome(pumping) == FINISHED
        assert now() - began > SOON * 20


def test_the_last_moment_counts_whatever_moves() -> None:
    with Pair() as pair:

        def drip() -> None:
            while True:
                pair.source.send(b"x")
                gevent.sleep(SOON / 8)

        dripping = start(drip)
        flow = pair.flow(CLOSE, 0, CLOSE)
        assert broken(pump, flow, None, None, None, False, 0, now() + SOON) == ("source", "timeout")
        dripping.kill()


@pytest.mark.parametrize("which", ["source", "sink"])
def test_a_channel_closed_under_a_flow_breaks_it(which: str) -> None:
    with Pair(send_buffer=4096) as pair:
        sending = start(pair.source.send, b"x" * 900_000)
        pumping = start(pump, pair.flow(LENGTH, 900_000, LENGTH))
        settle()
        getattr(pair, which).channel.close()
        side, what = broken(outcome, pumping)
        assert (side, what) == (which, "reset")
        sending.kill()


def test_a_killed_flow_leaves_no_waiter_behind() -> None:
    with Pair() as pair:
        pumping = start(pump, pair.flow(LENGTH, 5, LENGTH))
        settle()
        pumping.kill()
        pair.source.send(b"hello")
        assert pump(pair.flow(LENGTH, 5, LENGTH)) == FINISHED


# -- a body that is kept as it passes


def cut_after(pair: Pair, flow: Flow, wire: bytes) -> None:
    """Let so much of the body come, and end there."""
    channel = pair.source.channel
    before = channel.received
    pumping = start(pump, flow)
    pair.source.send(wire)
    wait_until(lambda: channel.received == before + len(wire) and (pumping.dead or channel.pending == 0))
    pumping.kill()


@settings(max_examples=100)
@given(
    data=st.binary(max_size=2000),
    framing_in=st.sampled_from([LENGTH, CHUNKED]),
    framing_out=st.sampled_from(FRAMINGS),
    cuts=st.lists(st.integers(0, 3000), max_size=3),
)
def test_a_body_that_was_kept_reaches_whoever_comes_last_whole(
    data: bytes, framing_in: int, framing_out: int, cuts: list[int]
) -> None:
    """However much of it has come when each attempt before it breaks off."""
    trailer = b"X-Sum: 1\r\n" if framing_in == CHUNKED else b""
    wire = chunked(data, 300, trailer) if trailer else data
    bounds = sorted({min(cut, len(wire)) for cut in cuts} | {0})
    with Pair() as pair:
        flow = pair.flow(framing_in, length_of(framing_in, data), framing_out, keep=2000)
        for begin, end in itertools.pairwise(bounds):
            cut_after(pair, flow, wire[begin:end])
            pair.sink.channel.close()
            pair.sink.close()
            pair.sink = ScriptedPeer()
            if end != bounds[-1]:
                flow.again(pair.sink.channel, framing_out, TIMEOUT)
        pair.sink.channel.hold(b"HEAD")
        flow.again(pair.sink.channel, framing_out, TIMEOUT)
        pair.source.send(wire[bounds[-1] :])
        reading = start(pair.sink.read_all)
        assert pump(flow) == FINISHED
        pair.sink.channel.shutdown_write()
        received = outcome(reading)
        assert received[:4] == b"HEAD"
        assert unframed(framing_out, received[4:]) == data
        assert received.endswith(b"\r\nX-Sum: 1\r\n\r\n") == (framing_out == CHUNKED and trailer != b"")
        assert (flow.moved, flow.whole, flow.kept) == (len(data), True, data)
        assert flow.content == (None if trailer else data)


def test_a_sink_that_takes_a_part_gets_nothing_twice_and_the_next_one_all_of_it() -> None:
    data = os.urandom(300_000)
    with Pair(send_buffer=4096) as pair, ScriptedPeer() as other:
        flow = pair.flow(LENGTH, len(data), CHUNKED, keep=len(data))
        sending = start(pair.source.send, data)
        pumping = start(pump, flow)
        got = pair.sink.read(10_000)
        pair.sink.close()
        assert broken(outcome, pumping) == ("sink", "reset")
        assert flow.whole
        assert flow.content is None
        flow.again(other.channel, CHUNKED, TIMEOUT)
        reading = start(other.read_all)
        assert pump(flow) == FINISHED
        outcome(sending)
        other.channel.shutdown_write()
        assert unframed(CHUNKED, outcome(reading)) == data
        assert data.startswith(got.partition(b"\r\n")[2][:4000])


def test_what_is_more_than_may_be_kept_is_not_kept() -> None:
    with Pair() as pair:
        flow = pair.flow(CHUNKED, 0, CHUNKED, keep=5)
        assert flow.kept == b""
        cut_after(pair, flow, b"5\r\nhello\r\n")
        assert (flow.whole, flow.kept) == (True, b"hello")
        cut_after(pair, flow, b"1\r\n!\r\n")
        assert (flow.whole, flow.kept, flow.content) == (False, None, None)


def test_what_is_forgotten_is_not_whole_any_more() -> None:
    with Pair() as pair:
        flow = pair.flow(LENGTH, 10, LENGTH, keep=10)
        flow.forget()
        assert flow.whole
        flow = pair.flow(LENGTH, 10, LENGTH, keep=10)
        cut_after(pair, flow, b"hello")
        assert (flow.whole, flow.kept) == (True, b"hello")
        flow.forget()
        assert (flow.whole, flow.kept, flow.content) == (False, None, None)


@pytest.mark.parametrize("framing_in", [LENGTH, CLOSE])
@pytest.mark.parametrize("is_too_much", [False, True])
def test_what_a_sink_did_not_take_is_only_among_what_was_kept(framing_in: int, is_too_much: bool) -> None:
    """Once that is gone, another flow would take the middle of the body for its beginning."""
    with Pair() as pair, ScriptedPeer() as other:
        flow = pair.flow(framing_in, 10, LENGTH, keep=5)
        pair.sink.close()
        pair.source.send(b"hello")
        assert broken(pump, flow) == ("sink", "reset")
        assert (flow.whole, flow.kept) == (True, b"hello")
        flow.again(other.channel, LENGTH, TIMEOUT)
        assert (flow.whole, pair.source.channel.pending) == (True, 0)
        if is_too_much:
            cut_after(pair, flow, b"world")
            assert other.read(10) == b"helloworld"
        else:
            flow.forget()
        assert (flow.whole, flow.kept) == (False, None)


@pytest.mark.parametrize("limit", [-1, 5])
def test_all_of_a_body_is_known_when_it_was_read_whatever_the_sink_took(limit: int) -> None:
    with Pair() as pair:
        flow = pair.flow(CHUNKED, 0, LENGTH, keep=5, limit=limit)
        pair.sink.close()
        pair.source.send(b"5\r\nhello\r\n0\r\n\r\n")
        assert flow.content is None
        assert broken(pump, flow) == ("sink", "reset")
        assert flow.content == b"hello"


def test_a_body_that_was_refused_for_its_size_is_no_content() -> None:
    with Pair() as pair:
        flow = pair.flow(LENGTH, 5, LENGTH, keep=5, limit=4)
        pair.source.send(b"hello")
        assert broken(pump, flow) == ("source", "too_large")
        assert flow.content is None


def test_a_source_that_was_closed_meanwhile_breaks_the_flow_that_begins_anew() -> None:
    with Pair() as pair, ScriptedPeer() as other:
        flow = pair.flow(LENGTH, 10, LENGTH, keep=10)
        cut_after(pair, flow, b"hello")
        pair.source.channel.close()
        flow.again(other.channel, LENGTH, TIMEOUT)
        assert broken(pump, flow) == ("source", "reset")
