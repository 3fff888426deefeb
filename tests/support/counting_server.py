"""A server of its own process that writes down what it executes, and misbehaves when it is told to.

Run as `python counting_server.py NAME ADDRESS PORT JOURNAL [WORD …]`; port 0: one that the system
chooses. It prints its port. A request for `/ID` is answered with `NAME ID` and the body it came with;
`/wait/ID` is answered when the server is told `/release`. Told, by `/mode/WORD/…`, it does with every request
from then on what `_Connection` knows by that word. Law: a request stands in the journal before its answer is
sent, so that it stands there also when the process is killed.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

#: Enough for whatever a test sends.
_PIECE = 1 << 18


class _Connection:
    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.number = sock.fileno()
        self.since = time.monotonic()  # when it became idle
        self._received = b""

    def read(self) -> None:
        """Answer what is complete."""
        try:
            data = self.sock.recv(_PIECE)
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        received = self._received + data if self._received else data
        while (end := received.find(b"\r\n\r\n")) >= 0:
            length = 0
            if not received.startswith((b"GET", b"HEAD")):
                head = received[:end].lower()
                _, _, value = head.partition(b"\r\ncontent-length:")
                length = int(value.partition(b"\r\n")[0] or 0)
            stop = end + 4 + length
            if len(received) < stop:
                break
            target = received[: received.find(b"\r\n")].split(b" ")[1]
            body, received = received[end + 4 : stop], received[stop:]
            self._execute(target[1:], body)
        self._received = received

    def _execute(self, target: bytes, body: bytes) -> None:
        server = self.server
        if target.startswith(b"mode/"):
            server.turn(target.decode().split("/")[1:])
            return self.send(b"", b"")
        if target == b"release":
            held, server.held = server.held, []
            for answer in held:
                answer()
            return self.send(b"", b"")
        if target.startswith(b"health"):
            return self.send(target, b"")
        os.write(server.journal, target.rpartition(b"/")[2] + b"\n")
        if target.startswith(b"wait/"):
            server.held.append(lambda: self.send(target, body))
            return None
        doing: Callable[[bytes, bytes], None] = getattr(self, server.mode[0])
        return doing(target, body)

    def send(self, target: bytes, body: bytes) -> None:
        body = b"%b %b\n%b" % (self.server.name, target, body)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n" % (len(body), self.server.extra)
        self._send(head + body)
        self.server.rest(self)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.send(data)

    # -- the words

    well = send

    def slow(self, target: bytes, body: bytes) -> None:
        """slow/SECONDS: answer later."""
        self.server.later(float(self.server.mode[1]), lambda: self.send(target, body))

    def silent(self, _target: bytes, _body: bytes) -> None:
        """silent: never answer."""

    def status(self, _target: bytes, _body: bytes) -> None:
        """status/NUMBER: answer with it."""
        self._send(b"HTTP/1.1 %b Some\r\nContent-Length: 0\r\n\r\n" % self.server.mode[1].encode())

    def garbage(self, _target: bytes, _body: bytes) -> None:
        """garbage: answer with something that is no HTTP."""
        self._send(b"\x16\x03\x01\x02\x00 what you want\r\n\r\n")

    def reset(self, _target: bytes, _body: bytes) -> None:
        """reset: end the connection in place of an answer."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def cut(self, target: bytes, body: bytes) -> None:
        """cut: end the connection in the middle of the answer's body."""
        self._send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + target + body)
        # What was sent must have arrived when the reset does.
        self.server.later(0.005, lambda: self.reset(target, body))

    def close(self) -> None:
        if self.server.connections.pop(self.number, None) is not None:
            self.sock.close()


class Server:
    """All connections. Words: `idle=SECONDS` closes those that rest so long, `says=SECONDS` announces it."""

    def __init__(self, name: str, address: str, port: int, journal: str, *words: str) -> None:
        options = dict(word.split("=") for word in words)
        self.name = name.encode()
        self.mode = ["well"]
        self.extra = b"Keep-Alive: timeout=%b\r\n" % options["says"].encode() if "says" in options else b""
        self.held: list[Callable[[], None]] = []
        self.connections: dict[int, _Connection] = {}
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._idle = float(options.get("idle", 0))
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0
        self._poll = select.epoll()
        self._listener = socket.create_server((address, port), backlog=4096)
        self._listener.setblocking(False)

    def turn(self, mode: list[str]) -> None:
        """Behave like that from now on."""
        getattr(_Connection, mode[0])
        self.mode = mode

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something after a while."""
        self._planned += 1
        heapq.heappush(self._plans, (time.monotonic() + seconds, self._planned, what))

    def run(self) -> None:
        """Serve until it is killed."""
        self._poll.register(self._listener, select.EPOLLIN)
        print(self._listener.getsockname()[1], flush=True)
        connections = self.connections
        listener = self._listener.fileno()
        while True:
            for number, _ in self._poll.poll(self._patience()):
                if number == listener:
                    self._accept()
                elif number in connections:
                    connections[number].read()
            now = time.monotonic()
            while self._plans and self._plans[0][0] <= now:
                heapq.heappop(self._plans)[2]()
            if self._idle:
                self._close_idle(now)

    def _patience(self) -> float:
        if self._idle:
            return 0.002
        return max(0.0, self._plans[0][0] - time.monotonic()) if self._plans else -1

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[sock.fileno()] = _Connection(self, sock)
                self._poll.register(sock, select.EPOLLIN)

    def rest(self, connection: _Connection) -> None:
        """It is the one that was busy last: the connections stand in the order in which they rest."""
        connection.since = time.monotonic()
        if self._idle and connection.number in self.connections:
            del self.connections[connection.number]
            self.connections[connection.number] = connection

    def _close_idle(self, now: float) -> None:
        while self.connections:
            first = next(iter(self.connections.values()))
            if now - first.since < self._idle:
                return
            first.close()


if __name__ == "__main__":
    Server(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:]).run()
