"""Streams that play a script: peers of a channel, upstream servers, and a session with both, in this process.

Nothing here sleeps: a peer blocks until something happens, at most TIMEOUT seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket as plain
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from sidecar.config.addresses import Address
from sidecar.message import Handler, Request, Response
from sidecar.net.channel import Channel
from sidecar.net.settings import ListenerSettings
from sidecar.observe.access import AccessLog
from sidecar.runtime import FakeClock
from sidecar.session import Serving, Session
from sidecar.upstream.balance import RoundRobin
from sidecar.upstream.forward import Forward, Server, Timeouts
from sidecar.upstream.pool import ServerPool

TIMEOUT = 10.0
_RESET = struct.pack("ii", 1, 0)

now = time.monotonic


def settle(rounds: int = 3) -> None:
    """Let everybody else run until nothing is left to do."""
    for _ in range(rounds):
        gevent.idle()


def wait_until(condition: Callable[[], Any]) -> None:
    """Let everybody else run until `condition` holds; fails after TIMEOUT seconds."""
    until = now() + TIMEOUT
    while not condition():
        assert now() < until, "it never happened"
        gevent.idle()


def start(function: Callable[..., Any], *args: Any) -> Any:
    """Run `function` in a greenlet of its own; the caller takes the outcome with `outcome`."""
    return gevent.spawn(function, *args)


def outcome(greenlet: Any) -> Any:
    """The result of a greenlet, or what it raised."""
    return greenlet.get(timeout=TIMEOUT)


def open_descriptors() -> int:
    """How many file descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))


def tcp_pair(send_buffer: int = 0, receive_buffer: int = 0) -> tuple[Any, Any]:
    """Two connected TCP sockets; the buffers (bytes) are those on the way from the first to the second."""
    with plain.socket() as listener:
        if receive_buffer:
            listener.setsockopt(plain.SOL_SOCKET, plain.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = plain.socket()
        if send_buffer:
            one.setsockopt(plain.SOL_SOCKET, plain.SO_SNDBUF, send_buffer)
        one.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
        one.connect(listener.getsockname())
        two, _ = listener.accept()
        two.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
    return one, two


class Peer:
    """The far end of a connection, played by the test; a blocking call lets the others run."""

    def __init__(self, sock: Any) -> None:
        self.sock = socket.socket(sock.family, sock.type, fileno=sock.detach())
        self.sock.settimeout(TIMEOUT)
        self.was_reset = False

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_pieces(self, data: bytes, size: int = 1) -> None:
        """Send `size` bytes at a time; each piece is read by itself."""
        for at in range(0, len(data), size):
            self.sock.sendall(data[at : at + size])
            gevent.idle()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer when the other side ends."""
        data = bytearray()
        while len(data) < size and (piece := self.sock.recv(size - len(data))):
            data += piece
        return bytes(data)

    def read_until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        data = b""
        while not data.endswith(end):
            piece = self.sock.recv(1)
            assert piece, f"ended after {data!r}"
            data += piece
        return data

    def read_all(self) -> bytes:
        """Everything until the other side ends; `was_reset` tells how."""
        pieces = []
        try:
            while piece := self.sock.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            self.was_reset = True
        return b"".join(pieces)

    def read_request(self) -> bytes:
        """One request with its body, by Content-Length or to the last chunk (without trailers)."""
        head = self.read_until(b"\r\n\r\n")
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            return head + self.read_until(b"0\r\n\r\n")
        _, found, rest = lower.partition(b"\r\ncontent-length: ")
        return head + self.read(int(rest.partition(b"\r")[0])) if found else head

    def finish(self) -> None:
        """End this side; the other goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with a reset (TCP only)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class ScriptedPeer(Peer):
    """One end of a pair whose other end is `channel`. Buffers (bytes) are those from the channel to the peer."""

    def __init__(
        self, *, tcp: bool = False, readable: bool = False, send_buffer: int = 0, receive_buffer: int = 0
    ) -> None:
        one, two = tcp_pair(send_buffer, receive_buffer) if tcp else plain.socketpair()
        if send_buffer and not tcp:
            one.setsockopt(plain.SOL_SOCKET, plain.SO_SNDBUF, send_buffer)
        super().__init__(two)
        self.channel = Channel(one.detach(), readable)

    def __enter__(self) -> ScriptedPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.channel.close()


#: What a server does with one connection: for each item a request is read and the bytes are sent; or a function.
Script = Sequence[bytes] | Callable[["ServerSide"], None]


class ServerSide(Peer):
    """One connection as the server sees it; `received` is all that came."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.received = b""
        self.is_open = True

    def read(self, size: int) -> bytes:
        data = super().read(size)
        self.received += data
        return data

    def read_until(self, end: bytes) -> bytes:
        data = super().read_until(end)
        self.received += data
        return data

    def read_all(self) -> bytes:
        data = super().read_all()
        self.received += data
        return data

    def play(self, script: Script) -> None:
        """Do what the script says, then listen until the other side ends."""
        try:
            if callable(script):
                script(self)
            else:
                for answer in script:
                    self.read_request()
                    self.send(answer)
            self.read_all()
        except (OSError, AssertionError):
            # Closed by the script, or by the proxy in the middle of it: the test looks at what came.
            pass
        finally:
            self.is_open = False
            self.close()


class FakeServer:
    """An upstream on a loopback port, or a UNIX socket: each connection plays the next script."""

    def __init__(self, *scripts: Script, path: str = "") -> None:
        self.scripts = list(scripts)
        self.connections: list[ServerSide] = []
        if path:
            self._socket = plain.socket(plain.AF_UNIX)
            self._socket.bind(path)
            self.address = Address(path=path)
        else:
            self._socket = plain.socket()
            self._socket.bind(("127.0.0.1", 0))
            self.address = Address("127.0.0.1", self._socket.getsockname()[1])
        self._socket.listen(64)
        self._socket.setblocking(False)
        self._acceptor = gevent.spawn(self._accept)
        self._players: list[Any] = []

    def _accept(self) -> None:
        listener = socket.socket(self._socket.family, self._socket.type, fileno=self._socket.detach())
        with listener:
            while True:
                sock, _ = listener.accept()
                if not self.scripts:
                    sock.close()
                    continue
                side = ServerSide(sock)
                self.connections.append(side)
                self._players.append(gevent.spawn(side.play, self.scripts.pop(0)))

    @property
    def received(self) -> list[bytes]:
        """What came on each connection."""
        return [side.received for side in self.connections]

    @property
    def open_connections(self) -> int:
        return sum(side.is_open for side in self.connections)

    def close(self) -> None:
        gevent.killall([self._acceptor, *self._players])
        for side in self.connections:
            side.close()
        with contextlib.suppress(OSError):
            self._socket.close()


class _Lines:
    """Where the access log of a test goes: each line is read back."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.written = Event()

    def write(self, line: bytes) -> None:
        self.records.append(json.loads(line))
        self.written.set()


class Client(Peer):
    """A client connection that a session serves."""

    def __init__(self, proxy: Proxy, sock: Any, channel: Channel, peer: str) -> None:
        super().__init__(sock)
        self.channel = channel
        self.session = Session(channel, peer, 8080, lambda: proxy.serving, now)
        self.greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        try:
            self.session.run()
        finally:
            self.channel.close()

    def end(self) -> None:
        """Wait for the session's own end."""
        outcome(self.greenlet)


class Proxy:
    """Sessions with one handler. `settings` are those of the listener; events are kept by name."""

    def __init__(self, handler: Handler, **settings: Any) -> None:
        self.lines = _Lines()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.clients: list[Client] = []
        settings["trusted_proxies"] = tuple(ip_network(text) for text in settings.get("trusted_proxies", ()))
        self.settings = ListenerSettings(bind=(Address("127.0.0.1", 0),), **settings)
        self.serving = self.make_serving(handler)

    def make_serving(self, handler: Handler) -> Serving:
        """Another generation of what is served."""
        return Serving(
            "public", self.settings, handler, AccessLog(self.lines, "json", FakeClock()), self._event
        )

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.lines.records

    def connect(self, peer: str = "192.0.2.7", **buffers: int) -> Client:
        """A new client connection, served from now on."""
        ours, theirs = tcp_pair(**buffers)
        client = Client(self, theirs, Channel(ours.detach(), True), peer)
        self.clients.append(client)
        return client

    def wait_records(self, count: int, client: Client) -> None:
        """Until so many exchanges were logged, or the session ended."""
        while len(self.records) < count and not client.greenlet.dead:
            self.lines.written.clear()
            gevent.wait([self.lines.written, client.greenlet], count=1, timeout=TIMEOUT)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        gevent.joinall([client.greenlet for client in self.clients], timeout=TIMEOUT)
        gevent.killall([client.greenlet for client in self.clients])


class Path:
    """A session whose handler is a real Forward to scripted servers, with everything they hold."""

    def __init__(
        self,
        *scripts: Script,
        timeouts: dict[str, float] | None = None,
        forward: dict[str, Any] | None = None,
        keepalive: int = 8,
        **settings: Any,
    ) -> None:
        self.server = FakeServer(*scripts)
        self.pool = ServerPool(self.server.address, keepalive, 60.0)
        bounds = {"connect": TIMEOUT, "send": TIMEOUT, "read": TIMEOUT, "request": 0.0, "tunnel": TIMEOUT}
        self.forward = Forward(
            RoundRobin([(Server("app-1", self.pool), 1)]),
            Timeouts(**(bounds | (timeouts or {}))),
            65536,
            now,
            **(forward or {}),
        )
        self.proxy = Proxy(self.forward, **settings)

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.proxy.records

    @property
    def received(self) -> list[bytes]:
        return self.server.received

    def connect(self, **buffers: int) -> Client:
        return self.proxy.connect(**buffers)

    def close(self) -> None:
        self.proxy.close()
        self.pool.close()
        self.server.close()

    def __enter__(self) -> Path:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Exchanged(NamedTuple):
    """What an exchange left: bytes at the client and at each connection of the server, and the access records."""

    client: bytes
    upstream: list[bytes]
    records: list[dict[str, Any]]
    was_reset: bool

    @property
    def head(self) -> bytes:
        return self.client.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.client.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.client[9:12])


def exchange(
    request: bytes, upstream: Sequence[Script] = (), *, requests: int = 1, piece: int = 0, **settings: Any
) -> Exchanged:
    """Send `request` (which may be several), end when `requests` are logged. `piece`: bytes to send at a time."""
    with Path(*upstream, **settings) as path:
        client = path.connect()
        if piece:
            client.send_pieces(request, piece)
        else:
            client.send(request)
        path.proxy.wait_records(requests, client)
        client.session.retire()
        data = client.read_all()
        path.proxy.close()
        path.pool.close()
        wait_until(lambda: not path.server.open_connections)
        return Exchanged(data, path.received, list(path.records), client.was_reset)


def serve(handler: Callable[[Any, Any], None]) -> StreamServer:
    """A plain gevent server on a loopback port."""
    server = StreamServer(("127.0.0.1", 0), handler)
    server.start()
    return server


def refuse(error: BaseException) -> Handler:
    """A handler that fails."""

    def handle(request: Request) -> Response:
        raise error

    return handle
