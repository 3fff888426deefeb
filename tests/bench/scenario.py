"""One row of the benchmark, measured for all proxies.

Every row starts its proxies afresh and they stay up until the row ends. Fresh, because what an earlier row
left behind in caches, pools and heaps is not part of this one; up together, because runs are interleaved and
a proxy that nobody asks costs nothing. The order of a round moves on by one each time, so that no proxy
always runs behind the same other. Memory is read with only the one proxy up.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import h2load, load
from .certificate import Certificate
from .load import Load, answers
from .measure import CpuTime, cpu_time, idle_connections, pss, pss_alone, settled_pss, spent
from .process import BenchError, Server, free_port, pinned
from .proxy import Launch, Place, Proxy
from .report import RowResult
from .rows import BODIES, PLAIN, LoadRow, MemoryRow, Row, StartRow, Wire
from .upstream import Upstream
from .verify import verify

WARM_UP_SECONDS = 1
#: Connections that are opened, asked on and closed before the memory of an idle connection is taken.
_WARM_CONNECTIONS = 100
#: Starts of a proxy in a round; the figure is their median.
_STARTS = 3
#: A proxy that leaves out more log lines than this share is not doing the work of the others.
_MAX_LINES_LOST = 0.01


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure: rounds, seconds a run, the cores, the upstream, the certificate, a folder."""

    rounds: int
    seconds: int
    proxy_core: int
    load_core: int
    upstream: Upstream
    certificate: Certificate
    folder: Path
    files: int
    say: Callable[[str], None]

    def measure(self, row: Row, proxies: Sequence[Proxy]) -> RowResult:
        """Measure `row` for all `proxies`.

        Raises `BenchError` if one cannot be measured.
        """
        result = RowResult(row)
        if isinstance(row, LoadRow):
            self._measure_load(result, row, proxies)
        elif isinstance(row, MemoryRow):
            self._measure_memory(result, row, proxies)
        elif isinstance(row, StartRow):
            self._measure_start(result, row, proxies)
        else:
            measure_size(result, proxies)
        return result

    def _measure_load(self, result: RowResult, row: LoadRow, proxies: Sequence[Proxy]) -> None:
        with contextlib.ExitStack() as stack:
            running = []
            for proxy in proxies:
                if reason := proxy.unable(row.wire):
                    result.unable[proxy.name] = reason
                    continue
                with dropped(result, proxy.name):
                    running.append(self._ready(stack, row, proxy))
            for number in range(self.rounds):
                turn = number % max(len(running), 1)
                for ready in running[turn:] + running[:turn]:
                    if ready.server.name not in result.failed:
                        self.say(f"{row.title}: round {number + 1} of {self.rounds}, {ready.server.name}")
                        with dropped(result, ready.server.name):
                            self._run(result, row, ready)
            for ready in running:
                ready.server.stop()
                with dropped(result, ready.server.name):
                    check_log(ready)

    def _ready(self, stack: contextlib.ExitStack, row: LoadRow, proxy: Proxy) -> Running:
        """A proxy that runs until `stack` ends, gave the right answer and is warm."""
        self.say(f"{row.title}: {proxy.name} starts")
        running = stack.enter_context(self._running(proxy, row.wire))
        verify(running.server, row, self.certificate)
        running.answered += 1 + self._load(row, running, WARM_UP_SECONDS).requests
        return running

    def _load(self, row: LoadRow, proxy: Running, seconds: int) -> Load:
        run = h2load.run if row.handshake or row.wire.http2 else load.run
        return run(row, proxy.server.port, seconds, self.load_core, self.folder)

    def _run(self, result: RowResult, row: LoadRow, proxy: Running) -> None:
        before = cpu_time(proxy.server.pid)
        seen = self._load(row, proxy, self.seconds)
        after = cpu_time(proxy.server.pid)
        proxy.answered += seen.requests
        result.add(proxy.server.name, **figures(row, seen, before, after), pss=pss(proxy.server.pid))

    def _measure_memory(self, result: RowResult, row: MemoryRow, proxies: Sequence[Proxy]) -> None:
        # Client and proxy each hold a file for a connection, and need some for everything else.
        count = min(row.connections, self.files - 200)
        if count < row.connections:
            self.say(f"{row.title}: only {count} connections, for the limit of open files is {self.files}")
        for proxy in proxies:
            self.say(f"{row.title}: {proxy.name}")
            with self._running(proxy) as running, pinned(self.load_core):
                server = running.server
                if count:
                    result.add(proxy.name, **connection_memory(server, count))
                else:
                    settled = settled_pss(server.pid)
                    result.add(proxy.name, pss=settled, alone=pss_alone(server.pid))

    def _measure_start(self, result: RowResult, row: StartRow, proxies: Sequence[Proxy]) -> None:
        # The first start of each fills the cache of the disk.
        for number in range(-1, self.rounds):
            for proxy in proxies:
                self.say(f"{row.title}: round {number + 1} of {self.rounds}, {proxy.name}")
                with self._place(proxy) as place, pinned(self.load_core):
                    launch = proxy.launch_bare(place)
                    if launch is None:
                        continue
                    seconds = median(self._start(proxy, place, launch) for _ in range(_STARTS))
                if number >= 0:
                    result.add(proxy.name, seconds=seconds)

    def _start(self, proxy: Proxy, place: Place, launch: Launch) -> float:
        """Seconds from before the exec to a whole answer."""
        began = time.monotonic()
        with pinned(self.proxy_core):
            server = Server.spawn(proxy.name, place.port, launch.command, launch.environment, place.folder)
        try:
            server.await_(server.answers)
            return time.monotonic() - began
        finally:
            server.stop()

    @contextlib.contextmanager
    def _place(self, proxy: Proxy, wire: Wire = PLAIN) -> Iterator[Place]:
        folder = self.folder / proxy.name
        folder.mkdir()
        try:
            yield Place(folder, free_port(), self.upstream.port_for(wire), self.certificate, wire)
        finally:
            shutil.rmtree(folder)

    @contextlib.contextmanager
    def _running(self, proxy: Proxy, wire: Wire = PLAIN) -> Iterator[Running]:
        with self._place(proxy, wire) as place:
            launch = proxy.launch(place)
            with pinned(self.proxy_core):
                server = Server.start(
                    proxy.name, place.port, launch.command, launch.environment, place.folder
                )
            try:
                yield Running(server, launch.access_log)
            finally:
                server.stop()


@dataclass(slots=True)
class Running:
    """A proxy that runs: its server, its access log, and how many answers were seen."""

    server: Server
    access_log: Path
    answered: int = 0


@contextlib.contextmanager
def dropped(result: RowResult, proxy: str) -> Iterator[None]:
    """What fails inside takes the proxy out of the row; the others are measured."""
    try:
        yield
    except BenchError as failure:
        result.drop(proxy, str(failure))


def measure_size(result: RowResult, proxies: Sequence[Proxy]) -> None:
    """Bytes of the binary; a neighbour's file says little, for it needs others."""
    for proxy in proxies:
        if proxy.name == result.row.subject:
            result.add(proxy.name, size=Path(proxy.executable()).stat().st_size)


def figures(row: LoadRow, seen: Load, before: CpuTime, after: CpuTime) -> dict[str, float]:
    """The figures of one run."""
    nanoseconds, account = spent(before, after)
    count = answers(seen, row)
    return {
        "cpu_us": nanoseconds / 1000 / count,
        "requests_per_second": count / (seen.duration_us / 1e6),
        "p50_us": seen.p50_us,
        "p99_us": seen.p99_us,
        "core_busy": nanoseconds / 1000 / seen.duration_us,
        "lost": seen.lost,
        "by_schedstat": float(account == "schedstat"),
    }


def connection_memory(server: Server, count: int) -> dict[str, float]:
    """Bytes that each of `count` idle connections adds to a proxy that has served before."""
    path, size = "/small", BODIES["/small"]
    with idle_connections(server.port, _WARM_CONNECTIONS, path, size):
        pass
    before = settled_pss(server.pid)
    with idle_connections(server.port, count, path, size):
        after = settled_pss(server.pid)
    return {"pss": (after - before) / count, "before": before, "after": after}


def check_log(proxy: Running) -> None:
    """Hold the access log of a proxy that has ended against the answers that were seen.

    Raises `BenchError` if lines are missing.
    """
    lines = 0
    with contextlib.suppress(FileNotFoundError), proxy.access_log.open("rb") as log:
        while block := log.read(1 << 20):
            lines += block.count(b"\n")
    if lines < proxy.answered * (1 - _MAX_LINES_LOST):
        raise BenchError(f"{proxy.server.name} logged {lines} of {proxy.answered} requests")
