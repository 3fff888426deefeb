"""Large bodies through slow peers: what waits, waits at its sender, not in the proxy."""

from __future__ import annotations

import threading

from tests.support.live import Live, Sidecar, until_steady
from tests.support.peers import Accepting, Stream

SIZE = 1 << 30
PIECE = 1 << 20
#: Largest growth of resident memory.
GROWTH = 40 << 20
#: A sender that got rid of so much while its receiver stood still has filled somebody's memory.
BUFFERED = 32 << 20

APP = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"


class _Sender:
    """Sends SIZE bytes in a thread; `sent` tells how many the system has taken."""

    def __init__(self, stream: Stream) -> None:
        self.sent = 0
        self._stream = stream
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        piece = memoryview(bytes(range(256)) * (PIECE // 256))
        while self.sent < SIZE:
            self.sent += self._stream.sock.send(piece[self.sent % PIECE :])

    def join(self) -> None:
        self._thread.join(30)
        assert self.sent == SIZE


def _drain(stream: Stream, size: int) -> None:
    """Read exactly `size` bytes of the pattern at full speed, looking at the ends of each piece."""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    at = 0
    while at < size:
        count = stream.sock.recv_into(view[: min(PIECE, size - at)])
        assert count, f"ended after {at} bytes"
        assert (buffer[0], buffer[count - 1]) == (at % 256, (at + count - 1) % 256), f"another byte near {at}"
        at += count


def _through(sidecar: Sidecar, source: Stream, sink: Stream) -> None:
    """Move SIZE bytes; the sink takes a MiB, pauses until nothing moves any more, then takes the rest."""
    before = sidecar.rss()
    sidecar.forget_peak()
    sender = _Sender(source)
    _drain(sink, PIECE)
    waiting = until_steady(lambda: sender.sent, "the proxy stops reading")
    assert waiting < BUFFERED
    _drain(sink, SIZE - PIECE)
    sender.join()
    growth = sidecar.peak() - before
    print(
        f"1 GiB: {waiting >> 10} KiB on the way while nobody read, {growth >> 10} KiB of growth at the peak"
    )
    assert growth < GROWTH


def _head(stream: Stream) -> None:
    """Read a head byte by byte: nothing of the body may rest in a buffer of ours."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.sock.recv(1)


def test_large_download_through_a_slow_client_takes_no_memory(live: Live) -> None:
    """1 GiB from a fast server to a client that stands still for a while."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            with upstream.accept() as server:
                server.read_head()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                _head(client)
                _through(sidecar, server, client)


def test_large_upload_to_a_slow_server_takes_no_memory(live: Live) -> None:
    """1 GiB from a fast client to a server that stands still for a while."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % SIZE)
            with upstream.accept() as server:
                _head(server)
                _through(sidecar, client, server)
                server.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
                assert client.read_message().status == 201
        (line,) = sidecar.wait_exchanges(1)
        assert line["received"] > SIZE
