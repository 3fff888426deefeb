# cython: language_level=3, annotation_typing=False
"""When an attempt is made again at another server.

Law: what the client asked for is not executed twice unless the method, the client or the configuration says
that it may be. Attempts include the first. The last one's result is the client's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..config.kinds import DURATION_OR_OFF, integer, size
from ..config.schema import Kind, option, quoted
from ..errors import Failure
from ..message import Request

#: RFC 9110 section 9.2.2: asking twice means the same as asking once.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))

#: The server was reached, and nothing was sent to it for want of a secure connection.
_NOT_SECURE: Final = ("tls_verify", "tls_failed", "tls_alert")

#: The server did not act on the request, for its connection had no room or was about to end (RFC 9113 8.7).
_REFUSED: Final = "stream_refused"

#: Conditions with nginx's names → the reasons that they mean.
_REASONS: Final = {
    "error": frozenset(
        (
            "dns_error",
            "connection_refused",
            "connection_failed",
            "connection_terminated",
            *_NOT_SECURE,
            "not_http2",
            _REFUSED,
        )
    ),
    "timeout": frozenset(
        ("connection_timeout", "tls_timeout", "upstream_read_timeout", "upstream_write_timeout")
    ),
    "invalid_header": frozenset(("malformed_response",)),
}
_STATUSES: Final = {f"http_{status}": status for status in (403, 404, 429, 500, 502, 503, 504)}
_NON_IDEMPOTENT: Final = "non_idempotent"
_WORDS: Final = (*_REASONS, *_STATUSES, _NON_IDEMPOTENT)

#: They may make a request go on to another server, and never speak against the one that said so (nginx).
_INNOCENT: Final = frozenset((403, 404))

#: What always speaks against a server, whether it makes a request go on to another or not (nginx).
COUNTED: Final = frozenset().union(*_REASONS.values()) - {_REFUSED}


#: The server was not reached, or says that it did nothing.
UNREACHED: Final = frozenset(
    (
        "connection_refused",
        "connection_failed",
        "connection_timeout",
        *_NOT_SECURE,
        "tls_timeout",
        "not_http2",
        _REFUSED,
    )
)


def _parse(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(re.split(r"[\s,]+", text.strip())))
    if words == ("off",):
        return ()
    for word in words:
        if word not in _WORDS:
            raise ValueError(f"{quoted(word)} is not a condition: write off or some of {' '.join(_WORDS)}")
    if words == (_NON_IDEMPOTENT,):
        raise ValueError(f"{_NON_IDEMPOTENT} alone is no condition: write error timeout {_NON_IDEMPOTENT}")
    return words


CONDITIONS: Final[Kind[tuple[str, ...]]] = Kind(
    "conditions | off", _parse, lambda value: " ".join(value) or "off"
)


@dataclass(frozen=True)
class RetryOptions:
    """When and how often. Times in seconds."""

    retry_on: tuple[str, ...] = option(
        ("error", "timeout"),
        CONDITIONS,
        "After what another server is asked, with nginx's words: error, timeout, invalid_header, http_500 …; "
        "with non_idempotent also for methods like POST that may have been executed.",
    )
    retry_attempts: int = option(
        2,
        integer(1, 100),
        "How many servers may get a request, the first included. One that cannot be reached has got nothing "
        "and does not count: another is asked while there is one, within retry_timeout and retry_budget, so "
        "that servers that die together cost no request. 1: no other is asked, whatever happens.",
    )
    retry_timeout: float = option(
        0.0, DURATION_OR_OFF, "How long after the first attempt began another one may begin."
    )
    retry_body: int = option(
        16 << 10,
        size(0, 1 << 20),
        "Largest request body in bytes that is kept so that it can be sent again, one of unknown length as "
        "it passes; a larger one is sent once.",
    )
    attempt_timeout: float = option(
        0.0,
        DURATION_OR_OFF,
        "Longest time for one attempt until the response begins; to connect and to send the request, with "
        "the body of a slow client, are parts of it.",
    )

    @property
    def why_once(self) -> str:
        """The option that leaves a request one attempt, as it is written; empty: it may have more."""
        if not self.retry_on:
            return "retry_on = off"
        return "retry_attempts = 1" if self.retry_attempts == 1 else ""

    def retry_idle(self) -> Iterator[tuple[str, str]]:
        """Limits of what never happens, each the key and why; `[defaults upstream]` may have them."""
        why = self.why_once
        for key in ("retry_attempts", "retry_timeout", "retry_body"):
            is_reason = why.startswith(f"{key} ")
            if why and not is_reason and getattr(self, key) != getattr(RetryOptions, key):
                yield key, f"has no use with {why}: drop it, or allow more attempts"


def is_idempotent(request: Request) -> bool:
    """Whether to ask twice means the same as to ask once, by the method or by the client's word."""
    # The client says that its servers know a repetition when they see one.
    return request.head.method in IDEMPOTENT or request.head.get(b"idempotency-key") is not None


class Retry:
    """The decision, made once per failed attempt. `counted`: statuses that speak against a server."""

    __slots__ = ("attempts", "body", "counted", "non_idempotent", "reasons", "statuses", "timeout")

    def __init__(self, options: RetryOptions) -> None:
        words = options.retry_on
        self.attempts = options.retry_attempts if words else 1
        self.timeout = options.retry_timeout
        self.body = options.retry_body
        self.reasons: frozenset[str] = frozenset().union(*(_REASONS.get(word, ()) for word in words))
        self.statuses: frozenset[int] = frozenset(_STATUSES[word] for word in words if word in _STATUSES)
        self.counted = self.statuses - _INNOCENT
        self.non_idempotent = _NON_IDEMPOTENT in words

    def may_execute_twice(self, request: Request) -> bool:
        """Whether a server that may have acted on the request does not rule out another one."""
        return self.non_idempotent or is_idempotent(request)

    def allows(self, request: Request, tried: int) -> bool:
        """Whether another server may be asked after so many; those that got nothing do not count."""
        if tried < self.attempts or self.attempts == 1:
            return tried < self.attempts
        return tried - sum(one.reason in UNREACHED for one in request.attempts) < self.attempts

    def after_failure(self, failure: Failure, request: Request) -> bool:
        """Whether this failure lets another server be asked."""
        return failure.reason in self.reasons and (failure.repeatable or self.may_execute_twice(request))

    def after_status(self, status: int, request: Request) -> bool:
        """Whether this answer is thrown away and another server is asked."""
        return status in self.statuses and self.may_execute_twice(request)
