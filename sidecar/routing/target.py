"""What a route makes of a request's target: the bytes that its upstream is asked for.

A target is rewritten from the normalised path and encoded again, so that the upstream gets no escape that the
proxy read otherwise. The query stays as the client wrote it; a route that rewrites nothing keeps all bytes.
"""

from __future__ import annotations

import re
from typing import Final

from ..message import Request
from ..wire.target import normal_path, quote_path
from .settings import RouteSettings
from .values import Rewrite

#: Everything but query (RFC 3986 section 3.4) and the escapes that the option's text already has.
_NOT_IN_QUERY: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]")
#: Everything but unreserved: a group is a value inside a query, never a separator.
_NOT_IN_ARGUMENT: Final = re.compile(rb"[^A-Za-z0-9._~-]")
_GROUP: Final = re.compile(r"\$([1-9])")


def upstream_target(settings: RouteSettings, request: Request) -> bytes:
    """The target that the upstream of a route gets. Raises Malformed when a rewrite leaves the root."""
    if settings.replace_prefix:
        return _replaced(settings.path_prefix, settings.replace_prefix, request)
    if settings.rewrite is not None:
        return _rewritten(settings.rewrite, request)
    return request.head.origin


def _replaced(prefixes: tuple[str, ...], replacement: str, request: Request) -> bytes:
    path, origin = request.path, request.head.origin
    # The longest is the one the route was chosen by.
    for prefix in sorted((prefix.rstrip("/") for prefix in prefixes), key=len, reverse=True):
        if path == prefix or path.startswith(f"{prefix}/"):
            rest = path[len(prefix) :]
            _, mark, query = origin.partition(b"?")
            return _encoded(replacement.rstrip("/") + rest if rest else replacement) + mark + query
    return origin


def _rewritten(rewrite: Rewrite, request: Request) -> bytes:
    origin = request.head.origin
    found = rewrite.pattern.search(request.path) if request.path != "*" else None
    if found is None:
        return origin
    path, _, arguments = rewrite.replacement.partition("?")
    target = _encoded(_GROUP.sub(lambda part: found.group(int(part[1])) or "", path))
    own = b"".join(
        _escaped(_NOT_IN_ARGUMENT, found.group(int(part)) or "") if at % 2 else _escaped(_NOT_IN_QUERY, part)
        for at, part in enumerate(_GROUP.split(arguments.removesuffix("?")))
    )
    theirs = b"" if rewrite.replacement.endswith("?") else origin.partition(b"?")[2]
    query = b"&".join(part for part in (own, theirs) if part)
    return target + b"?" + query if query else target


def _encoded(path: str) -> bytes:
    target = quote_path(path)
    # A rewrite may put together what was apart; what the upstream gets is normal again.
    if not path.startswith("/") or "//" in path or "/." in path:
        target = quote_path(normal_path(b"/" + target))
    return target


def _escaped(unsafe: re.Pattern[bytes], text: str) -> bytes:
    return unsafe.sub(lambda byte: b"%%%02X" % ord(byte[0]), text.encode("utf-8", "surrogateescape"))
