"""What ordinary clients feel while another process attacks by HTTP/2: `python -m tests.bench.attacks`.

Each attack runs from one process, on connection after connection, as fast as it can, for a while, then rests
as long, and so on: what else the machine does meets both. Four ordinary clients on connections of their own
ask every few milliseconds; the table has their latencies with and without the attack. The proxy has a core of
its own; all else shares the other one, where the attacker is the least important.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sidecar.net.h2 import PREFACE
from tests.bench.process import cores
from tests.support import http2
from tests.support.command import choose
from tests.support.http2 import GET, POST, Client, frame, number, settings
from tests.support.live import Live, Sidecar
from tests.support.peers import Answering, Stream, response

_TURN: Final = 0.5  # seconds of attack, and of rest
_TURNS: Final = 12
_SECONDS: Final = _TURN * _TURNS
_CLIENTS: Final = 4
_PAUSE: Final = 0.004  # seconds between two requests of a client
_CONF: Final = """
[upstream app]
server.a = {}
[route app]
upstream = app
[sidecar]
access_log = off
"""


def _requests(behind: Callable[[Client, int], bytes], ends: bool = True) -> Callable[[Client], bytes]:
    fields = GET if ends else POST

    def make(client: Client) -> bytes:
        return b"".join(client.headers(n, fields, ends) + behind(client, n) for n in range(1, 4001, 2))

    return make


def _endless(client: Client) -> bytes:
    more = frame(http2.CONTINUATION, 0, 1, b"\x40\x01a\x01b" * 3000)
    return frame(http2.HEADERS, 0, 1, client.block(GET)) + more * 200


def _bomb(client: Client) -> bytes:
    head = client.headers(1, [*GET, ("x-bomb", "a" * 3000)])
    bomb = client.block(GET) + b"\xbe" * 12_000
    return head + b"".join(frame(http2.HEADERS, 5, n, bomb) for n in range(3, 2001, 2))


def _hundred(client: Client) -> bytes:
    return b"".join(client.headers(n) for n in range(1, 201, 2))


ATTACKS: Final[dict[str, Callable[[Client], bytes]]] = {
    "rapid reset": _requests(lambda c, n: number(http2.RST_STREAM, n, 8)),
    "made you reset": _requests(lambda c, n: number(http2.WINDOW_UPDATE, n, 0), False),
    "continuation flood": _endless,
    "hpack bomb": _bomb,
    "settings flood": lambda c: settings((http2.WINDOW, 1)) * 50_000,
    "ping flood": lambda c: frame(http2.PING, payload=bytes(8)) * 50_000,
    "empty frames": lambda c: c.headers(1, POST, False) + frame(http2.DATA, 0, 1) * 50_000,
    "window updates by 1": lambda c: c.headers(1, POST, False) + number(http2.WINDOW_UPDATE, 1, 1) * 50_000,
    "priority flood": lambda c: frame(http2.PRIORITY, 0, 1, bytes(5)) * 50_000,
    "too many streams": _requests(lambda c, n: b""),
    "closed windows": lambda c: settings((http2.WINDOW, 0)) + _hundred(c),
    "half a field block": lambda c: frame(http2.HEADERS, 0, 1, c.block(GET)),
    "no reading": lambda c: settings((http2.WINDOW, 1 << 30)) + _hundred(c),
    "half a preface": lambda c: b"",
}
#: Attacks that hold connections, so many at one time, instead of making new ones.
_HELD: Final = {
    "closed windows": 5,
    "half a field block": 200,
    "no reading": 5,
    "half a preface": 200,
}


def attack(name: str, port: int, active: Any, stop: Any) -> None:
    """Attack while `active` is set, until `stop` is."""
    os.nice(19)
    held: list[Stream] = []
    while not stop.is_set():
        if not active.wait(0.01):
            while held:
                held.pop().close()
            continue
        if name in _HELD and len(held) >= _HELD[name]:
            time.sleep(0.01)
            continue
        with contextlib.suppress(OSError):
            stream = Stream.connect(port)
            stream.sock.settimeout(_TURN)
            client = Client(stream)
            if name == "half a preface":
                stream.send(PREFACE[:20])
            else:
                client.greet()
                stream.send(ATTACKS[name](client))
            if name in _HELD:
                held.append(stream)
                continue
            while stream.sock.recv(65536):
                pass
            stream.close()


def ask(port: int, stop: Any, out: Any) -> None:
    """An ordinary client: when it asked, and how long that took, in seconds."""
    latencies = []
    with Stream.connect(port) as stream:
        client = Client(stream)
        client.greet()
        client.send(number(http2.WINDOW_UPDATE, 0, 1 << 30))
        one = 1
        while not stop.is_set():
            began = time.monotonic()
            client.ask(one)
            assert client.answer(one).status == 200
            latencies.append((began, time.monotonic() - began))
            one += 2
            time.sleep(_PAUSE)
    out.put(latencies)


def measure(port: int, name: str) -> tuple[list[float], list[float]]:
    """The sorted latencies of all clients: while nobody attacks, and while `name` does."""
    context = multiprocessing.get_context("spawn")
    active, stop, out = context.Event(), context.Event(), context.Queue()
    processes = [context.Process(target=ask, args=(port, stop, out)) for _ in range(_CLIENTS)]
    processes.append(context.Process(target=attack, args=(name, port, active, stop)))
    for process in processes:
        process.start()
    time.sleep(1.5)  # until all of them run
    turns = []
    for _ in range(_TURNS // 2):
        active.clear()
        time.sleep(_TURN / 10)  # what the attack left behind is not quiet yet
        turns.append((time.monotonic(), time.sleep(_TURN)))
        active.set()
        turns.append((time.monotonic(), time.sleep(_TURN)))
    stop.set()
    asked = [one for _ in range(_CLIENTS) for one in out.get(timeout=30)]
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.kill()
    quiet, attacked = (
        sorted(took for at, took in asked if any(begun <= at < begun + _TURN for begun, _ in turns[which::2]))
        for which in (0, 1)
    )
    return quiet, attacked


class Table:
    """A line for each attack."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._seen = 0
        columns = f"{'quiet p50, p99 ms':>17} {'attacked p50, p99':>17} {'factor':>6} {'CPU':>5} {'MiB':>5}"
        print(f"{'':20} {columns} {'ended':>6}  rules")

    def measure(self, port: int, name: str) -> None:
        """Measure and print."""
        cpu = self._sidecar.cpu()
        latencies = measure(port, name)
        cpu = (self._sidecar.cpu() - cpu) / _SECONDS
        ended = self._sidecar.events("http2_refused")[self._seen :]
        self._seen += len(ended)
        points = [one[int(len(one) * share)] * 1000 for one in latencies for share in (0.5, 0.99)]
        columns = " ".join(f"{point:8.2f}" for point in points)
        columns += f" {points[3] / points[1]:6.2f} {cpu:5.2f} {self._sidecar.rss() >> 20:5} {len(ended):6}"
        print(f"{name:20} {columns}  {', '.join(sorted({event['rule'] for event in ended}))}", flush=True)


def main(names: list[str]) -> None:
    """Print the table, of these attacks or all."""
    choose(f"{sys.executable} -m sidecar")
    proxy, others = cores()
    os.sched_setaffinity(0, {others})
    folder = Path(tempfile.mkdtemp(prefix="attacks-"))
    started: list[Sidecar] = []
    live = Live(folder, started)
    with Answering(lambda message: response(b"x" * 1000)) as app:
        sidecar = live.start(_CONF.format(app.address))
        os.sched_setaffinity(sidecar.pid, {proxy})
        try:
            table = Table(sidecar)
            for name in names or ATTACKS:
                table.measure(live.port, name)
        finally:
            sidecar.stop()
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
