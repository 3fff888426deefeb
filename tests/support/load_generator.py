"""Clients in a process of their own: so many requests a second, or waves of them, on connections they keep.

Run as `python load_generator.py PORT PACE CONNECTIONS GETS`. The pace is a number of requests a second; or
two numbers of seconds with a dash: all connections ask at one moment, and again some time between the two
after the last answer. Request number N is `GET /gNNNNNNNN` (every GETS-th) or `POST /pNNNNNNNN`, and the
answer must end with that and the body that was sent. It goes on until its input ends; then it waits for what
is in flight and prints what happened, as one line of JSON (`Report`).
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from typing import Any

#: Seconds for the last answers; longer than any timeout of a test.
_LAST = 10.0
_BODY = b"x" * 100


class Client:
    """One connection, with at most one request on it."""

    def __init__(self, port: int, poll: select.epoll) -> None:
        self._port = port
        self._poll = poll
        self.asked = ""
        self.began = 0.0
        self._received = b""
        self.sock = self._connect()

    def _connect(self) -> socket.socket:
        self._received = b""
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(sock, select.EPOLLIN)
        return sock

    def ask(self, number: int, is_get: bool, now: float) -> None:
        self.asked = f"{'g' if is_get else 'p'}{number:08d}"
        self.began = now
        if is_get:
            data = b"GET /%b HTTP/1.1\r\nHost: test\r\n\r\n" % self.asked.encode()
        else:
            data = b"POST /%b HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n%b" % (
                self.asked.encode(),
                _BODY,
            )
        self.sock.send(data)

    def read(self) -> str | None:
        """What is wrong with the answer, empty when nothing is; None: it is not complete."""
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            data = b""
            problem = type(error).__name__
        else:
            problem = "closed"
        if not data:
            again = not self.asked
            self.reconnect()
            return None if again else problem
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._received[:end].lower()
        length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        if len(self._received) < end + 4 + length:
            return None
        body = self._received[end + 4 :]
        self._received = b""
        if b"\r\nconnection: close" in head:
            self.reconnect()
        if head[9:12] != b"200":
            return head[9:12].decode()
        sent = _BODY if self.asked.startswith("p") else b""
        right = b" %b\n%b" % (self.asked.encode(), sent)
        return "" if body.endswith(right) and len(body) == length else "another body"

    def reconnect(self) -> None:
        self._poll.unregister(self.sock)
        self.sock.close()
        self.sock = self._connect()


class Load:
    """All clients, and what they met."""

    def __init__(self, port: int, pace: str, connections: int, gets: int) -> None:
        rate, _, longest = pace.partition("-")
        self._rate = float(rate)
        self._longest = float(longest or 0)  # seconds between waves; 0: no waves
        self._gets = gets
        self._next = 0.0  # when the next wave comes; 0: not before all have answered
        self._chance = random.Random(7)
        self._poll = select.epoll()
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._idle = [Client(port, self._poll) for _ in range(connections)]
        self._busy: dict[int, Client] = {}
        self._all = self._idle.copy()
        self._sent = 0
        self._most_late = 0
        self._times: list[float] = []
        self._failures: list[tuple[str, str]] = []

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        while not self._turn(0.001):
            due = self._due(time.monotonic(), began)
            self._most_late = max(self._most_late, due - self._sent)
            while self._sent < due and self._idle:
                client = self._idle.pop()
                client.ask(self._sent, self._sent % self._gets == 0, time.monotonic())
                self._busy[client.sock.fileno()] = client
                self._sent += 1
        seconds = time.monotonic() - began
        self._poll.unregister(sys.stdin)
        while self._busy and time.monotonic() - began - seconds < _LAST:
            self._turn(0.05)
        self._failures += [(client.asked, "no answer") for client in self._busy.values()]
        times = sorted(self._times) or [0.0]
        return {
            "sent": self._sent,
            "seconds": round(seconds, 3),
            "failures": self._failures,
            "late": self._most_late,
            "median_ms": round(times[len(times) // 2] * 1000, 2),
            "p99_ms": round(times[len(times) * 99 // 100] * 1000, 2),
            "max_ms": round(times[-1] * 1000, 2),
        }

    def _due(self, now: float, began: float) -> int:
        """How many requests should have been sent by now."""
        if not self._longest:
            return int((now - began) * self._rate)
        if self._busy:
            return self._sent
        if not self._next:
            self._next = now + self._chance.uniform(self._rate, self._longest)
        if now < self._next:
            return self._sent
        self._next = 0.0
        return self._sent + len(self._all)

    def _turn(self, patience: float) -> bool:
        """Read what has come; whether it is enough."""
        for number, _ in self._poll.poll(patience):
            if number == sys.stdin.fileno():
                return True
            client = self._busy.get(number)
            if client is None:
                # The proxy closed a connection at rest.
                next(one for one in self._all if one.sock.fileno() == number).read()
                continue
            problem = client.read()
            if problem is None:
                continue
            self._times.append(time.monotonic() - client.began)
            if problem:
                self._failures.append((client.asked, problem))
            client.asked = ""
            del self._busy[number]
            self._idle.append(client)
        return False


if __name__ == "__main__":
    print(json.dumps(Load(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])).run()))
