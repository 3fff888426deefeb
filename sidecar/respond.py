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

#: What a person who reads the reason cannot guess.
_SENTENCES: Final[dict[str, str]] = {"plain_http": "this port speaks TLS: use https://"}

#: gRPC status codes for our own failures (the mapping that gRPC's documentation gives for HTTP statuses, with
#: what we know better), so that a client of a failed call sees a gRPC error and not a broken stream.
_GRPC_OF_REASON: Final[dict[str, int]] = {
    "client_gone": 1,  # CANCELLED
    "upstream_read_timeout": 4,  # DEADLINE_EXCEEDED: it may have been executed
    "response_timeout": 4,
    "request_body_too_large": 8,  # RESOURCE_EXHAUSTED
}
_GRPC_OF_STATUS: Final[dict[int, int]] = {
    400: 13,  # INTERNAL
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 12,  # UNIMPLEMENTED
    405: 12,
    429: 14,  # UNAVAILABLE: safe to ask again
    431: 8,
    500: 13,
    501: 12,
    502: 14,
    503: 14,
    504: 14,
}
_GRPC_UNKNOWN: Final = 2

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


def grpc_failure(error: Failure | Malformed) -> Response:
    """The same for a call of gRPC: "Trailers-Only", HTTP status 200 and the gRPC status of the failure."""
    if isinstance(error, Malformed):
        reason, details, proxy_error = "malformed_request", error.rule, "http_request_error"
    else:
        reason = details = error.reason
        proxy_error = error.proxy_error
    return Response(_grpc_answer(grpc_status(error), proxy_error, details), None, reason)


def grpc_status(error: Failure | Malformed) -> int:
    """The gRPC status of a failure."""
    known = 0 if isinstance(error, Malformed) else _GRPC_OF_REASON.get(error.reason, 0)
    return known or _GRPC_OF_STATUS.get(error.status, _GRPC_UNKNOWN)


def grpc_end(error: Failure) -> bytes:
    """The trailer fields of a call that failed when its answer had begun, as lines."""
    return b"grpc-status: %d\r\ngrpc-message: %b\r\n" % (grpc_status(error), error.reason.encode("ascii"))


@lru_cache(maxsize=256)
def _grpc_answer(number: int, proxy_error: str, details: str) -> ResponseHead:
    fields = [
        (b"Content-Type", b"application/grpc"),
        (b"Grpc-Status", b"%d" % number),
        (b"Grpc-Message", details.encode("ascii")),
        (b"Proxy-Status", f'sidecar; error={proxy_error}; details="{details}"'.encode("ascii")),
    ]
    return ResponseHead.make(200, fields, length=0)


# Heads never change, so those of one kind are one: a flood of failures costs little.
@lru_cache(maxsize=256)
def _answer(
    status: int, proxy_error: str, details: str, retry_after: int, is_head: bool
) -> tuple[ResponseHead, bytes]:
    sentence = f" ({_SENTENCES[details]})" if details in _SENTENCES else ""
    body = f"{status} {PHRASES.get(status, 'Unknown')}: {details}{sentence}\n".encode("ascii")
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
