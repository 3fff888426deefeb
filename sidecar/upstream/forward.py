# cython: language_level=3, annotation_typing=False
"""The handler at the end of a route that leads to an upstream: a server is asked, and another when it fails.

Law: whatever server is chosen is given back, exactly once: here when the attempt failed, else by the end of
the body. A request is repeated only when no server can have acted on it, or when twice is as good as once.
"""

from __future__ import annotations

from typing import Final

from ..errors import Failure
from ..message import Attempt, Request, Response
from ..net.body import RequestBody
from ..net.endpoints import has_ended
from .exchange import Exchange, Terms
from .group import Group
from .guard import Guard
from .pool import AnyConnection
from .retry import COUNTED, IDEMPOTENT, Retry
from .server import Server

#: How often in all a server may refuse a stream of a connection that others use before that is its answer.
_MOST_REFUSALS: Final = 5

#: Seconds that a choice takes only when the request has to wait for a server.
_WAIT: Final = 0.001


class Forward:
    """Answers from a group of servers. `buffer`: bytes of a request body to read before one is chosen."""

    __slots__ = ("_buffer", "_group", "_guard", "_retry", "_terms")

    def __init__(
        self, group: Group, retry: Retry, terms: Terms, buffer: int = 0, guard: Guard | None = None
    ) -> None:
        self._group = group
        self._retry = retry
        self._terms = terms
        self._buffer = buffer
        self._guard = guard

    def for_calls(self, seconds: float) -> Forward:
        """The same for calls of gRPC; `seconds`: the bound of one, 0.0: it has none."""
        return Forward(self._group, self._retry, self._terms.for_calls(seconds), self._buffer, self._guard)

    def __call__(self, request: Request) -> Response:
        """Answer `request` from a server. Raises Failure."""
        retry = self._retry
        body = request.body
        if body is not None:
            if self._buffer:
                body.fill(self._buffer)
            if retry.attempts > 1 and (self._terms.may_refuse or retry.may_execute_twice(request)):
                body.keep(retry.body)
        return self._serve(request) if self._guard is None else self._guard.run(request, self._serve)

    def _serve(self, request: Request) -> Response:
        retry = self._retry
        now = self._terms.now()
        server = self._group.choose(request, now, self._terms.timeouts.request)
        # The choice may have taken a wait, which is no time of the server's.
        started = self._terms.now()
        if started - now >= _WAIT and _is_gone(request):
            server.give_back()
            raise Failure("client_gone", "while it waited for a server")
        try:
            response = self._ask(request, server, now, started)
        except Failure as failure:
            if retry.attempts == 1:
                raise
            return self._ask_others(request, server, now, failure)
        if response.head.status in retry.statuses:
            return self._ask_others(request, server, now, response)
        return response

    def _ask_others(
        self, request: Request, server: Server, began: float, outcome: Failure | Response
    ) -> Response:
        """What another server says after one that failed or whose answer will not do, else what that said."""
        tried = [server]
        while (following := self._following(request, tried, began, outcome)) is not None:
            if isinstance(outcome, Response):
                _discard(outcome)
            tried.append(following)
            try:
                outcome = self._ask(request, following, began, self._terms.now())
            except Failure as failure:
                outcome = failure
            finally:
                self._group.retried()
            if isinstance(outcome, Response) and outcome.head.status not in self._retry.statuses:
                return outcome
        if isinstance(outcome, Failure):
            raise outcome
        return outcome

    def _following(
        self, request: Request, tried: list[Server], began: float, outcome: Failure | Response
    ) -> Server | None:
        """The server that is asked next, taken; None: what the last one said is final."""
        retry = self._retry
        body: RequestBody | None = request.body
        if not retry.allows(request, len(tried)) or not (body is None or body.is_whole):
            return None
        if isinstance(outcome, Failure):
            if not retry.after_failure(outcome, request):
                return None
        elif not retry.after_status(outcome.head.status, request):
            return None
        now = self._terms.now()
        passed = now - began
        bound = self._terms.timeouts.request
        if (retry.timeout and passed >= retry.timeout) or (bound and passed >= bound):
            return None
        return self._group.choose_other(request, now, tried)

    def _ask(self, request: Request, server: Server, began: float, now: float) -> Response:
        """One server, once more when a kept connection turns out to be dead. Gives it back on failure."""
        refusals = 0
        try:
            connection = server.pool.acquire(now, request.head.method not in IDEMPOTENT)
            while True:
                try:
                    return self._attempt(request, server, connection, began, now)
                except Failure as failure:
                    if not failure.repeatable:
                        raise
                    if failure.reason == "stream_refused" and request.attempts[-1].reused:
                        # As the server counts, others had its room: there is some elsewhere, or in a moment.
                        refusals += 1
                        if refusals == _MOST_REFUSALS:
                            raise
                        connection = server.pool.acquire(now)
                    elif connection is None:
                        raise
                    else:
                        server.pool.rest.closed(connection.waited)
                        connection = None
                now = self._terms.now()
        except BaseException as error:
            if isinstance(error, Failure) and error.reason in COUNTED:
                server.failed(self._terms.now())
            elif server.observer is not None:
                # The client left, or we ourselves are short of something: that says nothing about the server.
                server.observer(server, None, 0.0)
            server.give_back()
            raise

    def _attempt(
        self, request: Request, server: Server, connection: AnyConnection | None, began: float, started: float
    ) -> Response:
        attempt = Attempt(server.name)
        request.attempts.append(attempt)
        try:
            if connection is None:
                introduce = self._terms.introduce
                first = b"" if introduce is None else introduce(request)
                connection = server.pool.dial(self._terms.patience_to_connect(began, started), first)
                attempt.connect = self._terms.now() - started
                attempt.reused = connection.is_shared
            else:
                attempt.reused = True
            exchange = Exchange(self._terms, request, attempt, connection, began, started)
            try:
                response = exchange.run(server)
            except BaseException:
                connection.close()
                raise
        except Failure as failure:
            attempt.reason = failure.reason
            attempt.total = self._terms.now() - started
            raise
        if self._group.sticky is not None:
            self._group.sticky.mark(request, response, server)
        return response


def _is_gone(request: Request) -> bool:
    """Whether nobody is there for an answer: under overload, clients give up first."""
    channel = request.client_channel
    return channel is not None and (channel.peer_finished or has_ended(channel))


def _discard(response: Response) -> None:
    if response.body is not None:
        response.body.close()
