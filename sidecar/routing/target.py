"""What a route makes of a request's target: the bytes that its upstream is asked for.

A target is rewritten from the normalised path and encoded again, so that the upstream gets no escape that the
proxy read otherwise. The query stays as the client wrote it; a route that rewrites nothing keeps all bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from ..message import Request
from ..wire.target import normal_path, quote_path
from .settings import RouteSettings

#: Everything but query (RFC 3986 section 3.4) and the escapes that the option's text already has.
_NOT_IN_QUERY: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]")
#: Everything but unreserved: a group is a value inside a query, never a separator.
_NOT_IN_ARGUMENT: Final = re.compile(rb"[^A-Za-z0-9._~-]")
_GROUP: Final = re.compile(r"\$([1-9])")

#: The new target of a request, None when it stays. Raises Malformed("bad_path") when it would leave the root.
Retarget = Callable[[Request], bytes | None]


class Match(Protocol):
    """What a regex found."""

    def group(self, number: int, /) -> str | None:
        """The text of a group, None when it took no part."""


class Pattern(Protocol):
    """A regex of the configuration."""

    def search(self, text: str, /) -> Match | None:
        """The first match anywhere in `text`."""


class PrefixReplacement:
    """Replaces the matched prefix, by whole segments; never makes `//` at the joint."""

    __slots__ = ("_base", "_prefixes", "_replacement")

    def __init__(self, prefixes: tuple[str, ...], replacement: str) -> None:
        # The longest first: that is the one the route was chosen by.
        self._prefixes = tuple(sorted((prefix.rstrip("/") for prefix in prefixes), key=len, reverse=True))
        self._replacement = replacement
        self._base = replacement.rstrip("/")

    def __call__(self, request: Request) -> bytes | None:
        """The new target."""
        path = request.path
        for prefix in self._prefixes:
            if path == prefix or path.startswith(f"{prefix}/"):
                rest = path[len(prefix) :]
                _, mark, query = request.head.origin.partition(b"?")
                return _encoded(self._base + rest if rest else self._replacement) + mark + query
        return None


class PathRewriting:
    """Replaces the whole path when a regex matches it.

    `$1` to `$9` in the replacement are the groups of the match. The client's query is appended, behind the
    replacement's own if it has one; a replacement that ends with `?` leaves it out.
    """

    __slots__ = ("_arguments", "_keeps_query", "_path", "_pattern")

    def __init__(self, pattern: Pattern, replacement: str) -> None:
        self._pattern = pattern
        path, _, arguments = replacement.partition("?")
        self._keeps_query = not replacement.endswith("?")
        self._path = _parts(path)
        self._arguments = _parts(arguments.removesuffix("?"))

    def __call__(self, request: Request) -> bytes | None:
        """The new target; None when the regex does not match."""
        found = self._pattern.search(request.path) if request.path != "*" else None
        if found is None:
            return None
        path = [part if isinstance(part, str) else found.group(part) or "" for part in self._path]
        return _encoded("".join(path)) + self._query(found, request)

    def _query(self, found: Match, request: Request) -> bytes:
        own = b"".join(
            [
                _escaped(_NOT_IN_QUERY, part)
                if isinstance(part, str)
                else _escaped(_NOT_IN_ARGUMENT, found.group(part) or "")
                for part in self._arguments
            ]
        )
        theirs = request.head.origin.partition(b"?")[2] if self._keeps_query else b""
        joined = b"&".join([query for query in (own, theirs) if query])
        return b"?" + joined if joined else b""


def retarget(settings: RouteSettings) -> Retarget | None:
    """What a route does to targets; None when it keeps the client's bytes."""
    if settings.replace_prefix:
        return PrefixReplacement(settings.path_prefix, settings.replace_prefix)
    if settings.rewrite is not None:
        return PathRewriting(settings.rewrite.pattern, settings.rewrite.replacement)
    return None


def upstream_target(settings: RouteSettings, request: Request) -> bytes:
    """The target that the upstream of a route gets. Raises Malformed("bad_path")."""
    change = retarget(settings)
    return (change(request) if change is not None else None) or request.head.origin


def _encoded(path: str) -> bytes:
    """The target for a new path. Raises Malformed("bad_path") when it leaves the root."""
    target = quote_path(path)
    # A rewrite may put together what was apart; what the upstream gets is normal again.
    if not path.startswith("/") or "//" in path or "/." in path:
        target = quote_path(normal_path(b"/" + target))
    return target


def _parts(replacement: str) -> tuple[str | int, ...]:
    """Texts and numbers of groups, in turn."""
    split = _GROUP.split(replacement)
    return tuple(int(part) if at % 2 else part for at, part in enumerate(split) if part)


def _escaped(unsafe: re.Pattern[bytes], text: str) -> bytes:
    return unsafe.sub(_escape, text.encode("utf-8", "surrogateescape"))


def _escape(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(found[0])
