"""Pumping: one flow or two, with channels to look at; early answers and tunnels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from sidecar.errors import Broken
from sidecar.net.flow import FINISHED, STOPPED, Flow, pump
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH
from tests.support.streams import TIMEOUT, Pair, ScriptedPeer, now, outcome, settle, start, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01


def broken(call: Callable[..., Any], *args: Any) -> tuple[str, str]:
    with pytest.raises(Broken) as caught:
        call(*args)
    return caught.value.side, caught.value.what


# -- whole or not


def test_a_flow_is_whole_until_bytes_have_left_the_source() -> None:
    with Pair() as pair:
        pair.sink.close()
        pair.source.send(b"hello")
        flow = pair.flow(LENGTH, 5, LENGTH)
        assert broken(pump, flow) == ("sink", "reset")
        assert flow.whole
        with ScriptedPeer() as other:
            again = Flow(pair.source.channel, other.channel, LENGTH, 5, LENGTH, TIMEOUT, TIMEOUT)
            assert pump(again) == FINISHED
            assert other.read(5) == b"hello"
            assert not again.whole


def test_a_chunked_flow_is_not_whole_once_its_data_was_decoded_in_place() -> None:
    with Pair() as pair:
        pair.sink.close()
        pair.source.send(b"5\r\nhello\r\n5\r\n")
        flow = pair.flow(CHUNKED, 0, CHUNKED)
        assert broken(pump, flow) == ("sink", "reset")
        assert not flow.whole


def test_a_chunked_flow_is_not_whole_once_its_framing_was_read() -> None:
    with Pair() as pair:
        pair.source.send(b"5\r\n")
        flow = pair.flow(CHUNKED, 0, CHUNKED, timeout=SOON)
        assert broken(pump, flow) == ("source", "timeout")
        assert flow.moved == 0
        assert not flow.whole


# -- two flows, and channels to look at


def test_stop_ends_the_pump_as_soon_as_the_server_answers() -> None:
    with Pair() as pair:
        flow = pair.flow(LENGTH, 10, LENGTH)
        pumping = start(pump, flow, None, pair.sink.channel)
        pair.source.send(b"hello")
        assert pair.sink.read(5) == b"hello"
        pair.sink.send(b"no")
        assert outcome(pumping) == STOPPED
        assert not flow.done
        pair.source.send(b"world")
        assert pump(flow) == FINISHED
        assert pair.sink.read(5) == b"world"


def test_stop_sees_what_was_read_already_and_is_not_fooled_by_what_was_taken() -> None:
    with Pair() as pair:
        pair.sink.channel.unread(b"answer")
        assert pump(pair.flow(LENGTH, 5, LENGTH), None, pair.sink.channel) == STOPPED
        pair.sink.channel.skip(6)
        pair.sink.send(b"x" * 16384)
        assert len(pair.sink.channel.read(16384, TIMEOUT)) == 16384
        pumping = start(pump, pair.flow(LENGTH, 5, LENGTH), None, pair.sink.channel)
        pair.source.send(b"hello")
        assert outcome(pumping) == FINISHED


def test_watch_breaks_the_sink_when_the_client_leaves() -> None:
    with Pair() as pair:
        pumping = start(pump, pair.flow(CLOSE, 0, CLOSE), None, None, pair.sink.channel)
        settle()
        assert not pumping.dead
        pair.sink.close()
        assert broken(outcome, pumping) == ("sink", "ended")


def test_a_leading_flow_ends_the_pump_and_the_other_may_fail() -> None:
    with Pair() as pair:
        upload, answer = pair.flow(LENGTH, 99, LENGTH), pair.back(LENGTH, 4, LENGTH)
        pumping = start(pump, upload, answer, None, None, True)
        pair.source.send(b"hel")
        pair.source.finish()
        settle()
        assert isinstance(upload.broken, Broken)
        assert not pumping.dead
        pair.sink.send(b"nope")
        assert outcome(pumping) == FINISHED
        assert answer.done
        assert pair.source.read(4) == b"nope"


def test_a_leading_flow_that_fails_fails_the_pump() -> None:
    with Pair() as pair:
        upload, answer = pair.flow(LENGTH, 99, LENGTH), pair.back(LENGTH, 4, LENGTH)
        pumping = start(pump, upload, answer, None, None, True)
        pair.sink.send(b"no")
        pair.sink.finish()
        assert broken(outcome, pumping) == ("source", "ended")
        assert answer.broken is not None


def test_the_other_flow_that_takes_too_long_does_not_stop_the_leading_one() -> None:
    with Pair() as pair:
        upload, answer = pair.flow(LENGTH, 99, LENGTH, timeout=SOON), pair.back(LENGTH, 2, LENGTH)
        pumping = start(pump, upload, answer, None, None, True)
        wait_until(lambda: upload.broken)
        pair.sink.send(b"ok")
        assert outcome(pumping) == FINISHED


def test_a_tunnel_ends_each_direction_on_its_own() -> None:
    with Pair() as pair:
        up, down = pair.flow(CLOSE, 0, CLOSE), pair.back(CLOSE, 0, CLOSE)
        up.half_close = down.half_close = True
        pumping = start(pump, up, down)
        pair.source.send(b"up")
        pair.source.finish()
        assert pair.sink.read_all() == b"up"
        pair.sink.send(b"down")
        pair.sink.finish()
        assert pair.source.read_all() == b"down"
        assert outcome(pumping) == FINISHED
        assert (up.moved, down.moved) == (2, 4)


def test_a_tunnel_moves_both_ways_while_both_sides_only_write() -> None:
    size = 3_000_000
    with Pair(send_buffer=4096) as pair:
        up, down = pair.flow(CLOSE, 0, CLOSE), pair.back(CLOSE, 0, CLOSE)
        up.half_close = down.half_close = True
        pumping = start(pump, up, down)

        def talk(peer: ScriptedPeer) -> None:
            peer.send(b"x" * size)
            peer.finish()

        talking = [start(talk, pair.source), start(talk, pair.sink)]
        hearing = [start(pair.source.read_all), start(pair.sink.read_all)]
        assert [len(outcome(one)) for one in hearing] == [size, size]
        assert outcome(pumping) == FINISHED
        for one in talking:
            outcome(one)


def test_a_tunnel_that_is_silent_both_ways_ends_and_a_word_in_one_keeps_it() -> None:
    with Pair() as pair:
        up, down = (
            Flow(a.channel, b.channel, CLOSE, 0, CLOSE, 0, 0)
            for a, b in ((pair.source, pair.sink), (pair.sink, pair.source))
        )
        pumping = start(pump, up, down, None, None, False, SOON * 80)
        until = now() + SOON * 120
        while now() < until:
            pair.sink.send(b"x")
            gevent.sleep(SOON * 2)
        assert not pumping.dead
        assert broken(outcome, pumping) == ("source", "timeout")
