"""Streams that play a script, in this process: peers of a channel, pairs for a flow, upstream servers.

Nothing here sleeps: a peer blocks until something happens, at most TIMEOUT seconds.
"""

from __future__ import annotations

import contextlib
import os
import socket as plain
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import socket

from sidecar.config.addresses import Address
from sidecar.net.channel import Channel
from sidecar.net.flow import Flow
from sidecar.runtime import Random, SystemClock, Tasks, World

TIMEOUT = 10.0
_RESET = struct.pack("ii", 1, 0)

now = time.monotonic


def world(event: Callable[..., None]) -> World:
    """The machine's, with a chance that is always the same; a task that dies is an event."""
    tasks = Tasks(lambda task, error: event("task_died", task=task, exc_info=error))
    return World(tasks, SystemClock(), Random(1), event)


def settle(rounds: int = 3) -> None:
    """Let everybody else run until nothing is left to do."""
    for _ in range(rounds):
        gevent.idle()


def wait_until(condition: Callable[[], Any]) -> None:
    """Let everybody else run until `condition` holds; fails after TIMEOUT seconds."""
    until = now() + TIMEOUT
    while not condition():
        assert now() < until, "it never happened"
        gevent.sleep(0.001)


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

    def send_all(self, data: bytes) -> None:
        """Send and end this side."""
        self.send(data)
        self.finish()

    def fill(self, piece: bytes) -> int:
        """Send until the kernel takes no more, without letting anybody run; how many bytes it took."""
        sent = 0
        data = memoryview(piece)
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += os.write(self.sock.fileno(), data[sent % len(piece) :])
        return sent

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
    """One end of a pair, the other is `channel`; buffers (bytes) are those from the channel to the peer."""

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


class Pair:
    """A source whose peer writes, and a sink whose peer reads."""

    def __init__(self, **sink: Any) -> None:
        self.source = ScriptedPeer(readable=True)
        self.sink = ScriptedPeer(**sink)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.__exit__()
        self.sink.__exit__()

    def flow(
        self, framing_in: int, length: int, framing_out: int, *, timeout: float = TIMEOUT, **more: int
    ) -> Flow:
        """From the source to the sink. `more`: limit, keep."""
        return Flow(
            self.source.channel, self.sink.channel, framing_in, length, framing_out, timeout, timeout, **more
        )

    def back(self, framing_in: int, length: int, framing_out: int) -> Flow:
        """A flow from the sink to the source."""
        return Flow(self.sink.channel, self.source.channel, framing_in, length, framing_out, TIMEOUT, TIMEOUT)


#: What a server does with one connection: read a request and send the bytes, for each item; or a function.
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
