"""Routes that no request can reach, as far as easily decided: others without conditions take theirs first."""

from __future__ import annotations

from collections.abc import Iterator

from .table import ANY, EXACT, PREFIX, Entry, Router
from .values import Host

#: A host and a path as literal texts: an exact host or a wildcard's suffix, a kind of path and its text.
_Key = tuple[str, int, str]


def unreachable(router: Router) -> Iterator[tuple[str, str]]:
    """(route, another that takes its requests) for each route that is hidden behind others."""
    earliest: dict[_Key, Entry] = {}
    for entry in router.entries:
        key = _key(entry)
        if key is not None and not entry.conditions:
            earliest.setdefault(key, entry)
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


def _key(entry: Entry) -> _Key | None:
    host = entry.pattern.host
    if entry.regex is not None or (host is not None and host.regex is not None):
        return None
    return (str(host or ""), entry.pattern.kind, entry.pattern.path)


def _hiding(entry: Entry, earliest: dict[_Key, Entry]) -> Entry | None:
    """An earlier entry of another route that matches whatever `entry` does."""
    for host in _covering_hosts(entry.pattern.host):
        for kind, path in _covering_paths(entry):
            by = earliest.get((host, kind, path))
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
