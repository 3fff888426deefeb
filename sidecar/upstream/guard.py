# cython: language_level=3, annotation_typing=False
"""What may keep a request away from an upstream with enough to do, or enough trouble. Off, it costs nothing.

Law: whoever was admitted is settled, exactly once, when the response has begun or will not come.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final, TypeVar

from ..errors import Failure
from ..message import Handler, Request, Response
from ..wire.grpc import SERVER_ERRORS
from .breaker import Breaker
from .concurrency import Concurrency
from .retry import COUNTED

T = TypeVar("T")

#: From here on a status says that the server failed.
_SERVER_ERROR: Final = 500
#: A server that does too much takes longer, and these took at least that long.
_SLOW: Final = frozenset(("upstream_read_timeout", "response_timeout", "connection_timeout"))


class Guard:
    """The circuit breaker and the limit of an upstream, as far as they are on."""

    __slots__ = ("_breaker", "_concurrency", "_now")

    def __init__(
        self, breaker: Breaker | None, concurrency: Concurrency | None, now: Callable[[], float]
    ) -> None:
        self._breaker = breaker
        self._concurrency = concurrency
        self._now = now

    def run(self, request: Request, handler: Handler) -> Response:
        """What `handler` answers, if the request is let through to it. Raises Failure."""
        began = self._now()
        period = self._admit(began)
        try:
            response = handler(request)
        except BaseException as error:
            self._settle_failed(error, period, began)
            raise
        failed = response.head.status >= _SERVER_ERROR or request.grpc_status in SERVER_ERRORS
        self._settle(period, failed, began, True)
        return response

    def connect(self, request: Request, connect: Callable[[Request], T]) -> T:
        """What `connect` makes, if a connection is let through to it; it is settled when that stands."""
        began = self._now()
        period = self._admit(began)
        try:
            link = connect(request)
        except BaseException as error:
            self._settle_failed(error, period, began)
            raise
        self._settle(period, False, began, True)
        return link

    def _settle_failed(self, error: BaseException, period: int, began: float) -> None:
        reason = error.reason if isinstance(error, Failure) else ""
        self._settle(period, True if reason in COUNTED else None, began, reason in _SLOW)

    def _admit(self, now: float) -> int:
        breaker, concurrency = self._breaker, self._concurrency
        period = 0
        if breaker is not None:
            wait = breaker.allow(now)
            if wait:
                raise Failure("circuit_open", f"for {wait:.1f} s more", retry_after=ceil(wait))
            period = breaker.period
        if concurrency is not None and not concurrency.enter(now):
            if breaker is not None:
                breaker.forget(period)
            raise Failure("upstream_overloaded", f"{concurrency.active} requests are in progress")
        return period

    def _settle(self, period: int, failed: bool | None, began: float, is_measure: bool) -> None:
        now = self._now()
        if self._concurrency is not None:
            self._concurrency.leave(now - began if is_measure else None, now)
        if self._breaker is None:
            return
        if failed is None:
            self._breaker.forget(period)
        else:
            self._breaker.observe(failed, now, period)
