"""Assembly: from a configuration to listeners that serve it. It knows all the others.

Law: build → bind → swap one reference → let the old finish. A build that fails changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from .config.addresses import Address
from .config.merge import Configuration
from .errors import ConfigurationError
from .kept import Kept
from .message import Request, Response
from .net.connections import Connections
from .net.inherit import Inherited
from .net.settings import ListenerSettings
from .observe.access import AccessLog
from .places import Place, Places
from .policies.order import chain, failure_edit
from .routing import check as routing
from .routing.settings import RouteSettings
from .routing.table import Route, Router
from .session import Serving
from .settings import SidecarSettings
from .upstream.balance import RoundRobin
from .upstream.forward import Forward, Server, Timeouts
from .upstream.pool import ServerPool
from .upstream.settings import UpstreamSettings

Event = Callable[..., None]
Edit = Callable[[Request, Response], None]


class Prepared(NamedTuple):
    """A configuration with what is wrong with it, and the routers of its listeners."""

    configuration: Configuration
    mistakes: list[str]
    warnings: list[str]
    routers: dict[str, Router]

    @property
    def fingerprint(self) -> str:
        """That of the configuration."""
        return self.configuration.fingerprint


def prepare(configuration: Configuration) -> Prepared:
    """What serving `configuration` takes and nothing that serves is touched by: for any thread."""
    routers = routing.build(configuration)
    mistakes, warnings = routing.check(configuration, routers)
    mistakes += _doubly_bound(configuration)
    if not configuration.named(ListenerSettings):
        warnings.append("no listener is configured: add [listener public] with bind = 0.0.0.0:8080")
    return Prepared(configuration, mistakes, warnings, routers)


def check(configuration: Configuration) -> tuple[list[str], list[str]]:
    """(mistakes, warnings) of a configuration that could be read: what building it would meet."""
    prepared = prepare(configuration)
    return prepared.mistakes, prepared.warnings


def _doubly_bound(configuration: Configuration) -> Iterator[str]:
    taken: dict[Address, str] = {}
    for name, settings in configuration.named(ListenerSettings).items():
        for address in settings.bind:
            other = taken.setdefault(address, name)
            if other != name and address.is_fixed:
                yield configuration.mistake(
                    "listener", name, "bind", f"{address} is bound by [listener {other}] already: keep one"
                )


def _failure_edits(edits: dict[Route, Edit]) -> Edit:
    """What the routes do to the answers of failures, which meet no policy on their way."""

    def edit(request: Request, response: Response) -> None:
        found = edits.get(request.route)
        if found is not None:
            found(request, response)

    return edit


class _Upstream:
    """An upstream of one generation, and the handlers that end routes at it."""

    def __init__(
        self, settings: UpstreamSettings, balance: RoundRobin[Server], now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._balance = balance
        self._now = now
        self._ends: dict[tuple[object, ...], Forward] = {}

    def end(self, route: RouteSettings) -> Forward:
        """The handler for a route. Those that ask for the same share one: there may be very many."""
        key = (
            route.connect_timeout,
            route.send_timeout,
            route.read_timeout,
            route.request_timeout,
            route.tunnel_timeout,
            route.upgrade,
            route.buffering,
            route.buffer_size,
        )
        end = self._ends.get(key)
        if end is None:
            end = self._ends[key] = self._forward(route)
        return end

    def _forward(self, route: RouteSettings) -> Forward:
        own = self._settings
        return Forward(
            self._balance,
            Timeouts(
                _either(route.connect_timeout, own.connect_timeout),
                _either(route.send_timeout, own.send_timeout),
                _either(route.read_timeout, own.read_timeout),
                _either(route.request_timeout, own.request_timeout),
                _either(route.tunnel_timeout, own.tunnel_timeout),
            ),
            own.max_header_size,
            self._now,
            upgrade=route.upgrade,
            buffer=route.buffer_size if route.buffering else 0,
        )


class Application:
    """What is served now. `apply` replaces it; `access` gives the access log, None when off."""

    def __init__(
        self,
        event: Event,
        access: Callable[[], AccessLog | None],
        now: Callable[[], float],
        inherited: Inherited | None = None,
    ) -> None:
        self._event = event
        self._access = access
        self._now = now
        self._kept = Kept()
        self._connections = Connections(10_000, self._on_full)
        self._places = Places(event, self._connections, now, inherited or Inherited())
        self._servers: dict[str, set[Address]] | None = None  # of each upstream; None before the first

    # -- building

    def apply(self, prepared: Prepared) -> None:
        """Serve what was prepared from now on, once. Raises ConfigurationError; then nothing has changed."""
        if prepared.mistakes:
            raise ConfigurationError(prepared.mistakes)
        configuration = prepared.configuration
        self._kept.begin()
        try:
            wanted = self._build(configuration, prepared.routers)
            fresh = self._places.bind(configuration, wanted)
        except BaseException:
            self._kept.abandon()
            raise
        self._places.swap(wanted, fresh)
        self._kept.sweep()
        self._connections.resize(configuration.only(SidecarSettings).max_connections)
        self._tell_servers(configuration)

    def _build(self, configuration: Configuration, routers: dict[str, Router]) -> dict[Place, Serving]:
        upstreams = {
            name: _Upstream(settings, self._balance(settings), self._now)
            for name, settings in configuration.named(UpstreamSettings).items()
        }
        edits: dict[Route, Edit] = {}
        for route in {route: None for router in routers.values() for route in router.routes}:
            own = route.settings
            end = upstreams[own.upstream].end(own) if own.upstream else None
            route.handler = chain(own, end)
            edit = failure_edit(own)
            if edit is not None:
                edits[route] = edit
        access = self._access()
        wanted: dict[Place, Serving] = {}
        for name, settings in configuration.named(ListenerSettings).items():
            serving = Serving(name, settings, routers[name], access, self._event)
            serving.on_failure = _failure_edits(edits)
            wanted.update(dict.fromkeys(self._places.of(name, settings), serving))
        return wanted

    def _balance(self, settings: UpstreamSettings) -> RoundRobin[Server]:
        servers = []
        for server in settings.server.values():
            key = ("server", server.address, settings.keepalive, settings.keepalive_timeout)
            make = partial(ServerPool, server.address, settings.keepalive, settings.keepalive_timeout)
            pool = self._kept.claim(key, make)
            servers.append((Server(str(server.address), pool), server.weight))
        return RoundRobin(servers)

    def _tell_servers(self, configuration: Configuration) -> None:
        after = {
            name: {server.address for server in settings.server.values()}
            for name, settings in configuration.named(UpstreamSettings).items()
        }
        before, self._servers = self._servers, after
        if before is None:
            return
        for name in before | after:
            old, new = before.get(name, set()), after.get(name, set())
            if new - old:
                self._event("upstream_added", upstream=name, servers=sorted(map(str, new - old)))
            if old - new:
                self._event("upstream_removed", upstream=name, servers=sorted(map(str, old - new)))

    # -- serving

    def _on_full(self, is_full: bool) -> None:
        if is_full:
            self._event(
                "accept_paused", reason="max_connections is reached", connections=len(self._connections)
            )
        elif self._places:
            self._event("accept_resumed", connections=len(self._connections))

    def addresses(self) -> dict[str, list[Address]]:
        """Listener name → the addresses it is bound to, port 0 resolved."""
        return self._places.addresses()

    # -- ending, and handing on

    @property
    def open_sessions(self) -> int:
        """Client connections that are still served."""
        return len(self._connections)

    def places(self) -> list[str]:
        """The keys of the places that are served."""
        return self._places.keys()

    def descriptors(self) -> dict[str, int]:
        """Key → listening socket, of what this process has bound itself or was handed."""
        return self._places.descriptors()

    def drain(self, handed: frozenset[str] = frozenset()) -> None:
        """Take no more connections; those there are may ask once more, until `retire` ends the idle ones.

        `handed`: keys of the places that another process has taken over.
        """
        self._places.end(handed)

    def retire(self) -> None:
        """End the idle connections of what was drained; who has begun to ask is answered."""
        self._places.retire()

    def close(self) -> None:
        """Cut off what is left and close what is kept."""
        self._connections.kill(block=True, timeout=1)
        self._kept.begin()
        self._kept.sweep()


def _either(own: float | None, default: float) -> float:
    return default if own is None else own
