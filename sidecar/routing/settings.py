"""What a route is told: which requests are its own, what answers them, and what happens on the way.

Law: an option that would do nothing beside the others is a mistake; `check` finds those that are certain,
`idle` those that may be meant for other routes when they come from `[defaults route]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from ..config.kinds import (
    CIDRS,
    DURATION_OR_OFF,
    ON_OFF,
    SIZE_OR_OFF,
    TEXT,
    TIMEOUT,
    Network,
    integer,
    list_of,
    optional,
    size,
)
from ..config.schema import Section, family, option, quoted
from ..template import Template
from .regex import Regex
from .tls import mistake as tls_mistake
from .values import (
    AUTHORITY,
    FIELD_NAMES,
    FIELD_VALUE,
    HOSTS,
    METHODS,
    NAMES,
    PATH,
    PATHS,
    PREFIXES,
    REDIRECT,
    REGEX,
    RESPOND,
    REWRITE,
    SHARE,
    SHARES,
    WANTED,
    Host,
    Redirect,
    Respond,
    Rewrite,
    Share,
    Wanted,
    field_name_mistake,
)

#: Options by which a route ends; it has exactly one of them.
ACTIONS: Final = ("upstream", "redirect", "respond")

#: What only matters on the way to an upstream.
ON_THE_WAY: Final = (
    "mirror",
    "replace_prefix",
    "rewrite",
    "host_header",
    "request_header",
    "request_header_add",
    "request_header_default",
    "request_header_remove",
    "max_body_size",
    "upgrade",
    "buffering",
    "buffer_size",
    "connect_timeout",
    "send_timeout",
    "read_timeout",
    "request_timeout",
    "tunnel_timeout",
)
_HEADER_FAMILIES: Final = (
    "request_header",
    "request_header_add",
    "request_header_default",
    "response_header",
    "response_header_add",
    "response_header_default",
)


@dataclass(frozen=True, slots=True)
class RouteSettings(Section):
    """One `[route NAME]`. Times in seconds, sizes in bytes; a timeout of None is the upstream's."""

    KIND: ClassVar[str] = "route"
    DOC: ClassVar[str] = (
        "Which requests go where: by priority, then host, then path, then the number of other conditions."
    )

    listener: tuple[str, ...] = option(
        (), list_of(TEXT), "Listeners whose requests it takes; empty: all of them."
    )
    host: tuple[Host, ...] = option(
        (),
        HOSTS,
        "Hosts it serves: example.org, *.example.org (all below it) or ~regex (to the end of its line).",
    )
    path: tuple[str, ...] = option(
        (),
        PATHS,
        "Whole paths it serves, besides those of path_prefix and path_regex; none of the three: any path.",
    )
    path_prefix: tuple[str, ...] = option(
        (), PREFIXES, "Paths it serves with all that is below them: /api is /api and /api/x, not /apifoo."
    )
    path_regex: Regex | None = option(
        None, optional(REGEX), "A regex for the paths it serves; named groups become {match.NAME}."
    )
    method: tuple[str, ...] = option((), METHODS, "Request methods it serves; empty: any.")
    header: dict[str, Wanted] = family(
        WANTED, "A field that a request must have, with exactly this value or one that ~regex matches."
    )
    query: dict[str, Wanted] = family(
        WANTED, "A query parameter that a request must have, decoded; one of several equal names is enough."
    )
    cookie: dict[str, Wanted] = family(
        WANTED, "A cookie that a request must have, with exactly this value or one that ~regex matches."
    )
    tls: dict[str, Wanted] = family(
        WANTED,
        "A fact of the client's TLS connection: version, sni, client_verify; and of a client's certificate, "
        "once verified: client_subject, client_issuer, client_serial, client_fingerprint, client_san (any "
        "alternative name), client_dns, client_uri, client_spiffe.",
    )
    client: tuple[Network, ...] = option((), CIDRS, "Networks of the clients it serves; empty: any.")
    sni: tuple[Host, ...] = option(
        (),
        NAMES,
        "On TCP listeners: names that TLS clients ask for, example.org or *.example.org (all below it); "
        "empty: any, and clients without TLS. Nothing is decrypted for it.",
    )
    priority: int = option(
        0, integer(-1_000_000, 1_000_000), "Routes of a higher priority are asked first, whatever they match."
    )

    upstream: tuple[Share, ...] = option(
        (), SHARES, "The upstream that answers; several share the requests: app 90%, canary 10%."
    )
    mirror: Share | None = option(
        None,
        optional(SHARE),
        "An upstream that gets a copy of the requests, or of some: canary 10%; its answers are thrown away. "
        "Not copied is a request whose body is larger than that upstream's retry_body, has trailer fields or "
        "was not read to its end before the answer began.",
    )
    redirect: Redirect | None = option(
        None,
        optional(REDIRECT),
        "Sends the client elsewhere: 301 https://{host}{request_uri}; 302 when the status is left out.",
    )
    respond: Respond | None = option(
        None, optional(RESPOND), "Answers at once with a status and a text, such as 200 OK."
    )

    replace_prefix: str = option(
        "", PATH, "What the upstream sees in place of the matched path_prefix; / takes it away."
    )
    rewrite: Rewrite | None = option(
        None,
        optional(REWRITE),
        "A regex for the normalised path and what the upstream sees instead: ^/v1/(.*)$ /$1; the query is "
        "appended unless that ends with a question mark.",
    )
    host_header: Template | None = option(
        None, optional(AUTHORITY), "What the upstream sees as Host; else what the client sent."
    )
    request_header: dict[str, Template] = family(
        FIELD_VALUE, "A field for the upstream, in place of those of this name."
    )
    request_header_add: dict[str, Template] = family(
        FIELD_VALUE, "A field for the upstream, besides those of this name."
    )
    request_header_default: dict[str, Template] = family(
        FIELD_VALUE, "A field for the upstream unless the client sent one of this name."
    )
    request_header_remove: tuple[str, ...] = option((), FIELD_NAMES, "Fields that the upstream does not get.")
    response_header: dict[str, Template] = family(
        FIELD_VALUE, "A field for the client, in place of those of this name, whatever the status."
    )
    response_header_add: dict[str, Template] = family(
        FIELD_VALUE, "A field for the client, besides those of this name, whatever the status."
    )
    response_header_default: dict[str, Template] = family(
        FIELD_VALUE, "A field for the client unless the upstream sent one of this name."
    )
    response_header_remove: tuple[str, ...] = option((), FIELD_NAMES, "Fields that the client does not get.")
    max_body_size: int = option(0, SIZE_OR_OFF, "Largest request body in bytes; a larger one gets 413.")
    access_log: bool = option(True, ON_OFF, "Whether its requests are in the access log.")
    upgrade: bool = option(True, ON_OFF, "Whether clients may upgrade the connection (WebSocket).")
    buffering: bool = option(
        False,
        ON_OFF,
        "Whether a request body is read, up to buffer_size, before a server is chosen; off: it streams.",
    )
    buffer_size: int = option(
        1 << 20, size(1 << 10, 1 << 30), "How much of a request body buffering holds in memory, in bytes."
    )
    connect_timeout: float | None = option(
        None, optional(TIMEOUT), "Longest time until a connection to a server stands; else the upstream's."
    )
    send_timeout: float | None = option(
        None,
        optional(TIMEOUT),
        "Longest wait until a server takes the next bytes of a request; else the upstream's.",
    )
    read_timeout: float | None = option(
        None, optional(TIMEOUT), "Longest wait for the next bytes of a response; else the upstream's."
    )
    request_timeout: float | None = option(
        None, optional(DURATION_OR_OFF), "Longest time for a whole exchange; else the upstream's."
    )
    tunnel_timeout: float | None = option(
        None,
        optional(TIMEOUT),
        "How long an upgraded connection, or a gRPC call, may be silent in both directions; else the "
        "upstream's.",
    )

    def check(self) -> Iterable[tuple[str, str]]:
        """One action, sound field names, and no two options that contradict each other."""
        yield from self._action_mistakes()
        yield from self._target_mistakes()
        yield from self._name_mistakes()
        yield from self._group_mistakes()

    def _action_mistakes(self) -> Iterator[tuple[str, str]]:
        given = [key for key in ACTIONS if getattr(self, key)]
        if not given:
            yield "", "has no action: write upstream = NAME, redirect = 301 URL or respond = 200 TEXT"
        for extra in given[1:]:
            yield extra, f"a route has one action and this one has {given[0]}: remove one of the two"

    def _target_mistakes(self) -> Iterator[tuple[str, str]]:
        if self.replace_prefix and not self.path_prefix:
            yield "replace_prefix", "replaces a path_prefix and the route has none: add path_prefix = /…"
        if self.replace_prefix and self.rewrite is not None:
            yield "rewrite", "the route has replace_prefix, which changes the path too: remove one of the two"

    def _name_mistakes(self) -> Iterator[tuple[str, str]]:
        for key in (*_HEADER_FAMILIES, "header"):
            seen: dict[str, str] = {}
            for name in getattr(self, key):
                first = seen.setdefault(name.lower(), name)
                if first != name:
                    yield f"{key}.{name}", f"{key}.{first} is the same field, case does not matter: keep one"
                wrong = field_name_mistake(name)
                if wrong and (key != "header" or "not a field name" in wrong):
                    yield f"{key}.{name}", wrong
        for name, wanted in self.tls.items():
            if (wrong := tls_mistake(name, wanted)) is not None:
                yield f"tls.{name}", wrong

    def _group_mistakes(self) -> Iterator[tuple[str, str]]:
        path_groups = self.path_regex.names if self.path_regex is not None else {}
        for host in self.host:
            for name in host.regex.names if host.regex is not None else ():
                if name in path_groups:
                    yield "path_regex", f"the group {quoted(name)} is one of host too: rename one of the two"

    def idle(self) -> Iterator[tuple[str, str]]:
        """Options that do nothing beside the others of this route, each the key and why."""
        if not self.upstream:
            action = next((key for key in ACTIONS if getattr(self, key)), "this")
            for key in ON_THE_WAY:
                if getattr(self, key) != _DEFAULTS[key]:
                    for written in _written(key, getattr(self, key)):
                        yield written, f"does nothing beside {action}, which asks no upstream: remove it"
        elif not self.buffering and self.buffer_size != _DEFAULTS["buffer_size"]:
            yield "buffer_size", "does nothing without buffering = on: add that, or remove this"
        yield from self._idle_variables()

    def _idle_variables(self) -> Iterator[tuple[str, str]]:
        regexes = [host.regex for host in self.host] + [self.path_regex]
        known = {name for regex in regexes if regex is not None for name in regex.names}
        for key, template in self._templates():
            for variable in template.variables:
                prefix, _, name = variable.partition(".")
                if prefix == "match" and name not in known:
                    right = (
                        f"known are {', '.join(sorted(known))}"
                        if known
                        else f"write (?P<{name}>…) in path_regex"
                    )
                    yield (
                        key,
                        f"{{{variable}}} is always empty, no regex of the route has that group: {right}",
                    )

    def _templates(self) -> Iterator[tuple[str, Template]]:
        if self.redirect is not None:
            yield "redirect", self.redirect.location
        if self.respond is not None:
            yield "respond", self.respond.text
        if self.host_header is not None:
            yield "host_header", self.host_header
        for key in _HEADER_FAMILIES:
            for name, template in getattr(self, key).items():
                yield f"{key}.{name}", template


_DEFAULTS: Final = {key: getattr(RouteSettings(), key) for key in ON_THE_WAY}


def _written(key: str, value: object) -> list[str]:
    return [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
