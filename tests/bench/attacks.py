"""What ordinary clients feel while another process attacks by HTTP/2: `python -m tests.bench.attacks`.

Each attack runs from one process, on connection after connection, as fast as it can, for a while, then rests
as long, and so on: what else the machine does meets both. Four ordinary clients on connections of their own
ask every few milliseconds; the table has their latencies without and with the attack: percentiles of a turn,
and of those the median, as one hiccup of the machine is a whole percent of a turn. The proxy has a core of
its own; all else shares the other one, where clients and upstream go first, if the system lets us say so, and
the attacker gets what is left: what is measured is the proxy and not the scheduler.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import queue
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.net.h2 import PREFACE
from tests.support import http2
from tests.support.http2 import Client, frame, number, settings
from tests.support.peers import Stream

from .certificate import make_certificate
from .choice import chosen, installed, workspace
from .measure import cpu_time, pss, spent
from .neighbours import PROXIES
from .process import BenchError, Server, cores, free_port, pinned, raise_file_limit
from .proxy import Place, Proxy
from .rows import SIDECAR, Wire
from .upstream import start_upstream

_TURN: Final = 0.5  # seconds of attack, and of rest
_TURNS: Final = 10  # of each
_END: Final = 0.1  # seconds in which the proxy is rid of what an attacker leaves behind
_CLIENTS: Final = 4
_PAUSE: Final = 0.004  # seconds between two requests of a client
GET: Final = tuple((name, "/small" if name == ":path" else value) for name, value in http2.GET)
POST: Final = ((":method", "POST"), *GET[1:])


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
    return b"".join(client.headers(n, GET) for n in range(1, 201, 2))


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


@contextlib.contextmanager
def going_first() -> Iterator[bool]:
    """What runs or is started inside runs before all else on its core; False: that is not allowed here."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def attack(name: str, port: int, active: Any, stop: Any, ended: Any) -> None:
    """Attack while `active` is set, until `stop` is; count the connections that the proxy ended."""
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
                with contextlib.suppress(ConnectionError):
                    stream.send(ATTACKS[name](client))
            if name in _HELD:
                held.append(stream)
                continue
            with contextlib.suppress(ConnectionError):
                while stream.sock.recv(65536):
                    pass
            ended.value += 1
            stream.close()


def ask(port: int, stop: Any, out: Any) -> None:
    """An ordinary client: when it asked, and how long that took, in seconds."""
    latencies = []
    with going_first(), Stream.connect(port) as stream:
        client = Client(stream)
        client.greet()
        client.send(number(http2.WINDOW_UPDATE, 0, 1 << 30))
        one = 1
        while not stop.is_set():
            began = time.monotonic()
            client.ask(one, GET)
            assert client.answer(one).status == 200
            latencies.append((began, time.monotonic() - began))
            client.seen.clear()
            one += 2
            time.sleep(_PAUSE)
    out.put(latencies)


@dataclass(frozen=True, slots=True)
class Felt:
    """What clients felt, (p50, p99) in seconds, without and with the attack; connections the proxy ended."""

    quiet: tuple[float, float]
    attacked: tuple[float, float]
    ended: int


def measure(port: int, name: str) -> Felt:
    """Let the clients ask while `name` attacks and rests in turns.

    Raises `BenchError` if a client does not come to its end.
    """
    context = multiprocessing.get_context("spawn")
    active, stop, out, ended = context.Event(), context.Event(), context.Queue(), context.Value("i")
    processes = [context.Process(target=ask, args=(port, stop, out), daemon=True) for _ in range(_CLIENTS)]
    processes.append(context.Process(target=attack, args=(name, port, active, stop, ended), daemon=True))
    for process in processes:
        process.start()
    time.sleep(1.5)  # until all of them run
    quiet, attacked = [], []
    for _ in range(_TURNS):
        began = time.monotonic()
        time.sleep(_TURN)
        quiet.append((began, time.monotonic()))
        active.set()
        began = time.monotonic()
        time.sleep(_TURN)
        active.clear()
        time.sleep(_END)
        attacked.append((began, time.monotonic()))
    stop.set()
    try:
        asked = [one for _ in range(_CLIENTS) for one in out.get(timeout=30)]
    except queue.Empty:
        raise BenchError(f"{name}: a client got no answer") from None
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
    return Felt(percentiles(asked, quiet), percentiles(asked, attacked), ended.value)


def percentiles(
    asked: Sequence[tuple[float, float]], turns: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """The median over all turns (begin, end) of the p50 and of the p99 of a turn.

    `asked`: when, and how long it took. A turn in which nobody asked is one that the proxy has stopped: it
    counts as long as it is.
    """
    of_turns = []
    for begin, end in turns:
        took = sorted(one for at, one in asked if begin <= at < end) or [end - begin]
        of_turns.append((took[len(took) // 2], took[len(took) * 99 // 100]))
    return statistics.median(p50 for p50, _ in of_turns), statistics.median(p99 for _, p99 in of_turns)


def rules(output: str) -> list[str]:
    """The rules by which sidecar says in its output that it ended connections."""
    events = [json.loads(text) for text in output.splitlines() if text.startswith("{")]
    return sorted({event["rule"] for event in events if event.get("event") == "http2_refused"})


def line(name: str, server: Server, output: Path) -> str:
    """A line of the table: attack `name` on this proxy, which writes to `output`."""
    before, told = cpu_time(server.pid), len(output.read_text())
    began = time.monotonic()
    felt = measure(server.port, name)
    cpu = spent(before, cpu_time(server.pid))[0] / 1e9 / (time.monotonic() - began)
    points = " ".join(f"{point * 1000:8.2f}" for point in (*felt.quiet, *felt.attacked))
    figures = f"{points} {felt.attacked[1] / felt.quiet[1]:6.2f} {cpu:5.2f} {pss(server.pid) >> 20:4}"
    return f"{figures} {felt.ended:6}  {', '.join(rules(output.read_text()[told:]))}"


def attacked(proxy: Proxy, place: Place, core: int, names: Sequence[str]) -> None:
    """Print a line for each of these attacks on this proxy."""
    place.folder.mkdir()
    launch = proxy.launch(place)
    with pinned(core):
        server = Server.start(proxy.name, place.port, launch.command, launch.environment, place.folder)
    try:
        for name in names:
            told = line(name, server, place.folder / f"{proxy.name}.out")
            print(f"{proxy.name:12} {name:20} {told}", flush=True)
    finally:
        server.stop()


def main(words: Sequence[str] | None = None) -> None:
    """Print the table.

    Raises `BenchError` if something cannot be measured.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attacks", description="Attacks by HTTP/2.")
    parser.add_argument("--only", type=chosen(PROXIES), help=f"these proxies instead of {SIDECAR}")
    parser.add_argument(
        "attacks", nargs="*", metavar="ATTACK", help=f"{', '.join(ATTACKS)}; none: all of them"
    )
    options = parser.parse_args(words)
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    proxies, _ = installed(options.only or [one for one in PROXIES if one.name == SIDECAR])
    # Whoever ends this ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    core, others = cores()
    os.sched_setaffinity(0, {others})
    raise_file_limit()
    columns = "quiet p50, p99 ms attacked p50, p99 factor   CPU  MiB  ended  rules"
    print(f"{'':12} {'':20} {columns}")
    with workspace() as folder:
        certificate = make_certificate(folder / "certificate")
        with going_first() as is_first:
            upstream = start_upstream(folder / "upstream", certificate)
        if not is_first:
            print("clients cannot go first here: the attacker takes time from them, too")
        try:
            for proxy in proxies:
                place = Place(folder / proxy.name, free_port(), upstream.port, certificate, Wire(http2=True))
                attacked(proxy, place, core, options.attacks or list(ATTACKS))
        finally:
            upstream.server.stop()


if __name__ == "__main__":
    try:
        main()
    except BenchError as failure:
        raise SystemExit(f"attacks: {failure}") from None
