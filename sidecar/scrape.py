"""What the process is in numbers at this moment: events, connections, servers, its use of the machine.

Law: everything is read from what is kept anyway, and nobody waits for it: very many servers take turns.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
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


def scrape(counters: Counters, connections: Connections, upstreams: Iterable[Upstream]) -> Page:
    """A page with all of that (gives way meanwhile)."""
    page = Page()
    page.add("sidecar_build_info", 1, __version__)
    page.add("sidecar_connections", len(connections))
    page.add("sidecar_connections_max", connections.size)
    counters.add_to(page)
    page.add("process_start_time_seconds", counters.began)
    _add_process(page)
    _add_servers(page, upstreams)
    return page


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


def _open_descriptors() -> int:
    """Raises OSError."""
    # Linux 6.2 and later say it at once; reading ten thousand names takes milliseconds.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1


def _add_servers(page: Page, upstreams: Iterable[Upstream]) -> None:
    begun = page.size
    now = SystemClock.monotonic()
    for upstream in tuple(upstreams):
        for server in upstream.servers:
            page.add("sidecar_upstream_server_active", server.state.active, upstream.name, server.name)
            page.add("sidecar_upstream_server_usable", server.is_fit(now), upstream.name, server.name)
            if page.size - begun >= _SLICE:
                take_turns()
                begun = page.size
