"""Routes that can match the same request and are equal in the whole order, with a request that shows it.

Only entries of equal rank can be ambiguous, and of those only such with the same literal host and path:
entries are grouped by these first, so the work is near linear. A request that is known to match both is a
mistake; one that was found by trying, because regexes are compared, is a warning.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ..wire.target import quote_path
from .conditions import (
    ClientCondition,
    Condition,
    CookieCondition,
    MethodCondition,
    QueryCondition,
    TlsCondition,
    ValueCondition,
    exclude,
    place,
)
from .regex import Regex
from .samples import literal_start, paths, samples
from .table import Entry

#: Pairs of one group that are compared; only regexes that begin alike make a group that has more.
_MOST_PAIRS: Final = 20_000
_SMALL: Final = 16  # entries that are compared each with each without further thought


class Ambiguity(NamedTuple):
    """Two entries, a request that both match, and whether that was known or found by trying."""

    one: Entry
    other: Entry
    example: str
    is_certain: bool


class _Found(NamedTuple):
    """A text that two patterns match; `is_certain` when it needed no trying."""

    text: str
    is_certain: bool


def ambiguities(entries: Iterable[Entry]) -> Iterator[Ambiguity]:
    """The ambiguities among entries of one listener; each route is told of once, beside another one."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        pattern = entry.pattern
        host = pattern.host if pattern.host is not None and pattern.host.regex is None else None
        groups.setdefault((entry.rank, host, pattern.path), []).append(entry)
    told: set[str] = set()
    for group in groups.values():
        if len(group) > 1:
            for pair in itertools.islice(_pairs(group, frozenset()), _MOST_PAIRS):
                one, other = sorted(pair, key=lambda entry: entry.order)
                if one.route is not other.route and other.route.name not in told:
                    found = _compare(one, other)
                    if found is not None:
                        told.add(other.route.name)
                        yield found


# Pairs ------------------------------------------------------------------------------------------------------


def _pairs(group: Sequence[Entry], split: frozenset[str]) -> Iterator[tuple[Entry, Entry]]:
    """The pairs worth comparing. `split` are the places by whose values the group was split already."""
    if len(group) <= _SMALL:
        yield from itertools.combinations(group, 2)
        return
    where = _splitting_place(group, split)
    if where is not None:
        parts: dict[str, list[Entry]] = {}
        for entry in group:
            for value in _literals(entry, where):
                parts.setdefault(value, []).append(entry)
        for part in parts.values():
            yield from _pairs(part, split | {where})
    elif _regex(group[0]) is not None:
        yield from _regex_pairs(group)
    else:
        yield from itertools.combinations(group, 2)


def _splitting_place(group: Sequence[Entry], split: frozenset[str]) -> str | None:
    """A place where every entry wants literal values, and no two entries can want the same by other means."""
    for condition in group[0].conditions:
        where = place(condition)
        if where not in split and all(_literals(entry, where) for entry in group):
            return where
    return None


def _literals(entry: Entry, where: str) -> tuple[str, ...]:
    for condition in entry.conditions:
        if place(condition) == where:
            if isinstance(condition, MethodCondition):
                return condition.methods
            if isinstance(condition, ValueCondition) and condition.wanted.regex is None:
                return (condition.wanted.text,)
    return ()


def _regex(entry: Entry) -> Regex | None:
    host = entry.pattern.host
    return entry.regex or (host.regex if host is not None else None)


def _regex_pairs(group: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Pairs that a text can match both of: what all matches of one begin with begins the other's too."""
    starts: dict[str, list[Entry]] = {}
    for entry in group:
        starts.setdefault(_start(entry), []).append(entry)
    for start, entries in starts.items():
        yield from itertools.combinations(entries, 2)
        for end in range(len(start)):
            yield from itertools.product(starts.get(start[:end], ()), entries)


def _start(entry: Entry) -> str:
    regex = _regex(entry)
    return "" if regex is None else literal_start(regex)


# One pair ---------------------------------------------------------------------------------------------------


def _compare(one: Entry, other: Entry) -> Ambiguity | None:
    host = _common_host(one, other)
    path = _common_path(one, other) if host is not None else None
    if host is None or path is None:
        return None
    conditions = _common_conditions(one, other)
    if conditions is None:
        return None
    wanted, is_certain = conditions
    if one.route.is_tcp:
        example = _connection(one, host.text, wanted)
    else:
        example = _example(host.text, path.text, wanted)
    return Ambiguity(one, other, example, is_certain and host.is_certain and path.is_certain)


def _common(
    one: Regex, other: Regex, write: Callable[[Regex], tuple[str, ...]], unknown: str
) -> _Found | None:
    found = next((text for text in (*write(one), *write(other)) if one.test(text) and other.test(text)), None)
    if one == other:
        return _Found(unknown if found is None else found, True)
    return None if found is None else _Found(found, False)


def _common_host(one: Entry, other: Entry) -> _Found | None:
    mine, others = one.pattern.host, other.pattern.host
    if mine is None or others is None:
        return _Found("example.org", True)
    if mine.regex is not None and others.regex is not None:
        return _common(mine.regex, others.regex, samples, "HOST")
    return _Found(mine.exact or f"a{mine.suffix}", True)


def _common_path(one: Entry, other: Entry) -> _Found | None:
    if one.regex is not None and other.regex is not None:
        return _common(one.regex, other.regex, paths, "/PATH")
    return _Found(one.pattern.path or "/", True)


def _common_conditions(one: Entry, other: Entry) -> tuple[dict[str, tuple[Condition, str]], bool] | None:
    """What a request for both needs, by place, each with a value; None when no such request is known."""
    wanted = {place(condition): (condition, _value(condition)) for condition in one.conditions}
    is_certain = True
    for condition in other.conditions:
        where = place(condition)
        mine = wanted.get(where)
        if mine is None:
            wanted[where] = condition, _value(condition)
        elif exclude(mine[0], condition):
            return None
        else:
            found = _common_value(mine[0], condition)
            if found is None:
                return None
            wanted[where] = condition, found.text
            is_certain = is_certain and found.is_certain
    return wanted, is_certain


def _common_value(one: Condition, other: Condition) -> _Found | None:
    if isinstance(one, MethodCondition) and isinstance(other, MethodCondition):
        return _Found(next(method for method in one.methods if method in other.methods), True)
    if isinstance(one, ClientCondition) and isinstance(other, ClientCondition):
        nets = itertools.product(one.networks, other.networks)
        both = next((a, b) for a, b in nets if a.version == b.version and a.overlaps(b))
        return _Found(str(max(both, key=lambda network: network.prefixlen).network_address), True)
    if isinstance(one, ValueCondition) and isinstance(other, ValueCondition):
        mine, others = one.wanted.regex, other.wanted.regex
        if mine is not None and others is not None:
            return _common(mine, others, samples, f"~{mine}")
        return _Found(one.wanted.text if mine is None else other.wanted.text, True)
    return None


def _value(condition: Condition) -> str:
    if isinstance(condition, MethodCondition):
        return condition.methods[0]
    if isinstance(condition, ClientCondition):
        return str(condition.networks[0].network_address)
    if isinstance(condition, ValueCondition):
        regex = condition.wanted.regex
        return condition.wanted.text if regex is None else next(iter(samples(regex)), f"~{regex}")
    return ""


def _example(host: str, path: str, wanted: dict[str, tuple[Condition, str]]) -> str:
    """A request as people write one: method, URL, and what else it needs."""
    method, query, extra = "GET", [], []
    for condition, value in wanted.values():
        if isinstance(condition, MethodCondition):
            method = value
        elif isinstance(condition, ClientCondition):
            extra.append(f"from {value}")
        elif isinstance(condition, QueryCondition):
            query.append(f"{quote(condition.name)}={quote(value)}")
        elif isinstance(condition, CookieCondition):
            extra.append(f"with 'Cookie: {condition.name}={value}'")
        elif isinstance(condition, TlsCondition):
            extra.append(f"with {condition.key} = {value}")
        elif isinstance(condition, ValueCondition):
            extra.append(f"with '{condition.name}: {value}'")
    url = f"http://{host}{quote_path(path).decode('ascii')}{'?' if query else ''}{'&'.join(query)}"
    return " ".join([method, url, *extra])


def _connection(entry: Entry, name: str, wanted: dict[str, tuple[Condition, str]]) -> str:
    """A connection as people tell of one: the name that it asks for, and where it comes from."""
    origin = "".join(
        f" with {condition.key} = {value}" if isinstance(condition, TlsCondition) else f" from {value}"
        for condition, value in wanted.values()
    )
    return f"a connection{'' if entry.pattern.host is None else f' to {name}'}{origin}"
