# cython: language_level=3, annotation_typing=False
"""The routes of a listener, arranged so that ten thousand are looked up like one.

Law: of the routes that match, the first in the order is chosen: the highest priority; then the most specific
host (exact, longest wildcard, longest regex, any); then the most specific path (exact, longest regex, longest
prefix, any); then the most other conditions; then, for what is left equal, the name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ..errors import Failure
from ..message import Request, Response
from .conditions import Condition, compiled
from .regex import Regex
from .settings import RouteSettings
from .values import Host

EXACT: Final = 3
REGEX: Final = 2  # of paths; for hosts a wildcard is more specific than a regex
PREFIX: Final = 1
WILDCARD: Final = 2
HOST_REGEX: Final = 1
ANY: Final = 0


class Route:
    """One route: what it is told, and the handler that the assembly gives it."""

    __slots__ = ("conditions", "handler", "is_tcp", "logged", "name", "settings")

    def __init__(self, name: str, settings: RouteSettings, is_tcp: bool = False) -> None:
        self.name = name
        self.is_tcp = is_tcp  # for connections, whose name stands where a request has its host
        self.settings = settings
        self.conditions = compiled(settings)
        self.logged = settings.access_log
        self.handler: Any = None  # message.Handler, or what connects; set by the assembly

    def __repr__(self) -> str:
        return f"<Route {self.name}>"


class Rank(NamedTuple):
    """How early a pattern is asked: the greater, the earlier."""

    priority: int
    host: int
    host_length: int
    path: int
    path_length: int
    conditions: int


class Pattern(NamedTuple):
    """One host and one path of a route; a text is empty where there is none, and a regex None."""

    host: Host | None
    path: str  # exact, or a prefix without its final slash
    regex: Regex | None
    kind: int  # EXACT, REGEX, PREFIX or ANY


class Entry:
    """One pattern of a route at its place in the order."""

    __slots__ = ("captures", "conditions", "order", "pattern", "rank", "regex", "route")

    def __init__(self, route: Route, pattern: Pattern) -> None:
        host = pattern.host
        self.route = route
        self.pattern = pattern
        self.conditions: tuple[Condition, ...] = route.conditions
        self.regex = pattern.regex
        self.captures = bool(
            (pattern.regex and pattern.regex.names) or (host and host.regex and host.regex.names)
        )
        self.rank = Rank(
            route.settings.priority, *_host_rank(host), *_path_rank(pattern), len(route.conditions)
        )
        self.order = 0  # the smaller, the earlier; set by the Router

    def captured(self, request: Request) -> dict[str, str]:
        """The named groups of its regexes in a request that it matches."""
        host, regex = self.pattern.host, self.regex
        groups = host.regex.named(request.host) if host is not None and host.regex is not None else {}
        return groups | regex.named(request.path) if regex is not None else groups

    def __repr__(self) -> str:
        return f"<Entry {self.order} {self.route.name} {self.pattern}>"


def _host_rank(host: Host | None) -> tuple[int, int]:
    if host is None:
        return ANY, 0
    if host.regex is not None:
        return HOST_REGEX, len(host.regex.pattern)
    # Two exact hosts never match one request, so their lengths say nothing.
    return (EXACT, 0) if host.exact else (WILDCARD, len(host.suffix))


def _path_rank(pattern: Pattern) -> tuple[int, int]:
    if pattern.kind == REGEX and pattern.regex is not None:
        return REGEX, len(pattern.regex.pattern)
    return (PREFIX, len(pattern.path)) if pattern.kind == PREFIX else (pattern.kind, 0)


def entries(route: Route) -> list[Entry]:
    """The patterns of a route: each of its hosts with each of its paths."""
    settings = route.settings
    hosts: Sequence[Host | None] = settings.host or settings.sni or (None,)
    paths: list[tuple[str, Regex | None, int]] = [(path, None, EXACT) for path in settings.path]
    paths += [(path.rstrip("/"), None, PREFIX) for path in settings.path_prefix]
    if settings.path_regex is not None:
        paths.append(("", settings.path_regex, REGEX))
    return [Entry(route, Pattern(host, *path)) for host in hosts for path in paths or [("", None, ANY)]]


_LAST: Final = sys.maxsize

#: Entries in their order.
Entries = tuple[Entry, ...]


class _Prefix:
    """A path prefix that routes have, and the next shorter one that they have too."""

    __slots__ = ("after", "entries", "shorter")

    def __init__(self, entries: Entries, shorter: _Prefix | None, after: int) -> None:
        self.entries = entries
        self.shorter = shorter
        self.after = after  # the earliest order among what is asked after this one


class _Paths:
    """The entries of one host, by path. `first` is the earliest order of them."""

    __slots__ = ("_after_exact", "_any", "_depth", "_exact", "_prefixes", "_regexes", "first")

    def __init__(self, entries: Iterable[Entry]) -> None:
        ordered = sorted(entries, key=_order)
        self.first = ordered[0].order
        self._exact = _grouped(ordered, EXACT)
        self._regexes = tuple(entry for entry in ordered if entry.pattern.kind == REGEX)
        prefixes = _grouped(ordered, PREFIX)
        self._any = tuple(entry for entry in ordered if entry.pattern.kind == ANY)
        self._prefixes = _linked(prefixes, _first(self._any))
        self._depth = max((prefix.count("/") for prefix in prefixes), default=-1)
        self._after_exact = min(
            _first(self._regexes), _first(self._any), *(_first(group) for group in prefixes.values()), _LAST
        )

    def find(self, request: Request, best: Entry) -> Entry:
        """The earliest entry that matches, or `best` when none is earlier."""
        path = request.path
        group = self._exact.get(path)
        if group is not None:
            best = _earliest(group, request, best)
        if best.order < self._after_exact:
            return best
        if self._regexes:
            best = self._search(request, path, best)
        if self._depth >= 0:
            best = self._walk(request, path, best)
        return _earliest(self._any, request, best) if self._any else best

    def _search(self, request: Request, path: str, best: Entry) -> Entry:
        if path == "*":  # of OPTIONS: it is no path
            return best
        for entry in self._regexes:
            if entry.order >= best.order:
                break
            regex = entry.regex
            if regex is not None and regex.test(path) and _holds(entry, request):
                return entry
        return best

    def _walk(self, request: Request, path: str, best: Entry) -> Entry:
        """From the longest prefix that routes have to the shortest, by whole segments."""
        end = 0
        for _ in range(self._depth):
            end = path.find("/", end + 1)
            if end < 0:
                end = len(path)
                break
        known = self._prefixes
        prefix = path[:end]
        node = known.get(prefix)
        while node is None and prefix:
            prefix = prefix[: prefix.rfind("/")] if prefix != "*" else ""
            node = known.get(prefix)
        while node is not None:
            entry = node.entries[0]
            if entry.conditions:
                best = _earliest(node.entries, request, best)
            elif entry.order < best.order:
                best = entry
            if best.order < node.after:
                break
            node = node.shorter
        return best


class _Suffix:
    """A wildcard's suffix with its paths, and the next shorter suffix that matches whenever it does."""

    __slots__ = ("after", "paths", "shorter")

    def __init__(self, paths: _Paths, shorter: _Suffix | None) -> None:
        self.paths = paths
        self.shorter = shorter
        self.after: int = _LAST if shorter is None else min(shorter.paths.first, shorter.after)


#: Stands for no entry.
_NONE: Final = Entry(Route("", RouteSettings()), Pattern(None, "", None, ANY))
_NONE.order = _LAST


class Router:
    """The routes of one listener. Nothing in it changes but the routes' handlers."""

    __slots__ = (
        "_after_exact",
        "_any",
        "_depth",
        "_exact",
        "_regexes",
        "_wild",
        "entries",
        "routes",
    )

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self.entries = tuple(sorted((e for route in self.routes for e in entries(route)), key=_before))
        for order, entry in enumerate(self.entries):
            entry.order = order
        kinds: dict[int, dict[Any, list[Entry]]] = {EXACT: {}, WILDCARD: {}, HOST_REGEX: {}, ANY: {}}
        for entry in self.entries:
            kinds[entry.rank.host].setdefault(entry.pattern.host, []).append(entry)
        self._exact = {host.exact: _Paths(group) for host, group in kinds[EXACT].items()}
        self._wild = _suffixes({host.suffix: _Paths(group) for host, group in kinds[WILDCARD].items()})
        self._regexes = _levels({host.regex: _Paths(group) for host, group in kinds[HOST_REGEX].items()})
        everywhere = kinds[ANY].get(None)
        self._any = _Paths(everywhere) if everywhere else None
        self._depth = max((suffix.count(".") for suffix in self._wild), default=0)
        self._after_exact = min((e.order for e in self.entries if e.rank.host <= WILDCARD), default=_LAST)

    def choose(self, request: Request) -> Route | None:
        """The route of a request; sets `request.match` when its regexes have named groups."""
        paths = self._exact.get(request.host)
        best = _NONE if paths is None else paths.find(request, _NONE)
        if best.order >= self._after_exact:
            best = self._rest(request, best)
            if best is _NONE:
                return None
        if best.captures:
            request.match = best.captured(request)
        return best.route

    def __call__(self, request: Request) -> Response:
        """Answer by the route of the request. Raises Failure("no_route")."""
        route = self.choose(request)
        if route is None:
            raise Failure("no_route")
        request.route = route
        response: Response = route.handler(request)
        return response

    def _rest(self, request: Request, best: Entry) -> Entry:
        """The earliest entry, those of exact hosts apart, or `best` when none is earlier."""
        if self._wild:
            best = self._below(request, best)
        for regex, paths in self._regexes:
            if paths.first < best.order and regex.test(request.host):
                best = paths.find(request, best)
        everywhere = self._any
        return best if everywhere is None else everywhere.find(request, best)

    def _below(self, request: Request, best: Entry) -> Entry:
        """From the longest wildcard that routes have to the shortest, by whole labels."""
        host = request.host
        start = len(host)
        for _ in range(self._depth):
            dot = host.rfind(".", 0, start)
            if dot <= 0:
                break
            start = dot
        known = self._wild
        node = known.get(host[start:])
        while node is None and start < len(host):
            start = host.find(".", start + 1)
            if start < 0:
                break
            node = known.get(host[start:])
        while node is not None:
            best = node.paths.find(request, best)
            if best.order < node.after:
                break
            node = node.shorter
        return best


def _order(entry: Entry) -> int:
    return entry.order


def _before(entry: Entry) -> tuple[Any, ...]:
    """Sorts entries into their order. What is equal by the law comes by name, so that files never matter."""
    pattern = entry.pattern
    return (
        *(-number for number in entry.rank),
        entry.route.name,
        str(pattern.host or ""),
        pattern.path,
        str(pattern.regex or ""),
    )


def _first(group: Sequence[Entry]) -> int:
    return group[0].order if group else _LAST


def _holds(entry: Entry, request: Request) -> bool:
    for condition in entry.conditions:  # noqa: SIM110 - a generator would cost more than the conditions
        if not condition.matches(request):
            return False
    return True


def _earliest(group: Entries, request: Request, best: Entry) -> Entry:
    for entry in group:
        if entry.order >= best.order:
            break
        if not entry.conditions or _holds(entry, request):
            return entry
    return best


def _grouped(ordered: Sequence[Entry], kind: int) -> dict[str, Entries]:
    groups: dict[str, list[Entry]] = {}
    for entry in ordered:
        if entry.pattern.kind == kind:
            groups.setdefault(entry.pattern.path, []).append(entry)
    return {path: tuple(group) for path, group in groups.items()}


def _linked(prefixes: dict[str, Entries], first_any: int) -> dict[str, _Prefix]:
    """Each prefix with the shorter ones behind it, which are asked after it, before what has any path."""
    nodes: dict[str, _Prefix] = {}
    for path in sorted(prefixes, key=len):
        shorter = None
        above = path
        while above and shorter is None:
            above = above[: above.rfind("/")]
            shorter = nodes.get(above)
        after = min(first_any, shorter.after, _first(shorter.entries)) if shorter else first_any
        nodes[path] = _Prefix(prefixes[path], shorter, after)
    return nodes


def _suffixes(groups: dict[str, _Paths]) -> dict[str, _Suffix]:
    nodes: dict[str, _Suffix] = {}
    for suffix in sorted(groups, key=len):
        shorter = None
        start = 0
        while shorter is None and start >= 0:
            start = suffix.find(".", start + 1)
            shorter = nodes.get(suffix[start:]) if start > 0 else None
        nodes[suffix] = _Suffix(groups[suffix], shorter)
    return nodes


def _levels(groups: dict[Regex, _Paths]) -> tuple[tuple[Regex, _Paths], ...]:
    """The tables of host regexes, those that can be first before the others."""
    return tuple(sorted(groups.items(), key=lambda item: item[1].first))
