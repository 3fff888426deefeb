"""What the upstream is asked for: the target (`replace_prefix`, `rewrite`) and the host (`host_header`).

A target is rewritten from the normalised path and encoded again, so the upstream gets no escape that the
proxy read otherwise; the query stays as the client wrote it. Without these options the client's bytes pass.
"""

from __future__ import annotations

import re
from typing import Final, Self

from ..errors import Malformed
from ..message import Handler, Request, Response
from ..routing.regex import Match, Regex
from ..routing.settings import RouteSettings
from ..routing.template import Template
from ..wire.target import normal_path, quote_path
from .base import Policy

#: uri-host [ ":" port ] (RFC 9110 section 7.2), as strict as what clients may send.
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~!$&'()*+,;=-]{1,255})(?::[0-9]{1,5})?"
)


#: Everything but query (RFC 3986 section 3.4) and the escapes that the option's text already has.
_NOT_IN_QUERY: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]")
#: Everything but unreserved: a group is a value inside a query, never a separator.
_NOT_IN_ARGUMENT: Final = re.compile(rb"[^A-Za-z0-9._~-]")
_GROUP: Final = re.compile(r"\$([1-9])")


class ReplacePrefix(Policy):
    """Replaces the matched prefix, by whole segments; never makes `//` at the joint."""

    __slots__ = ("_base", "_prefixes", "_replacement")

    def __init__(self, prefixes: tuple[str, ...], replacement: str) -> None:
        # The longest first: that is the one the route was chosen by.
        self._prefixes = tuple(sorted((prefix.rstrip("/") for prefix in prefixes), key=len, reverse=True))
        self._replacement = replacement
        self._base = replacement.rstrip("/")

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for `replace_prefix`; None when it is not given."""
        return cls(settings.path_prefix, settings.replace_prefix) if settings.replace_prefix else None

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with the new target."""
        path = request.path
        for prefix in self._prefixes:
            if path == prefix or path.startswith(prefix + "/"):
                rest = path[len(prefix) :]
                _, mark, query = request.head.origin.partition(b"?")
                request.target = _encoded(self._base + rest if rest else self._replacement) + mark + query
                break
        return forward(request)


class Rewrite(Policy):
    """Replaces the whole path when a regex matches it.

    `$1` to `$9` in the replacement are the groups of the match. The client's query is appended, behind the
    replacement's own if it has one; a replacement that ends with `?` leaves it out.
    """

    __slots__ = ("_arguments", "_keeps_query", "_path", "_pattern")

    def __init__(self, pattern: Regex, replacement: str) -> None:
        self._pattern = pattern
        path, _, arguments = replacement.partition("?")
        self._keeps_query = not replacement.endswith("?")
        self._path = _parts(path)
        self._arguments = _parts(arguments.removesuffix("?"))

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for `rewrite`; None when it is not given."""
        rewrite = settings.rewrite
        return None if rewrite is None else cls(rewrite.pattern, rewrite.replacement)

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with the new target. Raises Malformed("bad_path") when the new path leaves the root."""
        found = self._pattern.search(request.path) if request.path != "*" else None
        if found is not None:
            path = [part if isinstance(part, str) else found.group(part) or "" for part in self._path]
            request.target = _encoded("".join(path)) + self._query(found, request)
        return forward(request)

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


class HostHeader(Policy):
    """Says which Host the upstream sees."""

    __slots__ = ("_template",)

    def __init__(self, template: Template) -> None:
        self._template = template

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for `host_header`; None when it is not given."""
        return cls(settings.host_header) if settings.host_header is not None else None

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with that Host; an empty one leaves the client's. Raises Malformed("bad_host")."""
        host = self._template.render_bytes(request)
        if host:
            if self._template.constant is None and not _AUTHORITY.fullmatch(host):
                raise Malformed("bad_host")
            request.host_header = host
        return forward(request)


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
