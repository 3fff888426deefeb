"""Channels over TLS: handshakes, records however they come, ends of every kind, and nothing left behind."""

from __future__ import annotations

import gc
import os
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Broken, Failure
from sidecar.net.channel import Channel
from sidecar.net.flow import Flow, pump
from sidecar.net.tls_channel import TlsChannel
from sidecar.wire.body import ChunkedDecoder
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH
from tests.support.programs import program
from tests.support.streams import TIMEOUT, Pair, ScriptedPeer, outcome, settle, start, tcp_pair, wait_until
from tests.support.tls import (
    Script,
    both,
    call,
    client_context,
    python_client,
    python_server,
    terminator,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.02
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def read(channel: Channel, size: int) -> bytes:
    """Exactly `size` bytes, fewer at the end."""
    data = bytearray()
    while len(data) < size and (piece := channel.read(size - len(data), TIMEOUT)):
        data += piece
    return bytes(data)


@contextmanager
def scripted(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[tuple[Script, TlsChannel]]:
    """A scripted client, and our end behind the handshake."""
    with ScriptedPeer(tcp=True, readable=True) as peer:
        client = Script(peer, python_client(maximum_version=version))
        securing = start(terminator().secure, peer.channel, TIMEOUT)
        client.handshake()
        channel = outcome(securing)
        try:
            yield client, channel
        finally:
            channel.close()


# -- handshakes with others


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_python_is_served(version: ssl.TLSVersion) -> None:
    one, two = tcp_pair()
    client = python_client(maximum_version=version, alpn=["h2", "http/1.1"])

    def use(sock: ssl.SSLSocket) -> tuple[bytes, str | None]:
        sock.sendall(b"question")
        return sock.recv(99), sock.selected_alpn_protocol()

    asking = call(client, one, use)
    channel = terminator().secure(Channel(two.detach(), True), TIMEOUT)
    assert channel.read(99, TIMEOUT) == b"question"
    channel.send(b"answer", TIMEOUT)
    assert outcome(asking) == (b"answer", "http/1.1")
    assert (channel.version, channel.sni, channel.alpn) == (
        version.name.replace("_", "."),
        "localhost",
        b"http/1.1",
    )
    assert "GCM" in channel.cipher
    assert not channel.is_resumed
    assert channel.peer_certificate is None
    assert (channel.received, channel.sent) == (8, 6)
    assert 0 < channel.handshake_seconds < TIMEOUT
    channel.close()
    assert (channel.version, channel.cipher, channel.alpn) == ("", "", b"")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_of_python_is_asked(version: ssl.TLSVersion) -> None:
    one, two = tcp_pair()
    answering = call(
        python_server(maximum_version=version), two, lambda sock: sock.sendall(sock.recv(99) * 2), None
    )
    channel = client_context().connect(Channel(one.detach()), "localhost", TIMEOUT)
    channel.send(b"ab", TIMEOUT)
    assert channel.read(99, TIMEOUT) == b"abab"
    outcome(answering)
    assert channel.version == version.name.replace("_", ".")
    assert channel.verify_error == ""
    assert channel.peer_certificate in [ssl.PEM_cert_to_DER_cert(one) for one in _leaf_pems()]
    channel.close()


def _leaf_pems() -> list[str]:
    from tests.support.tls import pair

    return [pair("localhost").certificate.decode()]


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_handshake_may_come_in_small_pieces(version: ssl.TLSVersion, size: int) -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        client = Script(peer, python_client(maximum_version=version))
        securing = start(terminator().secure, peer.channel, TIMEOUT)
        client.handshake(lambda flight: peer.send_pieces(flight, size))
        channel = outcome(securing)
        peer.send_pieces(client.sealed(b"hello"), size)
        assert read(channel, 5) == b"hello"
        channel.close()


def test_a_handshake_has_a_deadline_for_all_of_it() -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        hello = Script(peer).hello()
        securing = start(terminator().secure, peer.channel, 5 * SOON)
        for byte in hello[:-1]:
            if securing.dead:
                break
            peer.send(bytes((byte,)))
            gevent.sleep(0.001)
        with pytest.raises(Failure) as caught:
            outcome(securing)
        assert (caught.value.reason, caught.value.detail) == ("tls_handshake_failed", "not finished in time")
        assert peer.channel.fd == -1


def test_a_client_that_says_nothing_fails_in_time_and_one_that_leaves_at_once() -> None:
    with ScriptedPeer(tcp=True) as peer:
        with pytest.raises(Failure) as caught:
            terminator().secure(peer.channel, SOON)
        assert (caught.value.reason, caught.value.detail) == ("tls_handshake_failed", "nothing came in time")
    with ScriptedPeer(tcp=True) as peer:
        peer.finish()
        with pytest.raises(Failure) as caught:
            terminator().secure(peer.channel, TIMEOUT)
        assert caught.value.reason == "client_gone"


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"]
)
def test_plain_http_is_told_apart_and_can_still_be_answered(request_line: bytes) -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        peer.send(request_line)
        with pytest.raises(Failure) as caught:
            terminator().secure(peer.channel, TIMEOUT)
        assert (caught.value.reason, caught.value.status) == ("plain_http", 400)
        assert peer.channel.read(99, TIMEOUT) == request_line
        peer.channel.send(b"no", TIMEOUT)
        assert peer.sock.recv(9) == b"no"


def test_bytes_that_were_read_ahead_belong_to_the_handshake() -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        client = Script(peer)
        peer.send(b"PROXY header")
        hello = client.hello()
        peer.send(hello)
        assert peer.channel.fill(12 + len(hello), TIMEOUT)
        peer.channel.skip(12)
        securing = start(terminator().secure, peer.channel, TIMEOUT)
        client.receive()
        client.handshake()
        channel = outcome(securing)
        assert peer.channel.fd == -1
        peer.send(client.sealed(b"x"))
        assert channel.read(1, TIMEOUT) == b"x"
        channel.close()


# -- garbage


def test_garbage_instead_of_a_hello_is_refused_with_an_alert() -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        peer.send(b"\x16\x03\x01\x00\x10" + b"\xff" * 16)
        with pytest.raises(Failure) as caught:
            terminator().secure(peer.channel, TIMEOUT)
        assert caught.value.reason == "tls_handshake_failed"
        assert caught.value.detail
        assert peer.read_all()[:1] == b"\x15"


@pytest.mark.parametrize("version", VERSIONS)
def test_garbage_in_the_middle_of_a_handshake_is_refused(version: ssl.TLSVersion) -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        client = Script(peer, python_client(maximum_version=version))
        peer.send(client.hello())
        securing = start(terminator().secure, peer.channel, TIMEOUT)
        client.receive()
        peer.send(b"\x17\x03\x03\x00\x20" + os.urandom(32))
        with pytest.raises(Failure) as caught:
            outcome(securing)
        assert caught.value.reason == "tls_handshake_failed"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_leaves_in_the_middle_of_a_handshake_is_a_failure(version: ssl.TLSVersion) -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        client = Script(peer, python_client(maximum_version=version))
        peer.send(client.hello())
        securing = start(terminator().secure, peer.channel, TIMEOUT)
        client.receive()
        peer.close()
        with pytest.raises(Failure) as caught:
            outcome(securing)
        assert caught.value.reason == "tls_handshake_failed"
        assert caught.value.detail == "the connection ended in the handshake"


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=300), st.booleans())
def test_whatever_comes_first_ends_in_a_failure(data: bytes, is_record: bool) -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        peer.send_all((b"\x16\x03\x01" if is_record else b"") + data)
        with pytest.raises(Failure):
            terminator().secure(peer.channel, TIMEOUT)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_that_was_tampered_with_breaks_the_connection(version: ssl.TLSVersion) -> None:
    with scripted(version) as (client, channel):
        sealed = bytearray(client.sealed(b"hello"))
        sealed[-1] ^= 1
        client.peer.send(bytes(sealed))
        with pytest.raises(Broken) as caught:
            channel.read(9, TIMEOUT)
        assert (caught.value.side, caught.value.what) == ("source", "reset")
        assert "bad record mac" in channel.trouble
        with pytest.raises(Broken):
            channel.send(b"x", TIMEOUT)


# -- records


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=6),
    st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    st.sampled_from([1, 100, 16_384, 300_000]),
)
def test_messages_come_whole_however_the_wire_cuts_them(sizes: list[int], cuts: list[int], room: int) -> None:
    messages = [os.urandom(size) for size in sizes]
    with scripted() as (client, channel):
        sealed = b"".join(map(client.sealed, messages))
        reading = start(_read_by, channel, sum(sizes), room)
        at = 0
        while at < len(sealed):
            for cut in cuts:
                client.peer.send(sealed[at : at + cut])
                at += cut
                gevent.sleep(0)
        assert outcome(reading) == b"".join(messages)
        assert channel.received == sum(sizes)


def _read_by(channel: Channel, size: int, room: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := channel.read(room, TIMEOUT)):
        data += piece
    return bytes(data)


@settings(max_examples=40)
@given(st.lists(st.binary(min_size=1, max_size=50_000), min_size=1, max_size=5))
def test_what_is_sent_comes_out_at_the_other_end(messages: list[bytes]) -> None:
    with scripted() as (client, channel):
        for message in messages:
            channel.hold(message[:10])
            channel.send(message[10:], TIMEOUT)
        size = sum(map(len, messages))
        assert client.read(size) == b"".join(messages)
        assert channel.sent == size


def test_a_head_and_the_begin_of_its_body_leave_in_one_record() -> None:
    with scripted() as (client, channel), Pair() as pair:
        pair.source.send_all(b"b" * 1000)
        channel.hold(b"h" * 200)
        pump(Flow(pair.source.channel, channel, LENGTH, 1000, LENGTH, TIMEOUT, TIMEOUT))
        # The tickets come first, each a record of its own; then 1,200 bytes, their type and the tag.
        client.receive()
        assert client.tls.pending() == 0
        assert len(client.tls.read(16_384)) == 1200


def test_ten_mebibytes_pass_both_ways_at_once_through_full_sockets() -> None:
    one, two = os.urandom(10 << 20), os.urandom(10 << 20)
    with both(send_buffer=4096, receive_buffer=4096) as (client, server), Pair() as left, Pair() as right:
        feeding = [start(left.source.send_all, one), start(right.source.send_all, two)]
        moving = [
            start(
                pump,
                Flow(left.source.channel, client, LENGTH, len(one), LENGTH, TIMEOUT, TIMEOUT),
                Flow(client, left.sink.channel, LENGTH, len(two), LENGTH, TIMEOUT, TIMEOUT),
            ),
            start(
                pump,
                Flow(right.source.channel, server, LENGTH, len(two), LENGTH, TIMEOUT, TIMEOUT),
                Flow(server, right.sink.channel, LENGTH, len(one), LENGTH, TIMEOUT, TIMEOUT),
            ),
        ]
        reading = [start(left.sink.read, len(two)), start(right.sink.read, len(one))]
        assert [outcome(task) for task in reading] == [two, one]
        for task in feeding + moving:
            outcome(task)
        assert (client.sent, client.received) == (len(one), len(two))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 150_000), min_size=1, max_size=5), st.sampled_from([0, 4096]))
def test_chunks_are_sent_once_however_often_the_socket_is_full(sizes: list[int], buffer: int) -> None:
    data = [os.urandom(size) for size in sizes]
    with both(send_buffer=buffer, receive_buffer=buffer) as (client, server), Pair() as pair:
        feeding = start(_feed, pair.source, data)
        client.hold(b"head")
        sending = start(pump, Flow(pair.source.channel, client, CLOSE, 0, CHUNKED, TIMEOUT, TIMEOUT))
        received = bytearray(read(server, 4))
        decoder = ChunkedDecoder()
        while not decoder.done:
            received += decoder.feed(server.read(300_000, TIMEOUT))[0]
        assert received == b"head" + b"".join(data)
        for task in (feeding, sending):
            outcome(task)


def _feed(peer: ScriptedPeer, pieces: list[bytes]) -> None:
    for piece in pieces:
        peer.send(piece)
    peer.finish()


def test_a_slow_reader_is_seen_to_move_before_all_has_left() -> None:
    with both(send_buffer=4096, receive_buffer=4096) as (client, server):
        sending = start(client.send, b"x" * 100_000, TIMEOUT)
        settle()
        assert 0 < client.sent < 100_000
        assert read(server, 100_000) == b"x" * 100_000
        outcome(sending)
        assert client.sent == 100_000


def test_a_peer_that_does_not_read_breaks_the_sink_in_time() -> None:
    with both(send_buffer=4096, receive_buffer=4096) as (client, _):
        with pytest.raises(Broken) as caught:
            client.send(b"x" * 1_000_000, SOON)
        assert (caught.value.side, caught.value.what) == ("sink", "timeout")


# -- ends


@pytest.mark.parametrize("version", VERSIONS)
def test_close_notify_is_an_end_and_the_end_of_the_socket_alone_is_a_break(version: ssl.TLSVersion) -> None:
    with scripted(version) as (client, channel):
        client.peer.send(client.sealed(b"all") + client.goodbye())
        assert read(channel, 99) == b"all"
        assert channel.read(9, TIMEOUT) == b""
        assert channel.peer_finished
    with scripted(version) as (client, channel):
        client.peer.send(client.sealed(b"part"))
        client.peer.finish()
        assert channel.read(99, TIMEOUT) == b"part"
        with pytest.raises(Broken) as caught:
            channel.read(99, TIMEOUT)
        assert caught.value.what == "reset"
        assert channel.trouble == "the connection ended without close_notify"


def test_a_response_until_the_end_is_not_taken_for_whole_without_close_notify() -> None:
    with scripted() as (client, channel), Pair() as pair:
        client.peer.send(client.sealed(b"part"))
        client.peer.finish()
        with pytest.raises(Broken) as caught:
            pump(Flow(channel, pair.sink.channel, CLOSE, -1, CLOSE, TIMEOUT, TIMEOUT))
        assert (caught.value.side, caught.value.what) == ("source", "reset")


def test_closing_says_goodbye_and_aborting_does_not() -> None:
    with scripted() as (client, channel):
        channel.close()
        assert client.read(1) == b""
        assert client.was_told
    with scripted() as (client, channel):
        channel.abort()
        client.peer.read_all()
        assert client.peer.was_reset
    with scripted() as (client, channel):
        client.peer.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(Broken):
            channel.read(1, TIMEOUT)
        channel.close()
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            client.read(1)


def test_a_half_closed_connection_can_still_be_read() -> None:
    with scripted() as (client, channel):
        channel.shutdown_write()
        assert client.read(1) == b""
        assert client.peer.read_all() == b""
        client.peer.send(client.sealed(b"late"))
        assert channel.read(9, TIMEOUT) == b"late"
        with pytest.raises(Broken):
            channel.send(b"x", TIMEOUT)


def test_the_end_of_a_side_waits_for_what_the_socket_did_not_take() -> None:
    with both(send_buffer=4096, receive_buffer=4096) as (client, server):
        sending = start(client.send, b"x" * 60_000, TIMEOUT)
        settle()
        assert not sending.dead
        sending.kill()
        client.shutdown_write()
        reading = start(client.read, 99, TIMEOUT)
        assert read(server, 60_000) == b"x" * 60_000
        assert server.read(9, TIMEOUT) == b""
        server.send(b"thanks", TIMEOUT)
        assert outcome(reading) == b"thanks"


def test_lingering_waits_for_the_peer_and_closes() -> None:
    with scripted() as (client, channel):
        lingering = start(channel.linger, TIMEOUT)
        client.peer.send(client.sealed(b"more of a request"))
        assert client.read(1) == b""
        client.peer.close()
        outcome(lingering)
        assert channel.fd == -1


def test_closing_while_another_greenlet_handshakes_ends_it() -> None:
    with ScriptedPeer(tcp=True, readable=True) as peer:
        peer.send(Script(peer).hello()[:20])
        securing = start(terminator().secure, peer.channel, TIMEOUT)
        settle()
        for channel in [one for one in gc.get_objects() if isinstance(one, TlsChannel) and one.fd >= 0]:
            channel.close()
        with pytest.raises(Failure) as caught:
            outcome(securing)
        assert caught.value.reason == "tls_handshake_failed"


# -- resting


def test_a_ticket_that_comes_while_a_connection_rests_wakes_nobody() -> None:
    woken: list[Channel] = []
    client_side = client_context()
    server_side = terminator()
    with both(server_side, client_side) as (client, server):
        client.park(woken.append, TIMEOUT)
        with pytest.raises(Broken):
            server.read(1, SOON)  # before a wait the tickets leave
        wait_until(lambda: client.fd >= 0)
        settle()
        assert woken == []
        assert client.unpark()
        client.send(b"x", TIMEOUT)
        assert server.read(1, TIMEOUT) == b"x"
        client.park(woken.append, TIMEOUT)
        server.send(b"unasked", TIMEOUT)
        wait_until(lambda: woken)
        assert not client.unpark()
    with both(server_side, client_side) as (client, _):
        assert client.is_resumed


def test_a_connection_that_ended_while_it_rested_is_not_used_again() -> None:
    with both() as (client, server):
        client.park(lambda channel: None, TIMEOUT)
        server.close()
        assert not client.unpark()


def test_pump_stops_for_data_and_not_for_a_ticket() -> None:
    with both() as (client, server), Pair() as pair:
        moving = start(
            pump, Flow(pair.source.channel, client, CLOSE, -1, CLOSE, TIMEOUT, TIMEOUT), None, client
        )
        with pytest.raises(Broken):
            server.read(1, SOON)
        assert not moving.dead
        server.send(b"early", TIMEOUT)
        assert outcome(moving) == 1
        assert client.read(9, TIMEOUT) == b"early"


# -- what peers may not do


@contextmanager
def with_key_updates(count: int) -> Iterator[TlsChannel]:
    """Our end of a connection whose client renewed its key `count` times, then sent "done"."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = ["s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost"]
        client = subprocess.Popen(
            [program("openssl"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        sock, _ = listener.accept()
    assert client.stdin is not None and client.stderr is not None
    try:
        channel = terminator().secure(Channel(sock.detach(), True), TIMEOUT)
        for _ in range(count):
            # A line is a command only when it is read alone: the next waits until this one is obeyed.
            client.stdin.write(b"K\n")
            wait_for_line(client.stderr, b"KEYUPDATE\n")
        client.stdin.write(b"done\n")
        try:
            yield channel
        finally:
            channel.close()
    finally:
        client.stdin.close()
        client.kill()
        client.wait()
        client.stderr.close()


def wait_for_line(stream: IO[bytes], wanted: bytes) -> None:
    """Read lines up to `wanted`; AssertionError after TIMEOUT seconds or at the end."""
    line = b""
    while line != wanted:
        assert select.select([stream], [], [], TIMEOUT)[0], f"{wanted!r} did not come"
        piece = os.read(stream.fileno(), 1)
        assert piece, f"it ended without {wanted!r}"
        line = piece if line.endswith(b"\n") else line + piece


def test_a_flood_of_key_updates_is_cut_off() -> None:
    with with_key_updates(100) as channel:
        with pytest.raises(Broken) as caught:
            channel.read(5, TIMEOUT)
        assert caught.value.what == "reset"
        assert channel.trouble == "too many messages behind the handshake"


def test_keys_may_be_renewed() -> None:
    with with_key_updates(3) as channel:
        assert read(channel, 5) == b"done\n"


# -- nothing is left


@pytest.mark.parametrize("version", VERSIONS)
def test_a_thousand_connections_leave_nothing(version: ssl.TLSVersion) -> None:
    server_side, client_side = terminator(), client_context()

    def some(count: int) -> None:
        for number in range(count):
            if number % 4 == 3:
                with ScriptedPeer(tcp=True, readable=True) as peer:
                    peer.send_all(Script(peer).hello()[: 50 * (number % 8)] or b"x")
                    with pytest.raises(Failure):
                        server_side.secure(peer.channel, TIMEOUT)
                continue
            with both(server_side, client_side) as (client, server):
                client.send(b"x" * 100, TIMEOUT)
                server.read(100, TIMEOUT)
                if number % 4 == 2:
                    server.abort()

    some(100)
    gc.collect()
    before = _resident()
    some(1000)
    gc.collect()
    assert _resident() - before < 4 << 20
    assert not [one for one in gc.get_objects() if isinstance(one, TlsChannel) and one.fd >= 0]


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
