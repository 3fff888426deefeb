"""Routes that no request can reach, as far as easily decided: others without conditions take theirs first."""

from __future__ import annotations

from collections.abc import Iterator

from .table import ANY, EXACT, PREFIX, Entry, Router
from .values import Host

#: By host as it is written, then by the kind of a path and its text: no regexes.
_Earliest = dict[str, dict[tuple[int, str], Entry]]


def unreachable(router: Router) -> Iterator[tuple[str, str]]:
    """(route, another that takes its requests) for each route that is hidden behind others."""
    earliest: _Earliest = {}
    for entry in router.entries:
        pattern, host = entry.pattern, entry.pattern.host
        if pattern.regex is None and (host is None or host.regex is None) and not entry.conditions:
            earliest.setdefault(str(host or ""), {}).setdefault((pattern.kind, pattern.path), entry)
    hidden: dict[str, Entry] = {}
    reached: set[str] = set()
    for entry in router.entries:
        by = _hiding(entry, earliest)
        if by is None:
            reached.add(entry.route.name)
        else:
            hidden.setdefault(entry.route.name, by)
    for name, by in hidden.items():
        if name not in reached:
            yield name, by.route.name


def _hiding(entry: Entry, earliest: _Earliest) -> Entry | None:
    """An earlier entry of another route that matches whatever `entry` does."""
    for host in _covering_hosts(entry.pattern.host):
        known = earliest.get(host)
        if known is None:
            continue
        for key in _covering_paths(entry):
            by = known.get(key)
            # Equal rank is an ambiguity, which is told of as such.
            if by is not None and by.rank > entry.rank and by.route is not entry.route:
                return by
    return None


def _covering_hosts(host: Host | None) -> Iterator[str]:
    yield ""
    if host is None:
        return
    if host.regex is None:
        yield str(host)
    name = host.exact or host.suffix
    at = name.find(".", 1)
    while at > 0:
        yield f"*{name[at:]}"
        at = name.find(".", at + 1)


def _covering_paths(entry: Entry) -> Iterator[tuple[int, str]]:
    yield ANY, ""
    yield PREFIX, ""
    kind, path = entry.pattern.kind, entry.pattern.path
    if kind == EXACT:
        yield EXACT, path
    if kind in (EXACT, PREFIX):
        prefix = path
        while prefix:
            yield PREFIX, prefix
            prefix = prefix[: prefix.rfind("/")]
