"""Assembly: from a configuration to listeners that serve it. It knows all the others.

Law: build → bind → swap one reference → let the old finish. A build that fails changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from .config.addresses import Address
from .config.merge import Configuration
from .errors import ConfigurationError
from .kept import Kept
from .message import Request, Response
from .net.channel import Channel
from .net.client_address import UNIX_PEER
from .net.connections import Connections
from .net.listener import Listener, bind_advice
from .net.settings import ListenerSettings
from .observe.access import AccessLog
from .policies.order import chain, failure_edit
from .routing import check as routing
from .routing.settings import RouteSettings
from .routing.table import Route, Router
from .session import Current, Serving, Session
from .settings import SidecarSettings
from .upstream.balance import RoundRobin
from .upstream.forward import Forward, Server, Timeouts
from .upstream.pool import ServerPool
from .upstream.settings import UpstreamSettings

#: Seconds that a client has for a request when it connected as its listener ended.
_LAST_CALL: Final = 1.0

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
            if other != name and (address.port or address.is_unix):
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


class _Place(NamedTuple):
    """By what a bound address is known again."""

    address: Address
    written: str = ""  # where, for port 0: that is another port each time it is written


def _places(listener: str, settings: ListenerSettings) -> Iterator[_Place]:
    for at, address in enumerate(settings.bind):
        yield _Place(address, "" if address.port or address.is_unix else f"{listener} {at}")


class _Bound(Current):
    """A bound address and whom it serves."""

    __slots__ = ("listener", "sessions")

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.sessions: set[Session] = set()
        self.listener: Listener | None = None


class Application:
    """What is served now. `apply` replaces it; `access` gives the access log, None when off."""

    def __init__(
        self, event: Event, access: Callable[[], AccessLog | None], now: Callable[[], float]
    ) -> None:
        self._event = event
        self._access = access
        self._now = now
        self._kept = Kept()
        self._bound: dict[_Place, _Bound] = {}
        self._connections = Connections(10_000, self._on_full)
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
            fresh = self._bind(configuration, wanted)
        except BaseException:
            self._kept.abandon()
            raise
        self._swap(wanted, fresh)
        self._kept.sweep()
        self._connections.resize(configuration.only(SidecarSettings).max_connections)
        self._tell_servers(configuration)

    def _build(self, configuration: Configuration, routers: dict[str, Router]) -> dict[_Place, Serving]:
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
        wanted: dict[_Place, Serving] = {}
        for name, settings in configuration.named(ListenerSettings).items():
            serving = Serving(name, settings, routers[name], access, self._event)
            serving.on_failure = _failure_edits(edits)
            wanted.update(dict.fromkeys(_places(name, settings), serving))
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

    # -- binding

    def _bind(self, configuration: Configuration, wanted: dict[_Place, Serving]) -> dict[_Place, _Bound]:
        fresh: dict[_Place, _Bound] = {}
        given_up: list[_Place] = []
        mistakes = []
        for place, serving in wanted.items():
            known = self._bound.get(place)
            if known is not None and not _listener(known).closed:
                continue
            bound = known or _Bound(serving)
            try:
                bound.listener = self._listen(place.address, bound, wanted, given_up)
                fresh[place] = bound
            except OSError as error:
                text = f"{place.address}: {bind_advice(error)}"
                mistakes.append(configuration.mistake("listener", serving.name, "bind", text))
        if mistakes:
            for bound in fresh.values():
                _listener(bound).end()
            self._reopen(given_up)
            raise ConfigurationError(mistakes)
        return fresh

    def _listen(
        self, address: Address, bound: _Bound, wanted: dict[_Place, Serving], given_up: list[_Place]
    ) -> Listener:
        handle = partial(self._serve, bound)
        try:
            return Listener(address, handle, self._connections, self._event)
        except OSError as error:
            # 0.0.0.0:80 and 127.0.0.1:80 exclude one another: the one that leaves must go first.
            port = address.port
            leaving = [one for one in self._bound if one not in wanted and one.address.port == port and port]
            if error.errno != errno.EADDRINUSE or not leaving:
                raise
            for old in leaving:
                if old not in given_up:
                    given_up.append(old)
                    _listener(self._bound[old]).end()
            return Listener(address, handle, self._connections, self._event)

    def _reopen(self, places: list[_Place]) -> None:
        """Take back what was given up for a change that could not be made after all."""
        for place in places:
            bound = self._bound[place]
            handle = partial(self._serve, bound)
            try:
                bound.listener = Listener(place.address, handle, self._connections, self._event)
            except OSError as error:
                # Somebody was faster. The next reload tries again.
                name, text = bound.serving.name, bind_advice(error)
                self._event("listener_failed", listener=name, address=str(place.address), error=text)
            else:
                bound.listener.start()

    def _swap(self, wanted: dict[_Place, Serving], fresh: dict[_Place, _Bound]) -> None:
        for place in [one for one in self._bound if one not in wanted]:
            self._close(place)
        for place, bound in self._bound.items():
            bound.serving = wanted[place]
        for place, bound in fresh.items():
            self._bound[place] = bound
            listener = _listener(bound)
            listener.start()
            self._event("listener_bound", listener=bound.serving.name, address=str(listener.bound))

    def _close(self, place: _Place) -> None:
        bound = self._bound.pop(place)
        _listener(bound).end()
        bound.serving.ended = True
        # Who connected at the last moment was still accepted, and gets a moment to ask.
        bound.serving.idle_timeout = min(bound.serving.idle_timeout, _LAST_CALL)
        self._event("listener_closed", listener=bound.serving.name, address=str(_listener(bound).bound))
        for session in list(bound.sessions):
            session.retire()

    # -- serving

    def _on_full(self, is_full: bool) -> None:
        if is_full:
            self._event(
                "accept_paused", reason="max_connections is reached", connections=len(self._connections)
            )
        elif self._bound:
            self._event("accept_resumed", connections=len(self._connections))

    def _serve(self, bound: _Bound, channel: Channel, peer: Any) -> None:
        name = peer[0] if isinstance(peer, tuple) else UNIX_PEER
        session = Session(channel, name, _listener(bound).bound.port, bound, self._now)
        sessions = bound.sessions
        sessions.add(session)
        try:
            session.run()
        finally:
            sessions.discard(session)

    def addresses(self) -> dict[str, list[Address]]:
        """Listener name → the addresses it is bound to, port 0 resolved."""
        found: dict[str, list[Address]] = {}
        for bound in self._bound.values():
            found.setdefault(bound.serving.name, []).append(_listener(bound).bound)
        return found

    # -- ending

    @property
    def open_sessions(self) -> int:
        """Client connections that are still served."""
        return len(self._connections)

    def drain(self) -> None:
        """Take no more connections; end idle ones now and the others after their exchange."""
        for place in list(self._bound):
            self._close(place)

    def close(self) -> None:
        """Cut off what is left and close what is kept."""
        self._connections.kill(block=True, timeout=1)
        self._kept.begin()
        self._kept.sweep()


def _either(own: float | None, default: float) -> float:
    return default if own is None else own


def _listener(bound: _Bound) -> Listener:
    assert bound.listener is not None
    return bound.listener
