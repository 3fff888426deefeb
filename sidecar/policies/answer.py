"""The ends of routes that answer themselves: `redirect` and `respond`.

They are handlers, not policies: nothing is below them.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import Malformed
from ..message import Handler, Request, Response
from ..routing.settings import RouteSettings
from ..template import Template
from ..wire.head import ResponseHead

#: What a URI reference cannot hold (RFC 3986 section 2); `%` stays: escapes of the client pass through.
_NOT_IN_URI: Final = re.compile(rb"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
_LEADING_SLASHES: Final = re.compile(rb"^/{2,}")
_WITHOUT_BODY: Final = frozenset({204, 304})
_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")


def answer(settings: RouteSettings) -> Handler | None:
    """The end of a route that answers itself; None for other routes."""
    if settings.redirect is not None:
        return redirect(settings.redirect.status, settings.redirect.location)
    if settings.respond is not None:
        return respond(settings.respond.status, settings.respond.text)
    return None


def redirect(status: int, location: Template) -> Handler:
    """A handler that sends the client to `location`, which stays as it is written: nothing makes it absolute.

    Bytes that a URI cannot hold are percent-encoded, so that no header can be injected. Variables cannot turn
    a path into `//host`, which would lead to a host that the client chose. The handler raises
    Malformed("missing_host") when the location names the host and an HTTP/1.0 request does not.
    """
    may_lead_away = location.constant is None and not location.literal_start.startswith("//")
    needs_host = "host" in location.variables

    def handler(request: Request) -> Response:
        if needs_host and not request.host:
            raise Malformed("missing_host")
        target = _NOT_IN_URI.sub(_escape, location.render(request).encode("utf-8", "surrogateescape"))
        if may_lead_away:
            target = _LEADING_SLASHES.sub(b"/", target)
        fields = [(b"Location", target)] if target else []
        return _answer(status, fields, b"", request)

    return handler


def respond(status: int, text: Template) -> Handler:
    """A handler that answers with a text: text/plain in UTF-8 unless the route sets Content-Type.

    An answer to HEAD and one of status 204 or 304 has no body.
    """
    if status in _WITHOUT_BODY:
        return lambda request: Response(_head(status, [], -1, request.head.method))
    fields = [_TEXT]
    if text.constant is None:
        return lambda request: _answer(
            status, fields, text.render(request).encode("utf-8", "surrogateescape"), request
        )
    body = text.constant.encode("utf-8", "surrogateescape")
    # Heads never change, so all answers share the two that there are.
    whole = _head(status, fields, len(body), b"GET")
    alone = _head(status, fields, len(body), b"HEAD")

    def handler(request: Request) -> Response:
        return Response(alone) if request.head.method == b"HEAD" else Response(whole, body)

    return handler


def _answer(status: int, fields: list[tuple[bytes, bytes]], body: bytes, request: Request) -> Response:
    method = request.head.method
    head = _head(status, fields, len(body), method)
    return Response(head, None if method == b"HEAD" else body)


def _head(status: int, fields: list[tuple[bytes, bytes]], length: int, method: bytes) -> ResponseHead:
    return ResponseHead.make(status, fields, length=length, request_method=method)


def _escape(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(found[0])
