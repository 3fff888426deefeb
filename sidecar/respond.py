"""Failures become responses here, and nowhere else.

A response names the reason, which is stable, and nothing that somebody else wrote: no byte of the client, no
address of an upstream, no detail of the log. Whether the connection survives is decided by the session.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from .errors import REASONS, Failure, Malformed
from .message import Response
from .runtime import Clock, SystemClock
from .wire.head import ResponseHead

#: The reason phrases of RFC 9110, and of 499, which only logs see: nobody is there to read it.
PHRASES: Final[dict[int, str]] = {status.value: status.phrase for status in HTTPStatus} | {
    499: "Client Closed Request"
}

#: A 405 must name what is allowed (RFC 9110 section 15.5.6); the one method never allowed is CONNECT.
_ALLOW: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def failure(error: Failure | Malformed, request_method: bytes) -> Response:
    """The response for a request that failed. For a Malformed, which is the client's here, its rule is named.

    `Response.reason` is a key of REASONS. An answer to HEAD has no body.
    """
    if isinstance(error, Malformed):
        reason, details = "malformed_request", error.rule
        proxy_error = REASONS[reason].proxy_error
        retry_after = 0
    else:
        reason = details = error.reason
        proxy_error = error.proxy_error
        retry_after = error.retry_after
    is_head = request_method == b"HEAD"
    head, body = _answer(error.status, proxy_error, details, retry_after, is_head)
    return Response(head, None if is_head else body, reason)


# Heads never change, so those of one kind are one: a flood of failures costs little.
@lru_cache(maxsize=256)
def _answer(
    status: int, proxy_error: str, details: str, retry_after: int, is_head: bool
) -> tuple[ResponseHead, bytes]:
    body = f"{status} {PHRASES.get(status, 'Unknown')}: {details}\n".encode("ascii")
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Cache-Control", b"no-store"),
        (b"Proxy-Status", f'sidecar; error={proxy_error}; details="{details}"'.encode("ascii")),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append((b"Retry-After", b"%d" % retry_after))
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        fields.append((b"Allow", _ALLOW))
    method = b"HEAD" if is_head else b"GET"
    return ResponseHead.make(status, fields, length=len(body), request_method=method), body


class DateLine:
    """The Date field for messages that have none (RFC 9110 section 6.6.1), made anew once a second."""

    __slots__ = ("_clock", "_line", "_second")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._line = b""

    def __call__(self) -> bytes:
        """The complete line."""
        second = int(self._clock.time())
        if second != self._second:
            self._second = second
            self._line = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._line


date_line = DateLine(SystemClock())
