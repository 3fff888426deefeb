"""What the process is in numbers at this moment: events, connections, servers, its use of the machine.

Law: everything is read from what is kept anyway, and nobody waits for it: very many servers take turns.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Final

from . import __version__
from .net.connections import Connections
from .net.turns import take_turns
from .observe.metrics import Counters, Page
from .runtime import SystemClock
from .upstreams import Upstream

#: Samples that are added before others have their turn, a fifth of a millisecond or so.
_SLICE: Final = 100

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: The field of /proc/PID/stat behind the name, which ends with the last parenthesis (proc(5)).
_STARTED: Final = 19


def scrape(page: Page, counters: Counters, connections: Connections, upstreams: Iterable[Upstream]) -> bytes:
    """What is on `page`, with all of that (gives way meanwhile)."""
    page.add("sidecar_build_info", 1, __version__)
    page.add("sidecar_connections", len(connections))
    page.add("sidecar_connections_max", connections.size)
    _add_process(page)
    _add_upstreams(page, upstreams)
    # What has happened counts more than that it might.
    counters.add_to(page)
    lines: list[bytes] = []
    for line in page.lines():
        lines.append(line)
        if len(lines) % _SLICE == 0:
            take_turns()
    return b"".join(lines)


def _add_process(page: Page) -> None:
    """Its use of the machine, by the names that the client libraries of Prometheus give them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    page.add("process_cpu_seconds_total", used.ru_utime + used.ru_stime)
    page.add("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # There are sandboxes without /proc.
    with suppress(OSError):
        page.add("process_open_fds", _open_descriptors())
        with open("/proc/self/statm", "rb") as file:
            page.add("process_resident_memory_bytes", int(file.read().split()[1]) * _PAGE)
        page.add("process_start_time_seconds", _start_time())


def _open_descriptors() -> int:
    """Raises OSError."""
    # Linux 6.2 and later say it at once; reading ten thousand names takes milliseconds.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1


@cache
def _start_time() -> float:
    """When the process started, in seconds since 1970. Raises OSError."""
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[_STARTED])
    with open("/proc/stat", "rb") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    return booted + ticks / _TICKS


def _add_upstreams(page: Page, upstreams: Iterable[Upstream]) -> None:
    begun = page.size
    now = SystemClock.monotonic()
    for upstream in tuple(upstreams):
        page.start("upstream", upstream.name)
        found: dict[str, tuple[int, bool]] = {}
        for server in upstream.servers:
            # Those of several addresses may have the first of them, and so their name, in common.
            active, is_usable = found.get(server.name, (0, False))
            found[server.name] = active + server.state.active, is_usable or server.is_fit(now)
        for name, (active, is_usable) in found.items():
            page.add("sidecar_upstream_server_active", active, upstream.name, name)
            page.add("sidecar_upstream_server_usable", is_usable, upstream.name, name)
            if page.size - begun >= _SLICE:
                take_turns()
                begun = page.size
