"""Why a router passes routes over: what of them does not match, or what is asked before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..config.merge import Configuration
from ..message import Request
from .settings import RouteSettings
from .table import PREFIX, REGEX, Entry, Route, Router
from .values import Host


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A route that was not chosen. `is_near`: it has the host and the path; `is_match`: it has everything."""

    route: str
    origin: str
    why: str
    is_near: bool
    is_match: bool


#: The fields of a Rank: what is said when the other route is greater there.
_EARLIER: Final = {
    "priority": "its priority is lower",
    "host": "its host is less specific",
    "host_length": "its host pattern is shorter",
    "path": "its path is less specific",
    "path_length": "its path pattern is shorter",
    "conditions": "it has fewer conditions",
}


def passed_over(
    router: Router, request: Request, chosen: Route | None, configuration: Configuration
) -> list[PassedOver]:
    """All routes of `router` but `chosen`, by the earliest entry of each."""
    by_route: dict[Route, list[Entry]] = {}
    for entry in router.entries:
        by_route.setdefault(entry.route, []).append(entry)
    winner = None if chosen is None else _matching(by_route[chosen], request)
    return [
        _reason(
            route, entries, request, winner, str(configuration.origin(RouteSettings.KIND, route.name, ""))
        )
        for route, entries in by_route.items()
        if route is not chosen
    ]


def _reason(
    route: Route, entries: list[Entry], request: Request, winner: Entry | None, origin: str
) -> PassedOver:
    wrong = []
    if not any(has_host(entry, request) for entry in entries):
        kind, hosts = ("sni", route.settings.sni) if route.is_tcp else ("host", route.settings.host)
        wrong.append(f"{kind} {request.host or 'is missing, it'} is not {_hosts(hosts)}")
    if not any(has_path(entry, request) for entry in entries):
        wrong.append(f"path is not {_paths(route.settings)}")
    is_near = not wrong
    wrong += [why for condition in route.conditions if (why := condition.why_not(request))]
    if wrong:
        return PassedOver(route.name, origin, "; ".join(wrong), is_near, False)
    mine = _matching(entries, request)
    return PassedOver(route.name, origin, f"matches too, but {_later(mine, winner)}", True, True)


def _matching(entries: list[Entry], request: Request) -> Entry | None:
    """The first of a route's entries that has the request's host and path."""
    return next((entry for entry in entries if has_host(entry, request) and has_path(entry, request)), None)


def _later(mine: Entry | None, winner: Entry | None) -> str:
    if mine is not None and winner is not None:
        for name, own, others in zip(mine.rank._fields, mine.rank, winner.rank, strict=True):
            if own < others:
                return (
                    f"{_EARLIER[name]} than that of {winner.route.name}"
                    if name != "conditions"
                    else (f"{_EARLIER[name]} than {winner.route.name}")
                )
    return "its name comes later"


def has_host(entry: Entry, request: Request) -> bool:
    """Whether the host of the entry is the request's."""
    host = entry.pattern.host
    if host is None:
        return True
    if host.regex is not None:
        return host.regex.test(request.host)
    if host.exact:
        return request.host == host.exact
    return len(request.host) > len(host.suffix) and request.host.endswith(host.suffix)


def has_path(entry: Entry, request: Request) -> bool:
    """Whether the path of the entry is the request's."""
    pattern, path = entry.pattern, request.path
    if pattern.kind == PREFIX:
        return path == pattern.path or path.startswith(f"{pattern.path}/") or not pattern.path
    if pattern.kind == REGEX and pattern.regex is not None:
        return path != "*" and pattern.regex.test(path)
    return not pattern.kind or path == pattern.path


def _hosts(hosts: tuple[Host, ...]) -> str:
    return _either([str(host) for host in hosts])


def _paths(settings: RouteSettings) -> str:
    texts = [*settings.path, *(f"{prefix} and below" for prefix in settings.path_prefix)]
    if settings.path_regex is not None:
        texts.append(f"~{settings.path_regex}")
    return _either(texts)


def _either(texts: list[str], most: int = 4) -> str:
    shown = texts if len(texts) <= most else [*texts[:most], f"{len(texts) - most} more"]
    return " or ".join(shown)
