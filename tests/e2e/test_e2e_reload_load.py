"""Reloads under load: nothing that is in flight, and nothing that comes, notices them."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator

from tests.support import echo_server
from tests.support.live import Live, Sidecar, until
from tests.support.load import Load, echo
from tests.support.peers import Accepting, Stream, request

REQUESTS = 20_000
RELOADS = 50
CLIENTS = 8
#: Requests that a client makes on one connection before it takes another.
ON_ONE = 400
#: Longest time for all of it.
LONGEST = 100.0

CONFIG = """
[sidecar]
access_log = off
[upstream load]
server.a = 127.0.0.1:{load}
[upstream long]
server.a = {long}
[route load]
path_prefix = /
upstream = load
[route long]
path_prefix = /long
upstream = long
"""


class _Load(Load):
    """Clients that ask for bytes and send bodies, on connections they keep."""

    def __init__(self, port: int) -> None:
        super().__init__(CLIENTS)
        self._port = port
        self._chances = [random.Random(number) for number in range(CLIENTS)]
        self._bodies = [
            [chance.randbytes(chance.randint(1 << 10, 64 << 10)) for _ in range(16)]
            for chance in self._chances
        ]

    def _connection(self, number: int) -> Iterator[None]:
        with Stream.connect(self._port) as stream:
            for _ in range(ON_ONE):
                self._ask(stream, self._chances[number], self._bodies[number])
                yield

    @staticmethod
    def _ask(stream: Stream, chance: random.Random, bodies: list[bytes]) -> None:
        if chance.random() < 0.5:
            size = chance.choice((0, 90, 2_000, 20_000))
            sent, answer = echo_server.pattern(size), stream.ask("GET", f"/bytes/{size}")
        else:
            sent = chance.choice(bodies)
            answer = stream.ask("POST", "/echo", sent)
        assert answer.status == 200, answer.start
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(sent).digest(), "another body"


def _chunked(stream: Stream, size: int) -> bytes:
    """The data of as many chunks as make `size` bytes; a proxy may cut them anew."""
    data = b""
    while len(data) < size:
        piece = stream.read_chunk()
        assert piece, "the last chunk came early"
        data += piece
    return data


class _Long:
    """A download, an upload and a tunnel that take as long as the test."""

    def __init__(self, port: int, upstream: Accepting) -> None:
        self.moved = 0
        self._down, self._down_server = self._begin(port, upstream, request("GET", "/long/down"))
        self._down_server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert self._down.read_head().status == 200
        upload = b"PUT /long/up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._up, self._up_server = self._begin(port, upstream, upload)
        asked = request("GET", "/long/chat", Connection="Upgrade", Upgrade="chat")
        self._chat, self._chat_server = self._begin(port, upstream, asked)
        self._chat_server.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
        )
        assert self._chat.read_head().status == 101

    @staticmethod
    def _begin(port: int, upstream: Accepting, asked: bytes) -> tuple[Stream, Stream]:
        client = Stream.connect(port)
        client.send(asked)
        server = upstream.accept()
        server.read_head()
        return client, server

    def step(self, piece: bytes) -> None:
        """Move a piece on each of the ways, and see it arrive."""
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
        self._down_server.send(chunk)
        self._up.send(chunk)
        self._chat.send(piece)
        assert _chunked(self._down, len(piece)) == piece
        assert _chunked(self._up_server, len(piece)) == piece
        assert self._chat_server.read(len(piece)) == piece
        self._chat_server.send(piece[::-1])
        assert self._chat.read(len(piece)) == piece[::-1]
        self.moved += len(piece)

    def finish(self) -> None:
        """End each of them as it should end."""
        self._down_server.send(b"0\r\n\r\n")
        assert self._down.read_chunk() == b""
        self._up.send(b"0\r\n\r\n")
        assert self._up_server.read_chunk() == b""
        self._up_server.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        assert self._up.read_message().status == 201
        self._chat.finish()
        assert self._chat_server.is_ended()
        self._chat_server.close()
        assert self._chat.is_ended()

    def close(self) -> None:
        """Close all ends."""
        for stream in (
            self._down,
            self._down_server,
            self._up,
            self._up_server,
            self._chat,
            self._chat_server,
        ):
            stream.close()


def _reload(live: Live, sidecar: Sidecar, number: int) -> None:
    """Change what costs most to change: routes, timeouts, the servers of the load."""
    text = f"[route version]\npath = /version\nrespond = 200 {number}\n"
    text += f"[upstream load]\nkeepalive = {8 + number % 3}\nread_timeout = {20 + number}s\n"
    text += f"[listener public]\nidle_timeout = {60 + number}s\n"
    live.conf.write("50-version.ini", text)
    sidecar.wait_event("reload_applied", number)


def test_reloads_under_load_lose_nothing(live: Live) -> None:
    """20,000 requests with bodies, a download, an upload and a tunnel, across 50 reloads: no error at all."""
    with echo() as port, Accepting() as upstream:
        sidecar = live.start(CONFIG.format(load=port, long=upstream.address))
        long = _Long(live.port, upstream)
        before = time.monotonic()
        load = _Load(live.port)
        load.start()
        try:
            for number in range(1, RELOADS + 1):
                _reload(live, sidecar, number)
                long.step(random.Random(number).randbytes(50_000))
            left = LONGEST - (time.monotonic() - before)
            until(lambda: load.done >= REQUESTS or load.errors, f"{REQUESTS} requests", left)
        finally:
            load.stop()
            taken = time.monotonic() - before
            print(
                f"requests {load.done}, reloads {len(sidecar.events('reload_applied'))}, "
                f"errors {len(load.errors)}, seconds {taken:.1f}"
            )
        assert load.errors == []
        assert load.done >= REQUESTS
        assert len(sidecar.events("reload_applied")) >= RELOADS
        assert sidecar.events("reload_refused") == []
        long.finish()
        assert long.moved == 50_000 * RELOADS
        long.close()
