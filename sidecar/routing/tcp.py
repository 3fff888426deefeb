"""Which options mean something for TCP: of a connection the client is known, and a name if it speaks TLS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ..config.merge import Configuration
from ..config.schema import Section, options
from ..net.settings import ONLY_HTTP, ListenerSettings
from ..upstream.settings import UpstreamSettings
from .settings import RouteSettings

#: Options of a route that mean something for a connection.
OPTIONS: Final = (
    "listener",
    "client",
    "sni",
    "tls",
    "priority",
    "upstream",
    "access_log",
    "connect_timeout",
    "tunnel_timeout",
)
#: Variables of a hash key that a connection has; with sni also {host}.
_VARIABLES: Final = frozenset(("client_ip", "listener", "route"))
_ADVICE: Final = {
    "host": "a TCP connection has no Host field: write sni for the name that a TLS client asks for",
    "redirect": "a TCP connection cannot be redirected: write upstream = NAME",
    "respond": "a TCP connection cannot be answered: write upstream = NAME",
}
_NOTHING: Final = "means nothing to a TCP connection, and its listeners are for TCP: remove it"

Listeners = Mapping[str, ListenerSettings]


class Idle(NamedTuple):
    """An option that means nothing where it is written."""

    section: type[Section]
    name: str
    key: str
    text: str


def is_tcp(route: RouteSettings, listeners: Listeners) -> bool:
    """Whether the route is for connections: a listener that it names is for TCP."""
    return any(_protocol(name, listeners) == "tcp" for name in route.listener)


def _protocol(listener: str, listeners: Listeners) -> str:
    settings = listeners.get(listener)
    return "" if settings is None else settings.protocol


def idle(configuration: Configuration) -> Iterator[Idle]:
    """What is written and means nothing for TCP, or for TCP alone."""
    listeners = configuration.named(ListenerSettings)
    named_by_tls: set[str] = set()
    for name, route in configuration.named(RouteSettings).items():
        if not is_tcp(route, listeners):
            if route.sni:
                yield Idle(RouteSettings, name, "sni", "is for routes of TCP listeners: write host")
            continue
        if route.sni:
            named_by_tls.update(route.listener)
        for key in _written(configuration, RouteSettings, name, route):
            option = key.partition(".")[0]
            if option not in OPTIONS:
                yield Idle(RouteSettings, name, key, _ADVICE.get(option, _NOTHING))
    for name, listener in listeners.items():
        if listener.protocol == "tcp":
            yield from _idle_of_listener(configuration, name, listener, name in named_by_tls)


def _idle_of_listener(
    configuration: Configuration, name: str, listener: ListenerSettings, reads_names: bool
) -> Iterator[Idle]:
    for key in _written(configuration, ListenerSettings, name, listener):
        if key in ONLY_HTTP:
            yield Idle(ListenerSettings, name, key, "means nothing with protocol = tcp: remove it")
        elif key == "header_timeout" and not (
            listener.tls or reads_names or listener.proxy_protocol != "off"
        ):
            text = (
                "bounds nothing with protocol = tcp, unless there is tls, proxy_protocol or a route with sni"
            )
            yield Idle(ListenerSettings, name, key, text)


def _written(configuration: Configuration, kind: type[Section], name: str, section: Section) -> Iterator[str]:
    """The keys that a section, or the defaults of its kind, give a value."""
    for option in options(kind).values():
        value = getattr(section, option.key)
        for key in [f"{option.key}.{one}" for one in value] if option.is_family else [option.key]:
            if configuration.origin(kind.KIND, name, key) is not None:
                yield key


def mistakes(configuration: Configuration) -> Iterator[str]:
    """Routes for both protocols, and upstreams that choose by what a connection does not have."""
    listeners = configuration.named(ListenerSettings)
    upstreams = configuration.named(UpstreamSettings)
    for name, route in configuration.named(RouteSettings).items():
        if not is_tcp(route, listeners):
            continue
        others = [one for one in route.listener if _protocol(one, listeners) == "http"]
        if others:
            text = f"{others[0]} is for http, others are for tcp: write a route for each protocol"
            yield configuration.mistake(RouteSettings.KIND, name, "listener", text)
        for share in route.upstream:
            upstream = upstreams.get(share.upstream)
            wrong = None if upstream is None else unfit(share.upstream, upstream, bool(route.sni))
            if wrong:
                yield configuration.mistake(RouteSettings.KIND, name, "upstream", wrong)


def warnings(configuration: Configuration) -> Iterator[str]:
    """Listeners whose connections lead nowhere."""
    listeners = configuration.named(ListenerSettings)
    named = {one for route in configuration.named(RouteSettings).values() for one in route.listener}
    for name, listener in listeners.items():
        if listener.protocol == "tcp" and name not in named:
            text = f"no route names it, so its connections are closed: add a route with listener = {name}"
            yield configuration.mistake(ListenerSettings.KIND, name, "", text)


def unfit(name: str, upstream: UpstreamSettings, has_name: bool) -> str | None:
    """Why connections cannot go there as it is written; None when they can. `has_name`: the route has sni."""
    if upstream.sticky:
        return f"{name} is sticky by a cookie, which a TCP connection does not have: use balance = ip_hash"
    key = upstream.balance.key
    known = _VARIABLES | {"host"} if has_name else _VARIABLES
    for variable in key.variables if key is not None else ():
        if variable not in known:
            usable = ", ".join(f"{{{one}}}" for one in sorted(known))
            return (
                f"{name} chooses by {{{variable}}}, which a TCP connection does not have: usable are {usable}"
            )
    return None
