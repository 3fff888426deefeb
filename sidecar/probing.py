"""Every server of every upstream, dialed once: `sidecar check --probe`.

Law: a server is asked as it is when requests are served: its name is resolved in the same way, its health
check is the same, and it hears the same first. Nothing is held against anybody, and nothing is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from gevent.event import Event
from gevent.lock import Semaphore

from .config.addresses import Address
from .net.names import Name, Names
from .net.resolver import AT_ONCE as NAMES_AT_ONCE
from .runtime import Clock, Tasks, World
from .upstream.dialer import Secure, Trusting
from .upstream.health import make_probe
from .upstream.health_check import Check
from .upstream.introduction import own_introduction
from .upstream.making import make_pool
from .upstream.probe import Connect, Finding, Probe
from .upstream.servers import Spot, is_watched, spots_of
from .upstream.settings import UpstreamSettings

if TYPE_CHECKING:
    from .net.certificate_files import Flawed
    from .upstream.trust import Made

#: Servers that are dialed at one time.
_AT_ONCE: Final = 32

#: Seconds for as many names as are asked for at one time.
_NAMES_WITHIN: Final = 10.0


class Found(NamedTuple):
    """What became of one server, or of one address behind a name. `reason` is empty when it is well.

    `is_dialed` is false for one that is down; then it is well, and `seconds` is 0.
    """

    upstream: str
    server: str  # `a` of server.a
    address: str  # as it was dialed, or as it is written when that is not known
    seconds: float
    reason: str = ""
    detail: str = ""
    is_dialed: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain data; `ok` is null for a server that was not dialed."""
        return {
            "upstream": self.upstream,
            "server": self.server,
            "address": self.address,
            "ok": not self.reason if self.is_dialed else None,
            "reason": self.reason or None,
            "detail": self.detail or None,
            "seconds": round(self.seconds, 6),
        }

    def __str__(self) -> str:
        """One line."""
        start = f"upstream {self.upstream}: server.{self.server} {self.address}"
        if not self.is_dialed:
            return f"{start}: down, not dialed"
        if not self.reason:
            return f"{start}: ok, {1000 * self.seconds:.1f} ms"
        return f"{start}: {self.reason}{f': {self.detail}' if self.detail else ''}"


def probe(
    upstreams: Mapping[str, UpstreamSettings], name_servers: Sequence[str], clock: Clock
) -> Iterator[Found]:
    """Dial all servers, 32 at a time, each within the timeout of its health check or else of a connection.

    What was found comes in the order of the configuration, each as soon as it and those before are there.
    """
    problems: list[BaseException] = []
    tasks = Tasks(lambda _, error: problems.append(error))
    turn = Semaphore(_AT_ONCE)
    try:
        world = World(tasks, clock, Random(), _ignore)
        names = Names(tasks, clock, world.random, _ignore, name_servers)
        jobs = _jobs(upstreams, names, world)
        for job in jobs:
            tasks.spawn("probe", job.run, turn, clock.monotonic)
        for job in jobs:
            job.over.wait()
            if problems:
                raise problems[0]
            yield job.found
    finally:
        tasks.stop()


class _Job:
    """One server to dial, or what is known of it without: then `connect` is None."""

    def __init__(self, found: Found, probe: Probe | None = None, connect: Connect | None = None) -> None:
        self.found = found
        self.over = Event()
        self._probe = probe
        self._connect = connect

    def run(self, turn: Semaphore, now: Callable[[], float]) -> None:
        """Dial it when it is its turn."""
        try:
            if self._probe is not None and self._connect is not None:
                with turn:
                    began = now()
                    finding = self._probe.run(self._connect, now)
                    self._take(finding, now() - began)
        finally:
            self.over.set()

    def _take(self, finding: Finding, seconds: float) -> None:
        address = self.found.address
        # A connection's failure names the address, which the line has already.
        detail = "" if finding.detail == address else finding.detail.removeprefix(f"{address}: ")
        self.found = self.found._replace(seconds=seconds, reason=finding.reason, detail=detail)


def _jobs(upstreams: Mapping[str, UpstreamSettings], names: Names, world: World) -> list[_Job]:
    """One for each server that is written, and for a name one for each place behind it."""
    watched = {
        server.address: _watch(names, server.address)
        for own in upstreams.values()
        for server in own.server.values()
        if is_watched(server) and not server.down
    }
    now = world.clock.monotonic
    until = now() + _NAMES_WITHIN * ceil(len(watched) / NAMES_AT_ONCE)
    for name in watched.values():
        name.wait(max(0.0, until - now()))
    jobs = _Jobs(watched, world)
    return [job for name, own in upstreams.items() for job in jobs.of(name, own)]


def _watch(names: Names, address: Address) -> Name:
    if address.service:
        return names.watch_service(address.service)
    return names.watch(address.host, address.port)


class _Jobs:
    """Makes them. `watched`: what is known of the names."""

    def __init__(self, watched: Mapping[Address, Name], world: World) -> None:
        self._watched = watched
        self._world = world

    def of(self, upstream: str, settings: UpstreamSettings) -> Iterator[_Job]:
        """Those of one upstream."""
        trust = _trust(settings)
        for key, server in settings.server.items():
            found = Found(upstream, key, str(server.address), 0.0)
            name = self._watched.get(server.address)
            if server.down:
                yield _Job(found._replace(is_dialed=False))
            elif name is not None and not name.found:
                yield _Job(found._replace(reason="dns_error", detail=name.error or "no answer in time"))
            else:
                for spot in spots_of(server, lambda address: self._watched[address].found):
                    yield self._job(found, settings, spot, trust)

    def _job(self, found: Found, settings: UpstreamSettings, spot: Spot, trust: Made | Flawed | None) -> _Job:
        found = found._replace(address=" or ".join(map(str, spot.addresses)))
        secure = None
        if trust is not None:
            flaw = getattr(trust, "flaw", None)
            if flaw is not None:
                return _Job(found._replace(reason="tls_failed", detail=str(flaw)))
            name = settings.server_name(spot.server.address)
            secure = Secure(cast(Trusting, trust), name, settings.is_multiplexed)
        pool = make_pool(settings, spot, 0, secure, self._world)
        probe = Probe(Check(), settings.connect_timeout, "")
        is_alone = settings.health_check is None or settings.health_check.is_tcp
        if settings.health_check is not None:
            probe = make_probe(settings, spot.server.address)
        first = own_introduction(settings.send_proxy)
        return _Job(found, probe, partial(pool.open if is_alone else pool.ask, first=first))


def _trust(settings: UpstreamSettings) -> Made | Flawed | None:
    """The TLS of an upstream; None: it has none."""
    if not settings.is_secure:
        return None
    from .upstream.trust import make  # who does not use it need not have it in memory

    return make(settings)


def _ignore(_name: str, **_fields: object) -> None:
    """Nobody listens for events."""
