"""From `[upstream NAME]` to handlers: its servers, how one is chosen, and what is known of them.

Law: building a generation adds to what is kept; `Upstreams.serve` is the moment from which it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from .config.addresses import Address
from .kept import Kept
from .message import Handler, Request
from .net.names import Name, Names
from .routing.settings import RouteSettings
from .runtime import World
from .upstream.balance.least_time import observe
from .upstream.breaker import Breaker, BreakerOptions
from .upstream.budget import Budget
from .upstream.calls import Calls
from .upstream.concurrency import Concurrency, ConcurrencyOptions, concurrency
from .upstream.connect import Connect, Link
from .upstream.dialer import Secure
from .upstream.exchange import Terms, Timeouts
from .upstream.forward import Forward
from .upstream.group import Group
from .upstream.guard import Guard
from .upstream.health import Checker, Subject
from .upstream.health import new_state as new_state_of
from .upstream.introduction import introduction, own_introduction
from .upstream.making import balancer, make_pool, make_server, response_limits
from .upstream.mirror import Mirror
from .upstream.outlier import Outlier
from .upstream.retry import Retry
from .upstream.roster import Check, Place, Roster
from .upstream.server import Server
from .upstream.servers import Spot, is_watched, spots
from .upstream.settings import UpstreamSettings
from .upstream.split import Split
from .upstream.sticky import Sticky

if TYPE_CHECKING:
    from .net.renewal import FileWatch, Follow
    from .upstream.trust import Examined, Trust


class Surroundings(NamedTuple):
    """What upstreams need of the process."""

    world: World
    secret: bytes  # signs what the configuration gives no key for
    follow: Follow | None = None  # watches files; None: they are read once

    @property
    def now(self) -> Callable[[], float]:
        """Gives the monotonic time in seconds."""
        return self.world.clock.monotonic


class Upstream:
    """An upstream of one generation, and the handlers that end routes at it."""

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        kept: Kept,
        names: Names,
        around: Surroundings,
        trust: Trust | None = None,
    ) -> None:
        # Servers that hear who the client is, and those that do not, have no connection in common.
        # Neither have those that are trusted for different reasons.
        roster = kept.claim(("upstream", name, settings.send_proxy, *settings.trust_key), Roster)
        guard = _guard(name, settings, kept, around)
        outlier = _outlier(name, settings, kept, around)
        self.name = name
        self._settings = settings
        self._roster = roster
        self._around = around
        self._retry = Retry(settings)
        self._group = Group(settings, roster.queue, Budget(settings.retry_budget), around.now)
        self._guard = guard
        self._outlier = outlier
        self._introduce = introduction(settings.send_proxy)
        self._trust = trust
        self._ends: dict[tuple[object, ...], Handler] = {}
        self._links: dict[tuple[object, ...], Connect] = {}
        self._names = {
            server.address: _watched(server.address, kept, names)
            for server in settings.server.values()
            if is_watched(server)
        }
        self._spots: list[Spot] = []
        self._fill()

    @property
    def largest_kept(self) -> int:
        """Bytes of the largest request body that is kept to be sent again."""
        return self._settings.retry_body

    @property
    def _keepalive(self) -> int:
        """Idle connections for each server: one that was introduced is of no use to others."""
        return self._settings.keepalive if self._introduce is None else 0

    @property
    def written(self) -> set[str]:
        """Its servers as they are written."""
        return {str(server.address) for server in self._settings.server.values()}

    @property
    def servers(self) -> tuple[Server, ...]:
        """Those that are asked now, names resolved."""
        return self._group.servers

    @property
    def unknown(self) -> dict[str, str]:
        """Name → why nothing is known of it, of those of which nothing is."""
        return {
            str(name): name.error or "not answered yet" for name in self._names.values() if not name.found
        }

    def wait(self, until: float) -> None:
        """Give names that are new until that moment to be known."""
        for name in self._names.values():
            name.wait(max(0.0, until - self._around.now()))
        if self._names:
            self._fill()

    def _fill(self) -> None:
        self._spots = spots(self._settings, lambda address: self._names[address].found)
        self._departures = self._roster.departures
        servers = [self._server(one) for one in self._spots]
        sticky = None
        if self._settings.sticky:
            secret = self._settings.sticky_key.encode() or self._around.secret
            sticky = Sticky(self._settings.sticky, secret, self.name, servers)
        observer = self._observe if self._outlier or self._settings.balance.name == "least_time" else None
        relent = self._outlier.relent if self._outlier else None
        chosen_by = balancer(self._settings.balance, self._around.world.random)
        self._group.replace(servers, chosen_by, sticky, observer, relent)
        self._group.unknown = ", ".join(f"{name}: {why}" for name, why in self.unknown.items())

    def _observe(self, server: Server, failed: bool | None, seconds: float) -> None:
        if failed is None:
            return
        now = self._around.now()
        if not failed:
            observe(server, seconds, now)
        if self._outlier is not None:
            self._outlier.observe(server, failed, seconds, now)

    def _server(self, spot: Spot) -> Server:
        own = self._settings
        secure = self._secure(spot)
        new_pool = partial(make_pool, own, spot, self._keepalive, secure, self._around.world)
        member = self._roster.member(_place(spot, secure), new_pool, partial(new_state_of, own))
        return make_server(spot, member.pool, member.state)

    def _secure(self, spot: Spot) -> Secure | None:
        """How TLS is spoken with a server; None: it is not."""
        own = self._settings
        if self._trust is None:
            return None
        return Secure(self._trust, own.server_name(spot.server.address), own.is_multiplexed)

    def serve(self) -> None:
        """This is what counts from now on."""
        if self._trust is not None:
            self._trust.renewed = self._roster.refresh
        for name in self._names.values():
            name.subscribe(self._renew)
        if self._departures != self._roster.departures:
            # A name has changed for the generation before while this one was built.
            self._fill()
        self._serve()

    def retire(self) -> None:
        """Another generation counts."""
        for name in self._names.values():
            name.unsubscribe(self._renew)

    def _renew(self) -> None:
        """A name has other addresses: servers come and go, the others keep all that is known of them."""
        self._fill()
        self._serve()

    def _serve(self) -> None:
        own = self._settings
        checks = {
            _place(spot, self._secure(spot)): self._check(spot, server)
            for spot, server in zip(self._spots, self._group.servers, strict=True)
        }
        self._roster.left = self._left
        self._roster.keep(checks, self._keepalive, own.keepalive_timeout)
        if self._outlier is not None:
            self._outlier.serve(self._group.servers, self._around.now())

    def _check(self, spot: Spot, server: Server) -> Check | None:
        own, settings = self._settings, spot.server
        if own.health_check is None or settings.down:
            return None
        pool, check = server.pool, own.health_check
        first = own_introduction(own.send_proxy)
        connect = partial(pool.open if check.is_tcp else pool.ask, first=first)
        subject = Subject(
            self.name, server.name, settings.address, server.state, connect, self._roster.count_left
        )
        return Check(own.health_key, partial(Checker, subject, own, self._around.world))

    def _left(self) -> int:
        now = self._around.now()
        return sum(server.is_fit(now) for server in self._group.servers)

    def end(self, route: RouteSettings) -> Handler:
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

    def link(self, route: RouteSettings) -> Connect:
        """The end of a TCP route."""
        key = route.connect_timeout, route.tunnel_timeout
        link = self._links.get(key)
        if link is None:
            terms = self._terms(route)
            link = self._links[key] = Connect(self._group, self._retry, terms, self._guard)
        return link

    def _terms(self, route: RouteSettings) -> Terms:
        own = self._settings
        timeouts = Timeouts(
            _either(route.connect_timeout, own.connect_timeout),
            _either(route.send_timeout, own.send_timeout),
            _either(route.read_timeout, own.read_timeout),
            _either(route.request_timeout, own.request_timeout),
            _either(route.tunnel_timeout, own.tunnel_timeout),
            own.attempt_timeout,
        )
        terms = Terms(timeouts, response_limits(own), self._around.now, route.upgrade, self._retry.counted)
        terms.introduce = self._introduce
        terms.may_refuse = own.is_multiplexed
        return terms

    def _forward(self, route: RouteSettings) -> Handler:
        buffer = route.buffer_size if route.buffering else 0
        forward = Forward(self._group, self._retry, self._terms(route), buffer, self._guard)
        return Calls(forward, self._retry.body) if self._settings.is_multiplexed else forward


class Upstreams:
    """All upstreams of one generation."""

    def __init__(
        self,
        settings: dict[str, UpstreamSettings],
        kept: Kept,
        names: Names,
        around: Surroundings,
        trusts: Examined | None = None,
    ) -> None:
        """`trusts`: of those that speak TLS. Raises ConfigurationError when one's files cannot be used."""
        self._tasks = around.world.tasks
        self._trusts = {} if trusts is None else trusts.claim(settings, kept, around.world)
        self._all = {
            name: Upstream(name, own, kept, names, around, self._trusts.get(name))
            for name, own in settings.items()
        }
        self._watch = _watch(kept, around) if self._trusts else None

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._all.values())

    def wait(self, until: float) -> None:
        """Give names that are new until that moment to be known."""
        for upstream in self._all.values():
            upstream.wait(until)

    def unknown(self) -> dict[str, str]:
        """Name → why nothing is known of it, of those of which nothing is."""
        return {name: why for upstream in self._all.values() for name, why in upstream.unknown.items()}

    def end(self, route: RouteSettings) -> Handler | None:
        """The handler that a route ends in; None: it asks no upstream."""
        ends = [
            (self._all[share.upstream].end(route), share.percent) for share in route.upstream if share.percent
        ]
        if not ends:
            return None
        end: Handler = Split(ends) if len(ends) > 1 else ends[0][0]
        if route.mirror is None or not route.mirror.percent:
            return end
        other = self._all[route.mirror.upstream]
        return Mirror(end, other.end(route), route.mirror.percent, other.largest_kept, self._tasks)

    def link(self, route: RouteSettings) -> Callable[[Request], Link]:
        """What connects the clients of a TCP route to its servers."""
        links = [
            (self._all[share.upstream].link(route), share.percent)
            for share in route.upstream
            if share.percent
        ]
        return Split(links) if len(links) > 1 else links[0][0]

    def serve(self) -> None:
        """These are what counts from now on."""
        for upstream in self._all.values():
            upstream.serve()
        if self._watch is not None:
            self._watch.serve(self._trusts.values())

    def look(self) -> None:
        """Take into use what is new in the files that say whom to believe (waits)."""
        if self._watch is not None:
            self._watch.look()

    def retire(self) -> None:
        """Others are what counts."""
        for upstream in self._all.values():
            upstream.retire()

    def changes(self, before: Upstreams) -> Iterator[tuple[str, set[str], set[str]]]:
        """(upstream, servers that are new, servers that are gone), where something is."""
        for name in before._all | self._all:
            old, new = before.servers(name), self.servers(name)
            if old != new:
                yield name, new - old, old - new

    def servers(self, name: str) -> set[str]:
        """The servers of an upstream as they are written; none when there is no such upstream."""
        upstream = self._all.get(name)
        return set() if upstream is None else upstream.written


def _watch(kept: Kept, around: Surroundings) -> FileWatch | None:
    follow = around.follow
    if follow is None:
        return None
    from .net.renewal import FileWatch

    return kept.claim(("trust watch",), lambda: FileWatch(follow))


def _place(spot: Spot, secure: Secure | None) -> Place:
    return spot.addresses if secure is None else (*spot.addresses, secure.server_name)


def _watched(address: Address, kept: Kept, names: Names) -> Name:
    if address.service:
        return kept.claim(("name", names, address), lambda: names.watch_service(address.service))
    return kept.claim(("name", names, address), lambda: names.watch(address.host, address.port))


def _guard(name: str, settings: UpstreamSettings, kept: Kept, around: Surroundings) -> Guard | None:
    breaker = limit = None
    if settings.breaker_failures or settings.breaker_errors:
        key = ("breaker", name, options_of(settings, BreakerOptions))
        breaker = kept.claim(key, lambda: Breaker(settings, partial(around.world.event, upstream=name)))
    if settings.concurrency_limit:
        key = ("concurrency", name, options_of(settings, ConcurrencyOptions))
        limit = kept.claim(key, lambda: cast(Concurrency, concurrency(settings)))
    return Guard(breaker, limit, around.now) if breaker or limit else None


def _outlier(name: str, settings: UpstreamSettings, kept: Kept, around: Surroundings) -> Outlier | None:
    if not settings.ejects:
        return None
    return kept.claim(
        ("outlier", name, settings.eject_key), lambda: Outlier(name, settings, around.world.event)
    )


def options_of(settings: UpstreamSettings, part: type) -> tuple[object, ...]:
    """The values that a part of the options has: what gives a meaning to state that is kept."""
    return tuple(getattr(settings, field.name) for field in fields(part))


def _either(own: float | None, default: float) -> float:
    return default if own is None else own
