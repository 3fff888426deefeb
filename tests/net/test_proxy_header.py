"""A PROXY header at the beginning of a connection, however it comes."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import Broken, Malformed
from sidecar.net.proxy_header import read_proxy_header
from sidecar.wire.proxy_protocol import LOCAL, Result, render
from tests.support.streams import TIMEOUT, ScriptedPeer, now, outcome, start

pytestmark = pytest.mark.usefixtures("no_leaks")

HEADER = render(2, ("192.0.2.7", 4321), ("198.51.100.1", 443))
SOURCE = ("192.0.2.7", 4321)


def read(peer: ScriptedPeer, is_required: bool = True, timeout: float = TIMEOUT) -> Any:
    return start(read_proxy_header, peer.channel, is_required, timeout, now)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_follows_stays(size: int):
    with ScriptedPeer() as peer:
        reading = read(peer)
        peer.send_pieces(HEADER + b"rest", size)
        found: Result = outcome(reading)
        assert found.source == SOURCE
        assert peer.channel.read(10, TIMEOUT) == b"rest"[: peer.channel.received - len(HEADER)]


def test_one_that_says_nothing():
    with ScriptedPeer() as peer:
        peer.send(LOCAL[1])
        assert outcome(read(peer)).source is None


def test_none_where_it_may_be_missing():
    with ScriptedPeer() as peer:
        peer.send(b"GET /")
        assert outcome(read(peer, is_required=False)) is None
        assert peer.channel.peek() == b"GET /"


@pytest.mark.parametrize(
    ("data", "is_required", "rule"),
    [
        (b"GET /", True, "proxy_missing"),
        (b"PROXY TCP9 \r\n", True, "proxy_bad_line"),
        (b"PROXY TCP9 \r\n", False, "proxy_bad_line"),
    ],
)
def test_refused(data: bytes, is_required: bool, rule: str):
    with ScriptedPeer() as peer:
        peer.send(data)
        with pytest.raises(Malformed, match=rule):
            outcome(read(peer, is_required))


def test_its_time_is_for_the_whole_of_it():
    with ScriptedPeer() as peer:
        peer.send(HEADER[:10])
        with pytest.raises(Broken) as caught:
            outcome(read(peer, timeout=0.05))
        assert (caught.value.side, caught.value.what) == ("source", "timeout")


@pytest.mark.parametrize("part", [b"", HEADER[:10]])
def test_a_connection_that_ends_before(part: bytes):
    with ScriptedPeer() as peer:
        peer.send_all(part)
        with pytest.raises(Broken) as caught:
            outcome(read(peer))
        assert caught.value.what == "ended"
