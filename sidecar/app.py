"""Assembly: from a configuration to listeners that serve it. It knows all the others.

Law: build → bind → swap one reference → let the old finish. A build that fails changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from . import admin
from .config.addresses import Address
from .config.merge import Configuration
from .errors import ConfigurationError
from .kept import Kept
from .message import Request, Response
from .net.certificate_settings import CertificateSettings
from .net.connections import Connections
from .net.inherit import Inherited
from .net.names import Names
from .net.settings import ListenerSettings
from .observe.access import AccessLog
from .observe.metrics import Counters, Page
from .paths import Files
from .places import AnyServing, Place, Places
from .policies.misdirected import directed
from .policies.order import around, chain, failure_edit, failure_edit_around
from .readiness import Finding, Readiness, worst
from .routing import check as routing
from .routing.coverage import uncovered
from .routing.table import Route, Router
from .runtime import Clock, SystemClock, World
from .scrape import scrape
from .serving import Serving
from .settings import SidecarSettings
from .stream import StreamServing
from .upstream.settings import UpstreamSettings
from .upstreams import Surroundings, Upstreams
from .watch import Watch

if TYPE_CHECKING:
    from .certificates import Certificates, Store
    from .net.certificate_check import Examined, Known
    from .upstream import trust

#: Seconds that a name which is new has to be known before its upstream is served without it.
_NAMES_WITHIN: Final = 1.0

Event = Callable[..., None]
Edit = Callable[[Request, Response], None]


class Prepared(NamedTuple):
    """A configuration with what is wrong with it, and the routers of its listeners."""

    configuration: Configuration
    mistakes: list[str]
    warnings: list[str]
    routers: dict[str, Router]
    examined: Examined | None = None  # its certificates; None: it has none
    trusts: trust.Examined | None = None  # whom its upstreams believe; None: none speaks TLS

    @property
    def fingerprint(self) -> str:
        """That of the configuration."""
        return self.configuration.fingerprint


def prepare(configuration: Configuration, known: Known = frozenset(), clock: Clock | None = None) -> Prepared:
    """What serving `configuration` takes and nothing that serves is touched by: for any thread.

    `known`: certificates that serve (`Application.known_certificates`), of which nothing need be found out.
    """
    routers = routing.build(configuration)
    mistakes, warnings = routing.check(configuration, routers)
    mistakes += _doubly_bound(configuration)
    mistakes += _unknown_certificates(configuration)
    warnings += _widely_bound(configuration)
    if not configuration.named(ListenerSettings):
        warnings.append("no listener is configured: add [listener public] with bind = 0.0.0.0:8080")
    examined = None
    if configuration.named(CertificateSettings):
        # TLS takes memory, which who does not use it need not have.
        from .net.certificate_check import examine

        examined = examine(configuration, clock or SystemClock(), known)
        warnings += examined.warnings
        warnings += uncovered(configuration, examined.names)
    trusts = None
    if any(one.is_secure for one in configuration.named(UpstreamSettings).values()):
        from .upstream import trust

        trusts = trust.examine(configuration)
        warnings += trusts.warnings
    return Prepared(configuration, mistakes, warnings, routers, examined, trusts)


def check(configuration: Configuration) -> tuple[list[str], list[str]]:
    """(mistakes, warnings) of a configuration that could be read: what building it would meet."""
    prepared = prepare(configuration)
    mistakes = list(prepared.mistakes)
    for examined in (prepared.examined, prepared.trusts):
        if examined is not None:
            mistakes += (line for lines in examined.mistakes.values() for line in lines)
    return mistakes, prepared.warnings


def _unknown_certificates(configuration: Configuration) -> Iterator[str]:
    known = configuration.named(CertificateSettings)
    for listener, settings in configuration.named(ListenerSettings).items():
        for name in settings.tls:
            if name not in known:
                text = routing.unknown_name("certificate", name, known)
                yield configuration.mistake("listener", listener, "tls", text)


def _doubly_bound(configuration: Configuration) -> Iterator[str]:
    taken: dict[Address, str] = {}
    for name, settings in configuration.named(ListenerSettings).items():
        for address in settings.bind:
            other = taken.setdefault(address, name)
            if other != name and address.is_fixed:
                yield configuration.mistake(
                    "listener", name, "bind", f"{address} is bound by [listener {other}] already: keep one"
                )
    own = configuration.only(SidecarSettings).admin
    for address, name in taken.items():
        if own is not None and own.excludes(address):
            text = f"{own} cannot be bound beside {address} of [listener {name}]: choose another port or path"
            yield configuration.mistake("sidecar", "", "admin", text)


def _widely_bound(configuration: Configuration) -> Iterator[str]:
    own = configuration.only(SidecarSettings).admin
    if own is not None and own.is_wildcard:
        text = (
            f"{own} answers whoever reaches this machine: write 127.0.0.1:{own.port}, unless others have to "
            "ask, as the kubelet has"
        )
        yield configuration.mistake("sidecar", "", "admin", text)


def _failure_edits(edits: dict[Route, Edit]) -> Edit:
    """What the routes do to the answers of failures, which meet no policy on their way."""

    def edit(request: Request, response: Response) -> None:
        found = edits.get(request.route)
        if found is not None:
            found(request, response)

    return edit


def _secure(serving: AnyServing, settings: ListenerSettings, certificates: Certificates) -> None:
    """Have its connections speak TLS."""
    serving.tls = certificates.terminator(settings)
    if isinstance(serving, StreamServing):
        return
    serving.scheme = "https"
    choice = certificates.choice(settings.tls)
    if choice.differ:
        serving.handler = directed(serving.handler, choice.demands)


class Application:
    """What is served now. `apply` replaces it; `access` gives the access log, None when off."""

    def __init__(
        self,
        world: World,
        access: Callable[[], AccessLog | None],
        inherited: Inherited | None = None,
        counters: Counters | None = None,
    ) -> None:
        """`counters`: of the events that `world` is told."""
        self._world = world
        self._event = world.event
        self._access = access
        self._now = world.clock.monotonic
        self._kept = Kept()
        self._connections = Connections(10_000, self._on_full)
        self._places = Places(world.event, self._connections, self._now, inherited or Inherited())
        self._around = Surroundings(world, secrets.token_bytes(32), partial(self._follow, "upstreams"))
        self._upstreams: Upstreams | None = None
        self._store: Store | None = None  # of certificates; None: none was ever used
        self._counters = counters or Counters()
        self.readiness = Readiness()

    # -- building

    def apply(self, prepared: Prepared) -> None:
        """Serve what was prepared from now on, once. Raises ConfigurationError; then nothing has changed."""
        if prepared.mistakes:
            raise ConfigurationError(prepared.mistakes)
        configuration = prepared.configuration
        self._kept.begin()
        try:
            names = self._names(configuration.only(SidecarSettings).resolver)
            settings = configuration.named(UpstreamSettings)
            upstreams = Upstreams(settings, self._kept, names, self._around, prepared.trusts)
            certificates = self._certificates(prepared)
            wanted = self._build(configuration, prepared.routers, upstreams, certificates)
            wanted.update(self._admin(configuration))
            # A request should not meet a name that is about to be known.
            upstreams.wait(self._now() + _NAMES_WITHIN)
            fresh = self._places.bind(configuration, wanted)
        except BaseException:
            self._kept.abandon()
            raise
        self._places.swap(wanted, fresh)
        before, self._upstreams = self._upstreams, upstreams
        if before is not None:
            before.retire()
        # What is gone goes first: a check that ends makes its server usable, one that begins may not.
        self._kept.sweep()
        upstreams.serve()
        self._connections.resize(configuration.only(SidecarSettings).max_connections)
        self._tell_servers(before)
        if self._store is not None and certificates is not None:
            self._store.serve(certificates)
        self.readiness.is_serving = True

    def _names(self, name_servers: tuple[str, ...]) -> Names:
        world = self._world
        make = partial(Names, world.tasks, world.clock, world.random, world.event, name_servers)
        return self._kept.claim(("names", name_servers), make)

    def _certificates(self, prepared: Prepared) -> Certificates | None:
        """Those that its listeners name; None: there is nothing to know about them."""
        examined = prepared.examined
        if examined is None and self._store is None:
            return None
        from .certificates import NONE, Store

        if self._store is None:
            self._store = Store(self._world, partial(self._follow, "certificates"))
        return self._store.build(prepared.configuration, examined or NONE, self._kept)

    def _follow(self, whose: str, files: Sequence[str], changed: Callable[[], None]) -> Watch:
        # In a task of its own, so that one which dies does not end the watch.
        notice = partial(self._world.tasks.spawn, whose, changed)
        return Watch(Files(files, f"the files of {whose}"), notice, self._event)

    def known_certificates(self) -> Known:
        """What the certificates that serve are known by."""
        return self._store.known if self._store is not None else frozenset()

    def look_at_certificates(self) -> None:
        """Take into use what is new in their files, also where nobody has reported it (waits)."""
        if self._store is not None:
            self._store.look()
        if self._upstreams is not None:
            self._upstreams.look()

    def certificates(self) -> dict[str, float]:
        """Name of each certificate that serves → seconds until it expires; less than 0: it has."""
        return self._store.seconds_left() if self._store is not None else {}

    def unknown_names(self) -> dict[str, str]:
        """Name → why nothing is known of it, of those of which nothing is: their servers are not asked."""
        return self._upstreams.unknown() if self._upstreams is not None else {}

    def _build(
        self,
        configuration: Configuration,
        routers: dict[str, Router],
        upstreams: Upstreams,
        certificates: Certificates | None,
    ) -> dict[Place, AnyServing]:
        edits: dict[Route, Edit] = {}
        for route in {route: None for router in routers.values() for route in router.routes}:
            own = route.settings
            if route.is_tcp:
                route.handler = upstreams.link(own)
                continue
            route.handler = chain(own, upstreams.end(own))
            edit = failure_edit(own)
            if edit is not None:
                edits[route] = edit
        access = self._access()
        wanted: dict[Place, AnyServing] = {}
        for name, settings in configuration.named(ListenerSettings).items():
            serving: AnyServing
            if settings.protocol == "tcp":
                serving = StreamServing(name, settings, routers[name], access, self._event)
            else:
                handler = around(settings, routers[name])
                serving = Serving(name, settings, handler, access, self._event)
                serving.on_failure = failure_edit_around(settings, _failure_edits(edits))
            if settings.tls and certificates is not None:
                _secure(serving, settings, certificates)
            wanted.update(dict.fromkeys(self._places.of(name, settings), serving))
        return wanted

    def _admin(self, configuration: Configuration) -> Iterator[tuple[Place, Serving]]:
        address = configuration.only(SidecarSettings).admin
        if address is not None:
            yield admin.place(address), admin.serving(address, self._look, self._scrape, self._event)

    def _look(self) -> list[Finding]:
        """What is as it should be, and what is not."""
        return self.readiness.findings(self._upstreams or (), self.certificates(), self._now())

    def _scrape(self) -> bytes:
        """All that is known in numbers."""
        page = Page()
        page.add("sidecar_ready", worst(self._look()) != "failed")
        page.add("sidecar_configuration_last_reload_successful", not self.readiness.refused)
        for name in self.addresses():
            page.start("listener", name)
        if self._store is not None:
            self._store.add_to(page)
        return scrape(page, self._counters, self._connections, self._upstreams or ())

    def _tell_servers(self, before: Upstreams | None) -> None:
        if before is None or self._upstreams is None:
            return
        for name, new, gone in self._upstreams.changes(before):
            if new:
                self._event("upstream_added", upstream=name, servers=sorted(new))
            if gone:
                self._event("upstream_removed", upstream=name, servers=sorted(gone))

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

    def drain(self, handed: frozenset[str] | None = None) -> None:
        """Take no more connections; those there are may ask once more, until `retire` ends the idle ones.

        `handed`: keys of the places that another process has taken over; None: there is no such process, and
        this one can be asked about itself until `close`.
        """
        self._places.end(handed)

    def retire(self) -> None:
        """End the idle connections of what was drained; who has begun to ask is answered."""
        self._places.retire()

    def close(self) -> None:
        """Cut off what is left and close what is kept."""
        if self._store is not None:
            self._store.close()
        self._connections.kill(block=True, timeout=1)
        self._places.close()
        self._kept.begin()
        self._kept.sweep()
