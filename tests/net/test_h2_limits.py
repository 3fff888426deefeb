"""Attacks on HTTP/2: each is cut off by a rule that has a name, is counted, and costs bounded memory."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import gevent
import pytest

from sidecar.errors import Malformed
from sidecar.net.h2 import PREFACE, Stream
from sidecar.wire.head import Limits, RequestHead
from tests.support import http2
from tests.support.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GET,
    HEADERS,
    PING,
    POST,
    PRIORITY,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Served,
    frame,
    number,
    settings,
)
from tests.support.streams import TIMEOUT, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


class Waiting:
    """A handler whose requests wait until they are let go, or their clients leave."""

    def __init__(self, leaves: bool = True) -> None:
        self._leaves = leaves
        self.began = 0
        self.most = 0  # at one time
        self.active = 0
        self.go = gevent.event.Event()

    def __call__(self, stream: Stream) -> None:
        self.began += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            if stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT) != 0:
                return
            while not self.go.wait(0.01):
                if self._leaves and stream.peer_finished:
                    return
            stream.send(http2.HI, TIMEOUT)
            stream.finish()
        finally:
            self.active -= 1


def _rapid_reset(client: Served) -> bytes:
    """CVE-2023-44487: requests that are given up as soon as they are sent."""
    return b"".join(client.headers(n) + number(RST_STREAM, n, 8) for n in range(1, 2001, 2))


def _made_you_reset(frame_of: Callable[[int], bytes]) -> Callable[[Served], bytes]:
    """CVE-2025-8671: requests that the server is made to give up."""

    def make(client: Served) -> bytes:
        return b"".join(client.headers(n, POST, False) + frame_of(n) for n in range(1, 2001, 2))

    return make


def _behind_the_end(client: Served) -> bytes:
    return b"".join(client.headers(n) + frame(DATA, 0, n, b"x") for n in range(1, 2001, 2))


def _mismatches(client: Served) -> bytes:
    fields = [*POST, ("content-length", "1")]
    return b"".join(client.headers(n, fields, False) + frame(DATA, 0, n, b"xx") for n in range(1, 2001, 2))


def _bad_trailers(client: Served) -> bytes:
    bad = [(":path", "/")]
    return b"".join(client.headers(n, POST, False) + client.headers(n, bad) for n in range(1, 2001, 2))


def _malformed(client: Served) -> bytes:
    return b"".join(client.headers(n, [*GET, ("bad name", "x")]) for n in range(1, 2001, 2))


def _bombs(client: Served) -> bytes:
    """One large entry of the table, and thousands of references to it in each head; each one gets 431."""
    head = client.headers(1, [*GET, ("x-bomb", "a" * 3000)])
    bomb = client.block(GET) + b"\xbe" * 2000
    bombs = [frame(HEADERS, END_HEADERS | END_STREAM, n, bomb) for n in range(3, 1001, 2)]
    return head + b"".join(bombs)


def _overruns(client: Served) -> bytes:
    full = frame(DATA, 0, 0, bytes(16384))
    return b"".join(
        client.headers(n, POST, False) + (full[:5] + struct.pack("!I", n) + full[9:]) * 5
        for n in range(1, 601, 2)
    )


def _continuations(client: Served) -> bytes:
    """CVE-2024-27316: a field block without an end."""
    return frame(HEADERS, 0, 1, client.block(GET)) + frame(CONTINUATION, 0, 1, b"\x40\x01a\x01b" * 3000) * 100


def _empty_continuations(client: Served) -> bytes:
    return frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 1000


def _large_continuations(client: Served) -> bytes:
    """Frames that are few, and a block that is large."""
    return frame(HEADERS, 0, 1, bytes(16384)) + frame(CONTINUATION, 0, 1, bytes(16384)) * 8


def _on_stream(data: bytes, count: int = 3000) -> Callable[[Served], bytes]:
    return lambda client: client.headers(1, POST, False) + data * count


def _late_data(client: Served) -> bytes:
    return client.headers(1, POST, False) + number(RST_STREAM, 1, 8) + frame(DATA, 0, 1, b"x") * 3000


ATTACKS: dict[str, tuple[Callable[[Served], bytes], str]] = {
    "rapid reset": (_rapid_reset, "rapid_reset"),
    "made you reset: an empty window update": (
        _made_you_reset(lambda n: number(WINDOW_UPDATE, n, 0)),
        "empty_window_update",
    ),
    "made you reset: a window that overflows": (
        _made_you_reset(lambda n: number(WINDOW_UPDATE, n, 0x7FFFFFFF)),
        "window_overflow",
    ),
    "made you reset: bytes behind the end": (_behind_the_end, "data_after_end"),
    "made you reset: a length that is not true": (_mismatches, "content_length_mismatch"),
    "made you reset: bad trailers": (_bad_trailers, "malformed_trailers"),
    "made you reset: more than the window": (_overruns, "window_overrun"),
    "heads that break the rules": (_malformed, "malformed_requests"),
    "heads that are too large": (_bombs, "malformed_requests"),
    "a field block without an end": (_continuations, "continuation_flood"),
    "empty continuations": (_empty_continuations, "continuation_flood"),
    "a field block that is too large": (_large_continuations, "continuation_flood"),
    "settings": (lambda client: settings((http2.MAX_STREAMS, 1)) * 3000, "settings_flood"),
    "settings that move every window": (
        lambda client: (
            b"".join(client.headers(n, POST, False) for n in range(1, 200, 2))
            + (settings((http2.WINDOW, 1)) + settings((http2.WINDOW, 2))) * 1000
        ),
        "settings_flood",
    ),
    "acknowledgements": (lambda client: frame(SETTINGS, ACK) * 3000, "settings_flood"),
    "pings": (lambda client: frame(PING, payload=bytes(8)) * 3000, "ping_flood"),
    "answers to no ping": (lambda client: frame(PING, ACK, payload=bytes(8)) * 3000, "ping_flood"),
    "priorities": (lambda client: frame(PRIORITY, 0, 1, bytes(5)) * 3000, "control_flood"),
    "priority updates": (lambda client: frame(0x10, payload=bytes(4) + b"u=1") * 3000, "control_flood"),
    "frames that nobody knows": (lambda client: frame(0x77) * 3000, "control_flood"),
    "empty frames": (_on_stream(frame(DATA, 0, 1)), "empty_frames"),
    "frames of padding alone": (_on_stream(frame(DATA, http2.PADDED, 1, b"\1\0")), "empty_frames"),
    "window updates by 1": (_on_stream(number(WINDOW_UPDATE, 1, 1)), "window_flood"),
    "window updates of the connection by 1": (_on_stream(number(WINDOW_UPDATE, 0, 1)), "window_flood"),
    "window updates of streams that are gone": (
        lambda c: c.headers(1) + number(RST_STREAM, 1, 8) + number(WINDOW_UPDATE, 1, 1000) * 3000,
        "window_flood",
    ),
    "bytes for a stream that is gone": (_late_data, "data_after_end"),
    "more streams than allowed": (
        lambda client: b"".join(client.headers(n) for n in range(1, 6001, 2)),
        "too_many_streams",
    ),
}


@pytest.mark.parametrize(("attack", "rule"), ATTACKS.values(), ids=ATTACKS.keys())
def test_it_is_cut_off(attack: Callable[[Served], bytes], rule: str) -> None:
    waiting = Waiting()
    with Served(waiting, max_streams=100 if rule == "too_many_streams" else 10_000) as client:
        data = attack(client)
        sender = gevent.spawn(_send, client, data)
        assert client.ended_with() == (ENHANCE_YOUR_CALM, rule)
        waiting.go.set()
        assert client.refused == rule
        sender.kill()


def _send(client: Served, data: bytes) -> None:
    # The connection may be over before all of it is sent.
    with contextlib.suppress(OSError):
        client.send(data)


def test_who_resets_streams_that_still_work_gets_no_more_of_them() -> None:
    """A stream counts until its work has ended, not until its client is bored."""
    waiting = Waiting(leaves=False)
    with Served(waiting, max_streams=10) as client:
        for n in range(1, 101, 2):
            client.send(client.headers(n))
            settle(1)
            client.send(number(RST_STREAM, n, 8))
        assert client.is_alive()
        assert waiting.most == 10
        assert client.reset_with(99) == REFUSED_STREAM
        waiting.go.set()
        wait_until(lambda: not client.multiplex.streams)


def test_one_stream_too_many_is_refused_and_may_be_asked_again() -> None:
    waiting = Waiting()
    with Served(waiting, max_streams=2) as client:
        for n in (1, 3, 5):
            client.ask(n)
        assert client.reset_with(5) == REFUSED_STREAM
        assert client.is_alive()
        waiting.go.set()
        assert client.answer(1).status == client.answer(3).status == 200
        client.ask(7)
        assert client.answer(7).status == 200


def test_who_works_may_reset_and_ping_as_he_goes() -> None:
    """Thousands of resets and PINGs between requests that are answered are nobody's attack."""
    with Served() as client:
        for n in range(1, 4001, 4):
            client.send(client.headers(n), client.headers(n + 2), number(RST_STREAM, n + 2, 8))
            client.send(frame(PING, payload=bytes(8)) * 2)
            client.until(DATA, n)
        assert client.is_alive()


# -- heads that are too large


def refuse(stream: Stream) -> None:
    """Answer with the status that a head deserves."""
    try:
        stream.read_head(RequestHead(Limits(2000, 20)), TIMEOUT, TIMEOUT)
        status = 200
    except Malformed as malformed:
        status = malformed.status
    stream.send(b"HTTP/1.1 %d \r\nContent-Length: 0\r\n\r\n" % status, TIMEOUT)
    stream.finish()


HEADS = {
    "long": [("x", "a" * 6000)],
    "many": [(f"x{n}", "a") for n in range(40)],
    "cookies": [("cookie", "a" * 100)] * 50,
}


@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS.keys())
def test_a_head_that_is_too_large_gets_431_and_the_connection_goes_on(fields: list[tuple[str, str]]) -> None:
    with Served(refuse, limits=Limits(2000, 20)) as client:
        client.ask(1, [*GET, *fields])
        assert client.answer(1)[0][0][0] == (":status", "431")
        client.ask(3)
        assert client.answer(3).status == 200


def test_a_bomb_of_references_gets_431_and_little_time() -> None:
    """One large entry of the table, and one byte for each of ten thousand copies of it."""
    with Served(refuse, limits=Limits(2000, 20)) as client:
        client.ask(1, [*GET, ("x-bomb", "a" * 1500)])
        assert client.answer(1).status == 200
        bomb = client.block(GET) + b"\xbe" * 10_000
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, bomb))
        assert client.answer(3).status == 431
        client.ask(5)
        assert client.answer(5).status == 200


# -- time


def test_a_preface_that_does_not_come_is_not_waited_for() -> None:
    client = Served(header_timeout=0.05)
    assert client.ended_with() == (http2.PROTOCOL_ERROR, "preface_timeout")
    client.close()


def test_a_slow_preface_is_not_waited_for() -> None:
    client = Served(header_timeout=0.05)
    client.send(PREFACE[:10])
    assert client.ended_with() == (http2.PROTOCOL_ERROR, "preface_timeout")
    assert client.refused == "preface_timeout"
    client.close()


def test_a_field_block_that_does_not_end_is_not_waited_for() -> None:
    with Served(header_timeout=0.05) as client:
        client.send(frame(HEADERS, 0, 1, client.block(GET)))
        assert client.ended_with() == (ENHANCE_YOUR_CALM, "header_timeout")


def test_continuations_do_not_buy_time() -> None:
    with Served(header_timeout=0.1) as client:
        client.send(frame(HEADERS, 0, 1, client.block(GET)))
        begun = client.multiplex
        for _ in range(20):
            gevent.sleep(0.01)
            if begun.is_over:
                break
            _send(client, frame(CONTINUATION, 0, 1))
        assert client.refused == "header_timeout"


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Its answers pile up to a bound; the time is that of a client that does not take its response."""

    def large(stream: Stream) -> None:
        stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        stream.send(b"HTTP/1.1 200 \r\n\r\n" + bytes(5_000_000), TIMEOUT)

    small = {"send_buffer": 4096, "receive_buffer": 4096}
    with Served(large, write_timeout=0.1, buffers=small) as client:
        client.send(settings((http2.WINDOW, 0x7FFFFFFF)), number(WINDOW_UPDATE, 0, 0x7FFF0000))
        client.ask(1)
        assert client.refused == "write_timeout"
        assert len(client.failed) == 1


def test_what_a_client_makes_us_say_is_bounded() -> None:
    """Nobody reads, and there is no bound of time: PINGs end it by their number."""
    small = {"send_buffer": 4096, "receive_buffer": 4096}
    with Served(buffers=small) as client:
        _send(client, frame(PING, payload=bytes(8)) * 1500)
        assert client.refused == "ping_flood"


def test_streams_that_wait_for_a_window_hold_up_nobody() -> None:
    """128 answers that may not be sent, and another client that is served at once."""

    def large(stream: Stream) -> None:
        stream.read_head(RequestHead(Limits()), TIMEOUT, TIMEOUT)
        stream.send(b"HTTP/1.1 200 \r\n\r\n" + bytes(100_000), TIMEOUT)
        stream.finish()

    with Served(large) as attacker, Served() as client:
        attacker.send(settings((http2.WINDOW, 0)))
        for n in range(1, 257, 2):
            attacker.ask(n)
        wait_until(lambda: len(attacker.multiplex.streams) == 128)
        for n in range(1, 101, 2):
            client.ask(n)
            assert client.answer(n).status == 200
