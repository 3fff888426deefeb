"""Assembly: from a configuration to listeners that serve it. It knows all the others.

Law: build → bind → swap one reference → let the old finish. A build that fails changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from gevent.pool import Group, Pool

from .config.addresses import Address
from .config.merge import Configuration
from .errors import ConfigurationError, Failure
from .kept import Kept
from .message import Handler, Request, Response
from .net.channel import Channel
from .net.client_address import UNIX_PEER
from .net.listener import Listener
from .net.settings import ListenerSettings
from .observe.access import AccessLog
from .policies.answer import answer
from .policies.order import chain, failure_edit
from .routing import check as routing
from .routing.settings import RouteSettings
from .routing.table import Route, Router
from .session import Serving, Session
from .settings import SidecarSettings
from .upstream.balance import RoundRobin
from .upstream.forward import Forward, Server, Timeouts
from .upstream.pool import ServerPool
from .upstream.settings import UpstreamSettings

Event = Callable[..., None]
Edit = Callable[[Request, Response], None]


def check(configuration: Configuration) -> tuple[list[str], list[str]]:
    """(mistakes, warnings) of a configuration that could be read: what building it would meet."""
    mistakes, warnings = routing.check(configuration)
    mistakes += _doubly_bound(configuration)
    if not configuration.named(ListenerSettings):
        warnings.append("no listener is configured: add [listener public] with bind = 0.0.0.0:8080")
    return mistakes, warnings


def _doubly_bound(configuration: Configuration) -> Iterator[str]:
    taken: dict[Address, str] = {}
    for name, settings in configuration.named(ListenerSettings).items():
        for address in settings.bind:
            other = taken.setdefault(address, name)
            if other != name and (address.port or address.is_unix):
                yield configuration.mistake(
                    "listener", name, "bind", f"{address} is bound by [listener {other}] already: keep one"
                )


def _dispatch(router: Router) -> Handler:
    """The handler of a listener: the route's handler, or no route."""
    choose = router.choose

    def handle(request: Request) -> Response:
        route = choose(request)
        if route is None:
            raise Failure("no_route")
        request.route = route
        response: Response = route.handler(request)
        return response

    return handle


def _failure_edits(edits: dict[Route, Edit]) -> Edit:
    """What the routes do to the answers of failures, which meet no policy on their way."""

    def edit(request: Request, response: Response) -> None:
        found = edits.get(request.route)
        if found is not None:
            found(request, response)

    return edit


class _Upstream:
    """An upstream of one generation."""

    def __init__(self, settings: UpstreamSettings, balance: RoundRobin[Server]) -> None:
        self.settings = settings
        self.balance = balance


class _Bound:
    """A bound address and whom it serves."""

    __slots__ = ("listener", "serving", "sessions")

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.sessions: set[Session] = set()
        self.listener: Listener | None = None


class _Connections(Pool):  # type: ignore[misc]
    """The greenlets of all client connections, and a bound on their number that a reload can move."""

    size: int

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._excess = 0  # connections beyond a bound that was lowered: those that leave free no place

    def resize(self, size: int) -> None:
        """Bound the number of connections; those there are go on, and count."""
        if size == self.size:
            return
        free = size - len(self)
        self.size = size
        self._excess = max(0, -free)
        self._semaphore.counter = max(0, free - 1)
        if free > 0:
            self._semaphore.release()  # tells the listeners that wait

    def _discard(self, greenlet: Any) -> None:
        if self._excess:
            self._excess -= 1
            Group._discard(self, greenlet)
        else:
            super()._discard(greenlet)


class Application:
    """What is served now. `apply` replaces it; `access` gives the access log, None when off."""

    def __init__(
        self, event: Event, access: Callable[[], AccessLog | None], now: Callable[[], float]
    ) -> None:
        self._event = event
        self._access = access
        self._now = now
        self._kept = Kept()
        self._bound: dict[Address, _Bound] = {}
        self._connections = _Connections(10_000)
        self._retired: set[Session] = set()

    # -- building

    def apply(self, configuration: Configuration) -> None:
        """Serve `configuration` from now on. Raises ConfigurationError; then nothing has changed."""
        mistakes, _ = check(configuration)
        if mistakes:
            raise ConfigurationError(mistakes)
        self._kept.begin()
        try:
            wanted = self._build(configuration)
            fresh = self._bind(configuration, wanted)
        except BaseException:
            self._kept.abandon()
            raise
        self._swap(wanted, fresh)
        self._kept.sweep()
        self._connections.resize(configuration.only(SidecarSettings).max_connections)

    def _build(self, configuration: Configuration) -> dict[Address, Serving]:
        upstreams = {
            name: _Upstream(settings, self._balance(settings))
            for name, settings in configuration.named(UpstreamSettings).items()
        }
        routers = routing.build(configuration)
        edits: dict[Route, Edit] = {}
        for route in {route: None for router in routers.values() for route in router.routes}:
            route.handler = chain(route.settings, self._end(route.settings, upstreams))
            edit = failure_edit(route.settings)
            if edit is not None:
                edits[route] = edit
        access = self._access()
        wanted: dict[Address, Serving] = {}
        for name, settings in configuration.named(ListenerSettings).items():
            serving = Serving(name, settings, _dispatch(routers[name]), access, self._event)
            serving.on_failure = _failure_edits(edits)
            wanted.update(dict.fromkeys(settings.bind, serving))
        return wanted

    def _balance(self, settings: UpstreamSettings) -> RoundRobin[Server]:
        servers = []
        for server in settings.server.values():
            key = ("server", server.address, settings.keepalive, settings.keepalive_timeout)
            make = partial(ServerPool, server.address, settings.keepalive, settings.keepalive_timeout)
            pool = self._kept.claim(key, make)
            servers.append((Server(str(server.address), pool), server.weight))
        return RoundRobin(servers)

    def _end(self, settings: RouteSettings, upstreams: dict[str, _Upstream]) -> Handler:
        own = answer(settings)
        if own is not None:
            return own
        upstream = upstreams[settings.upstream]
        defaults = upstream.settings
        return Forward(
            upstream.balance,
            Timeouts(
                _either(settings.connect_timeout, defaults.connect_timeout),
                _either(settings.send_timeout, defaults.send_timeout),
                _either(settings.read_timeout, defaults.read_timeout),
                _either(settings.request_timeout, defaults.request_timeout),
                _either(settings.tunnel_timeout, defaults.tunnel_timeout),
            ),
            defaults.max_header_size,
            self._now,
            upgrade=settings.upgrade,
            buffer=settings.buffer_size if settings.buffering else 0,
        )

    # -- binding

    def _bind(self, configuration: Configuration, wanted: dict[Address, Serving]) -> dict[Address, _Bound]:
        fresh: dict[Address, _Bound] = {}
        mistakes = []
        for address, serving in wanted.items():
            if address in self._bound:
                continue
            bound = _Bound(serving)
            try:
                bound.listener = self._listen(address, bound, wanted)
                fresh[address] = bound
            except OSError as error:
                mistakes.append(
                    configuration.mistake(
                        "listener", serving.name, "bind", f"{address}: {_bind_advice(error)}"
                    )
                )
        if mistakes:
            for bound in fresh.values():
                _listener(bound).end()
            raise ConfigurationError(mistakes)
        return fresh

    def _listen(self, address: Address, bound: _Bound, wanted: dict[Address, Serving]) -> Listener:
        handle = partial(self._serve, bound)
        try:
            return Listener(address, handle, self._connections, self._event)
        except OSError as error:
            # 0.0.0.0:80 and 127.0.0.1:80 exclude one another: the one that leaves must go first.
            leaving = [a for a in self._bound if a not in wanted and a.port == address.port and a.port]
            if error.errno != errno.EADDRINUSE or not leaving:
                raise
            for old in leaving:
                _listener(self._bound[old]).end()
            try:
                return Listener(address, handle, self._connections, self._event)
            except OSError:
                self._reopen(leaving)
                raise

    def _reopen(self, addresses: list[Address]) -> None:
        """Take back what was given up for a listener that could not be bound after all."""
        for address in addresses:
            bound = self._bound[address]
            bound.listener = Listener(address, partial(self._serve, bound), self._connections, self._event)
            bound.listener.start()

    def _swap(self, wanted: dict[Address, Serving], fresh: dict[Address, _Bound]) -> None:
        for address in [a for a in self._bound if a not in wanted]:
            self._close(address)
        for address, bound in self._bound.items():
            bound.serving = wanted[address]
        for address, bound in fresh.items():
            self._bound[address] = bound
            listener = _listener(bound)
            listener.start()
            self._event("listener_bound", listener=bound.serving.name, address=str(listener.bound))

    def _close(self, address: Address) -> None:
        bound = self._bound.pop(address)
        _listener(bound).end()
        bound.serving.ended = True
        self._event("listener_closed", listener=bound.serving.name, address=str(address))
        self._retired |= bound.sessions
        for session in list(bound.sessions):
            session.retire()

    # -- serving

    def _serve(self, bound: _Bound, channel: Channel, peer: Any) -> None:
        name = peer[0] if isinstance(peer, tuple) else UNIX_PEER
        session = Session(channel, name, _listener(bound).bound.port, lambda: bound.serving, self._now)
        sessions = bound.sessions
        sessions.add(session)
        try:
            session.run()
        finally:
            sessions.discard(session)
            self._retired.discard(session)

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
        return len(self._retired) + sum(len(bound.sessions) for bound in self._bound.values())

    def drain(self) -> None:
        """Take no more connections; end idle ones now and the others after their exchange."""
        for address in list(self._bound):
            self._close(address)

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


_ADVICE: Final = {
    errno.EADDRINUSE: "is in use by another process: stop it, or choose another port",
    errno.EACCES: "needs a permission this process does not have: choose a port from 1024 on, or grant "
    "CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "is not an address of this machine: write 0.0.0.0 for all of them",
    errno.ENOENT: "is in a directory that does not exist: make it first",
}


def _bind_advice(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, f"cannot be bound: {error.strerror or error}")
