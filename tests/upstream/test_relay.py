"""Response bodies and tunnels on their way, and what is left of the connection afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gevent.event import Event

from sidecar.errors import Failure
from sidecar.message import Attempt
from sidecar.net.channel import Channel
from sidecar.net.flow import Flow
from sidecar.upstream.pool import Connection
from sidecar.upstream.relay import Relay, Tunnel
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH, Limits, ResponseHead
from tests.support.streams import (
    TIMEOUT,
    FakeServer,
    Script,
    ScriptedPeer,
    ServerSide,
    now,
    outcome,
    settle,
    start,
    wait_until,
)
from tests.support.upstreams import SOON, server

pytestmark = pytest.mark.usefixtures("no_leaks")

LENGTH_5 = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_END = b"HTTP/1.1 200 OK\r\n\r\n"


class Case:
    """A connection to a server the test plays, and a client's channel."""

    def __init__(self, script: Script = lambda side: None) -> None:
        self.server = FakeServer(script)
        self.one = server("app-1", self.server.address)
        self.pool = self.one.pool
        self.one.take(now())
        self.connection: Connection = self.pool.dial(TIMEOUT)
        wait_until(lambda: self.server.connections)
        self.side: ServerSide = self.server.connections[0]
        self.client = ScriptedPeer(tcp=True, readable=True)
        self.attempt = Attempt("app-1")
        self.began = now()
        self.bound = 0.0

    def elapsed(self) -> float:
        return now() - self.began

    def is_over(self) -> bool:
        return self.bound > 0.0 and self.elapsed() >= self.bound - 0.002

    def relay(self, head: bytes) -> Relay:
        parsed = ResponseHead(Limits())
        assert parsed.feed(head) == len(head)
        relay = Relay(parsed, self.connection, self.one, self.attempt, self)
        relay.read_timeout = TIMEOUT
        return relay

    def upload(self, length: int) -> Flow:
        return Flow(self.client.channel, self.connection.channel, LENGTH, length, LENGTH, TIMEOUT, TIMEOUT)

    @property
    def rests(self) -> bool:
        return self.pool.pool.items == [self.connection]


@pytest.fixture
def case() -> Iterator[Case]:
    with closing(Case()) as made:
        yield made


@contextmanager
def closing(made: Case) -> Iterator[Case]:
    try:
        yield made
        assert made.one.state.active == 0
    finally:
        made.client.__exit__()
        made.connection.close()
        made.pool.close()
        made.server.close()
        settle()


def failure(relay: Relay, client: Channel, framing: int = LENGTH, write_timeout: float = TIMEOUT) -> str:
    with pytest.raises(Failure) as caught:
        relay.send_to(client, framing, write_timeout)
    return caught.value.reason


# -- relays


def test_a_body_that_was_moved_completely_gives_its_connection_back(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    assert relay.is_whole_exchange
    case.side.send(b"hello")
    case.client.channel.hold(b"HEAD")
    relay.send_to(case.client.channel, LENGTH, TIMEOUT)
    assert case.client.read(9) == b"HEADhello"
    assert relay.moved == 5
    assert case.attempt.total >= 0
    assert case.attempt.reason == ""
    assert case.rests
    relay.close()
    assert case.rests


@pytest.mark.parametrize(
    "head", [UNTIL_END, LENGTH_5.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")]
)
def test_a_connection_that_the_server_ends_is_not_given_back(case: Case, head: bytes) -> None:
    case.side.send(b"hello")
    case.side.finish()
    case.relay(head).send_to(case.client.channel, CHUNKED if head is UNTIL_END else LENGTH, TIMEOUT)
    assert not case.rests
    wait_until(lambda: not case.server.open_connections)


def test_bytes_behind_the_body_keep_the_connection_from_the_pool(case: Case) -> None:
    case.side.send(b"helloHTTP/1.1 200 OK\r\n\r\n")
    case.relay(LENGTH_5).send_to(case.client.channel, LENGTH, TIMEOUT)
    assert case.client.read(5) == b"hello"
    assert not case.rests


def test_a_body_nobody_sends_closes_its_connection(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    relay.close()
    relay.close()
    assert not case.rests
    wait_until(lambda: not case.server.open_connections)


@pytest.mark.parametrize(
    ("head", "data", "reason"),
    [
        (LENGTH_5, b"hell", "response_incomplete"),
        (CHUNKS, b"5\r\nhello\r\n", "response_incomplete"),
        (CHUNKS, b"zz\r\n", "malformed_response"),
    ],
)
def test_a_body_that_ends_early_or_wrong_is_a_failure_of_the_server(
    case: Case, head: bytes, data: bytes, reason: str
) -> None:
    relay = case.relay(head)
    case.side.send(data)
    case.side.finish()
    assert failure(relay, case.client.channel, CHUNKED) == reason
    assert case.attempt.reason == reason
    assert case.attempt.total >= 0
    relay.close()
    assert not case.rests
    wait_until(lambda: not case.server.open_connections)


@pytest.mark.parametrize(
    ("read", "bound", "reason"),
    [
        (SOON, 0.0, "upstream_read_timeout"),
        (SOON, 60.0, "upstream_read_timeout"),
        (TIMEOUT, SOON, "response_timeout"),
    ],
)
def test_each_way_to_take_too_long_has_its_reason(case: Case, read: float, bound: float, reason: str) -> None:
    relay = case.relay(LENGTH_5)
    relay.read_timeout = read
    case.bound = bound
    relay.until = case.began + bound if bound else 0.0
    assert failure(relay, case.client.channel) == reason
    relay.close()


def test_a_client_that_does_not_read_is_a_write_timeout() -> None:
    with closing(Case()) as case:
        case.client.__exit__()
        case.client = ScriptedPeer(tcp=True, send_buffer=4096, receive_buffer=4096)
        relay = case.relay(LENGTH_5.replace(b"5", b"9000000"))
        sending = start(case.side.send, b"x" * 9_000_000)
        assert failure(relay, case.client.channel, LENGTH, SOON) == "client_write_timeout"
        sending.kill()
        relay.close()


def test_a_client_that_leaves_is_gone(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    sending = start(relay.send_to, case.client.channel, LENGTH, TIMEOUT)
    settle()
    case.client.close()
    with pytest.raises(Failure) as caught:
        outcome(sending)
    assert caught.value.reason == "client_gone"
    relay.close()


def test_a_relay_that_is_killed_closes_its_connection(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    sending = start(relay.send_to, case.client.channel, LENGTH, TIMEOUT)
    settle()
    sending.kill()
    relay.close()
    assert not case.rests
    wait_until(lambda: not case.server.open_connections)


# -- relays of early answers


def test_the_rest_of_an_upload_goes_on_and_a_complete_one_gives_the_connection_back(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    relay.upload = case.upload(10)
    assert not relay.is_whole_exchange
    sending = start(relay.send_to, case.client.channel, LENGTH, TIMEOUT)
    case.client.send(b"0123456789")
    wait_until(lambda: relay.upload is not None and relay.upload.done)
    case.side.send(b"hello")
    outcome(sending)
    assert case.client.read(5) == b"hello"
    assert case.rests


@pytest.mark.parametrize("sent", [b"", b"0123"])
def test_an_upload_that_is_not_over_costs_the_connection_but_not_the_answer(case: Case, sent: bytes) -> None:
    relay = case.relay(LENGTH_5)
    relay.upload = case.upload(10)
    case.client.send(sent)
    sending = start(relay.send_to, case.client.channel, LENGTH, TIMEOUT)
    settle()
    case.side.send(b"hello")
    outcome(sending)
    assert case.client.read(5) == b"hello"
    assert not case.rests


def test_an_upload_that_the_client_frames_wrong_costs_only_itself(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    relay.upload = Flow(case.client.channel, case.connection.channel, CHUNKED, 0, CHUNKED, TIMEOUT, TIMEOUT)
    case.client.send(b"zz\r\n")
    sending = start(relay.send_to, case.client.channel, LENGTH, TIMEOUT)
    wait_until(lambda: relay.upload is not None and relay.upload.broken)
    case.side.send(b"hello")
    outcome(sending)
    assert case.client.read(5) == b"hello"
    assert not case.rests


def test_a_client_that_leaves_during_an_early_answer_is_gone(case: Case) -> None:
    relay = case.relay(LENGTH_5)
    relay.upload = case.upload(10)
    sending = start(relay.send_to, case.client.channel, LENGTH, TIMEOUT)
    settle()
    case.client.close()
    with pytest.raises(Failure) as caught:
        outcome(sending)
    assert caught.value.reason == "client_gone"
    relay.close()


# -- tunnels


def tunnel(case: Case, idle: float = TIMEOUT) -> Tunnel:
    return Tunnel(case.connection, case.one, case.attempt, idle, case)


def by_hand(side: ServerSide) -> None:
    """Leave the connection to the test."""
    Event().wait()


def test_a_tunnel_sends_what_is_held_and_then_every_byte_both_ways() -> None:
    with closing(Case(by_hand)) as case:
        _converse(case)


def _converse(case: Case) -> None:
    case.client.channel.hold(b"HEAD")
    case.client.channel.unread(b"early")
    case.connection.channel.unread(b"first")
    it = tunnel(case)
    assert it.is_whole_exchange
    moving = start(it.send_to, case.client.channel, CLOSE, TIMEOUT)
    assert case.client.read(9) == b"HEADfirst"
    assert case.side.sock.recv(99) == b"early"
    case.client.finish()
    case.side.send(b"last")
    settle()
    assert not moving.dead
    case.side.finish()
    outcome(moving)
    assert case.client.read(4) == b"last"
    assert it.moved == 9
    assert case.attempt.reason == ""
    assert case.attempt.total >= 0
    it.close()
    assert not case.rests


@pytest.mark.parametrize("who", ["client", "side"])
def test_a_reset_ends_a_tunnel(case: Case, who: str) -> None:
    it = tunnel(case)
    moving = start(it.send_to, case.client.channel, CLOSE, TIMEOUT)
    settle()
    getattr(case, who).reset()
    outcome(moving)
    assert case.attempt.reason == "tunnel_reset"
    it.close()


def test_silence_in_both_directions_ends_a_tunnel(case: Case) -> None:
    it = tunnel(case, SOON)
    it.send_to(case.client.channel, CLOSE, TIMEOUT)
    assert case.attempt.reason == "tunnel_idle"
    it.close()
