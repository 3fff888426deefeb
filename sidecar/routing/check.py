"""From the sections of a configuration to the routers of its listeners, and what is wrong with them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator

from ..config.merge import Configuration
from ..net.certificate_settings import CertificateSettings
from ..net.settings import ListenerSettings
from ..upstream.settings import UpstreamSettings
from . import tcp
from .ambiguity import Ambiguity, ambiguities
from .reach import unreachable
from .settings import RouteSettings
from .table import Route, Router
from .tcp import Idle
from .tls import ABOUT_CLIENTS

_KIND = RouteSettings.KIND


def build(configuration: Configuration) -> dict[str, Router]:
    """A router for each listener, by its name. A route of several listeners is the same object in each."""
    listeners = configuration.named(ListenerSettings)
    routes = [
        Route(name, settings, tcp.is_tcp(settings, listeners))
        for name, settings in configuration.named(RouteSettings).items()
    ]
    # Listeners mostly share their routes, and then their router.
    made: dict[tuple[Route, ...], Router] = {}
    routers: dict[str, Router] = {}
    for name, listener in listeners.items():
        own = tuple(_of(name, listener.protocol == "tcp", routes))
        routers[name] = made[own] = made.get(own) or Router(own)
    return routers


def everywhere(configuration: Configuration) -> Router:
    """A router for a listener that is not configured yet: the routes that are bound to none."""
    return Router(
        Route(name, settings)
        for name, settings in configuration.named(RouteSettings).items()
        if not settings.listener
    )


def _of(listener: str, is_tcp: bool, routes: Iterable[Route]) -> Iterator[Route]:
    for route in routes:
        named = route.settings.listener
        if listener in named or not (named or is_tcp):
            yield route


def check(
    configuration: Configuration, built: dict[str, Router] | None = None
) -> tuple[list[str], list[str]]:
    """(mistakes, warnings): whole lines for the user, about routes that each by itself are sound.

    `built` is what `build` made of the configuration, for those who have it already.
    """
    mistakes = [*_unknown(configuration), *tcp.mistakes(configuration), *_idle(configuration)]
    warnings: list[str] = []
    shared = dict.fromkeys((build(configuration) if built is None else built).values())
    routers = list(shared) or [everywhere(configuration)]
    ambiguous = {_told(configuration, one): one.is_certain for r in routers for one in ambiguities(r.entries)}
    for line, is_certain in ambiguous.items():
        (mistakes if is_certain else warnings).append(line)
    warnings += _hidden(configuration, routers)
    warnings += tcp.warnings(configuration)
    warnings += _without_tls(configuration)
    return mistakes, warnings


def _hidden(configuration: Configuration, routers: list[Router]) -> Iterator[str]:
    """Routes that are hidden on every listener they are on."""
    hidden: dict[str, str] = {}
    reached: set[str] = set()
    for router in routers:
        found = dict(unreachable(router))
        hidden |= found
        reached.update(route.name for route in router.routes if route.name not in found)
    for name, by in hidden.items():
        if name not in reached:
            text = f"is never reached: {_named(configuration, by)} takes all its requests before"
            yield configuration.mistake(_KIND, name, "", text)


def _without_tls(configuration: Configuration) -> Iterator[str]:
    """Routes with a condition about TLS whose listeners do not have what it is about."""
    listeners = configuration.named(ListenerSettings)
    routes = {name: one for name, one in configuration.named(RouteSettings).items() if one.tls}
    certificates = configuration.named(CertificateSettings) if routes else {}
    for name, route in routes.items():
        own = [one for key, one in listeners.items() if key in (route.listener or listeners)]
        served = [certificates[one] for listener in own for one in listener.tls if one in certificates]
        for key in route.tls:
            if not any(listener.tls for listener in own):
                text = "never matches, no listener of the route has TLS: add tls = CERTIFICATE to one"
            elif key in ABOUT_CLIENTS and all(one.verify_client == "off" for one in served):
                text = "never matches, no client is asked for a certificate: add verify_client to one of tls"
            else:
                continue
            yield configuration.mistake(_KIND, name, f"tls.{key}", text)


def _named(configuration: Configuration, route: str) -> str:
    return f"[route {route}] ({configuration.origin(_KIND, route, '')})"


def _told(configuration: Configuration, found: Ambiguity) -> str:
    first, second = found.one.route.name, found.other.route.name
    text = (
        f"is as good as {_named(configuration, first)} for {found.example}: "
        "give one of them a higher priority, or another condition"
    )
    return configuration.mistake(_KIND, second, "", text)


def _unknown(configuration: Configuration) -> Iterator[str]:
    upstreams = configuration.named(UpstreamSettings)
    listeners = configuration.named(ListenerSettings)
    for name, settings in configuration.named(RouteSettings).items():
        mirrored = (settings.mirror,) if settings.mirror is not None else ()
        for key, shares in (("upstream", settings.upstream), ("mirror", mirrored)):
            for share in shares:
                if share.upstream not in upstreams:
                    text = unknown_name("upstream", share.upstream, upstreams)
                    yield configuration.mistake(_KIND, name, key, text)
        for listener in settings.listener:
            if listener not in listeners:
                text = unknown_name("listener", listener, listeners)
                yield configuration.mistake(_KIND, name, "listener", text)


def unknown_name(kind: str, name: str, sections: Iterable[str]) -> str:
    """What to say about the name of a section that does not exist."""
    known = list(sections)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        advice = f"did you mean {near[0]}?"
    else:
        advice = f"known are {', '.join(known[:12])}" if known else f"add [{kind} {name}]"
    return f"there is no [{kind} {name}]: {advice}"


def _idle(configuration: Configuration) -> Iterator[str]:
    """Options that do nothing where they are written; `[defaults KIND]` may give them for other sections."""
    found = [*tcp.idle(configuration), *_idle_of_upstreams(configuration)]
    listeners = configuration.named(ListenerSettings)
    for name, listener in listeners.items():
        if listener.protocol != "tcp":
            found += [Idle(ListenerSettings, name, key, text) for key, text in listener.idle()]
    for name, route in configuration.named(RouteSettings).items():
        if not tcp.is_tcp(route, listeners):
            found += [Idle(RouteSettings, name, key, text) for key, text in route.idle()]
    if not found:
        return
    # A line of `[defaults KIND]` is the origin of a value in every section that does not write its own.
    keys = {(one.section, one.key) for one in found}
    uses = Counter(
        origin
        for section, key in keys
        for name in configuration.named(section)
        if (origin := configuration.origin(section.KIND, name, key)) is not None
    )
    for section, name, key, text in found:
        origin = configuration.origin(section.KIND, name, key)
        if origin is not None and uses[origin] == 1:
            yield configuration.mistake(section.KIND, name, key, text)


def _idle_of_upstreams(configuration: Configuration) -> Iterator[Idle]:
    for name, upstream in configuration.named(UpstreamSettings).items():
        for key, text in upstream.idle():
            yield Idle(UpstreamSettings, name, key, text)
