# cython: language_level=3, annotation_typing=False
"""One attempt on one connection: a request out, a response head back, the body left on its way.

Law: a connection goes back to its pool only after an exchange that ended cleanly on both sides; on every
other way out it is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import Broken, Failure, Malformed
from ..message import Attempt, Request, Response
from ..net.body import RequestBody
from ..net.channel import CLOSED, GONE, HEAD, IDLE, SLOW, Channel
from ..net.flow import Flow, pump
from ..wire import grpc
from ..wire.head import LENGTH, NONE, Limits, ResponseHead
from .introduction import Introduce
from .pool import AnyConnection
from .relay import Relay, Tunnel
from .retry import is_idempotent
from .server import Server

#: Interim responses to one request; a server that sends more never comes to an end.
_MOST_INTERIM: Final = 64

#: Seconds by which a channel's wait may end before its deadline.
_SLACK: Final = 0.002

#: After a server stopped taking the request, how long its answer, if any, is waited for.
_LAST_WORDS: Final = 1.0

#: The status of HTTP for what a server fails with.
_UNAVAILABLE: Final = 503


class Timeouts:
    """Seconds; 0 means no bound."""

    __slots__ = ("attempt", "connect", "idle", "read", "request", "send", "tunnel")

    def __init__(
        self, connect: float, send: float, read: float, request: float, tunnel: float, attempt: float = 0.0
    ) -> None:
        self.connect = connect
        self.send = send
        self.read = read
        self.request = request
        self.tunnel = tunnel
        self.attempt = attempt
        self.idle = 0.0  # silence in both directions, in place of a bound for each


class Terms:
    """What all exchanges of a route with its upstream have in common.

    `unwanted`: statuses that count as failures.
    """

    __slots__ = ("introduce", "limits", "may_refuse", "now", "of_calls", "timeouts", "unwanted", "upgrade")

    def __init__(
        self,
        timeouts: Timeouts,
        limits: Limits,
        now: Callable[[], float],
        upgrade: bool,
        unwanted: frozenset[int],
    ) -> None:
        self.timeouts = timeouts
        self.limits = limits
        self.now = now
        self.upgrade = upgrade
        self.unwanted = unwanted
        self.introduce: Introduce | None = None  # what a new connection begins with
        #: Whether servers say what they did not act on, which may then be sent again whatever it is.
        self.may_refuse = False
        self.of_calls = False  # of gRPC, which end with a status of their own

    def for_calls(self, seconds: float) -> Terms:
        """The same for calls of gRPC, which are streams; `seconds`: the bound of one, 0.0: it has none."""
        own = self.timeouts
        request = min(own.request or seconds, seconds or own.request)
        timeouts = Timeouts(own.connect, own.send, own.tunnel, request, own.tunnel, own.attempt)
        timeouts.idle = own.tunnel
        made = Terms(timeouts, self.limits, self.now, self.upgrade, self.unwanted)
        made.introduce = self.introduce
        made.may_refuse = self.may_refuse
        made.of_calls = True
        return made

    def patience_to_connect(self, began: float, now: float) -> float:
        """Seconds until a connection must stand; `began`: the first attempt, `now`: this one."""
        own = self.timeouts.connect
        until = self.deadline(began, now)
        if not until:
            return own
        left = max(until - now, 0.001)
        return min(left, own) if own else left

    def deadline(self, began: float, started: float) -> float:
        """The moment by which the response must have begun, by the bounds of the attempt and the exchange.

        0.0: there are none. `began`: the first attempt, `started`: this one.
        """
        timeouts = self.timeouts
        until = began + timeouts.request if timeouts.request else 0.0
        if timeouts.attempt:
            own = started + timeouts.attempt
            return min(until, own) if until else own
        return until


class Exchange:
    """One attempt on one connection, until the head of the final response."""

    __slots__ = (
        "_attempt",
        "_began",
        "_channel",
        "_connection",
        "_is_cut",
        "_terms",
        "_method",
        "_request",
        "_sent",
        "_started",
        "_upload",
    )

    def __init__(
        self,
        terms: Terms,
        request: Request,
        attempt: Attempt,
        connection: AnyConnection,
        began: float,
        started: float,
    ) -> None:
        self._terms = terms
        self._request = request
        self._attempt = attempt
        self._connection = connection
        self._channel: Channel = connection.channel
        self._method = request.head.method
        self._sent = self._channel.sent
        self._began = began  # the first attempt
        self._started = started
        self._upload: Flow | None = None
        self._is_cut = False  # the server reset the connection in the middle of the request

    def run(self, server: Server) -> Response:
        """The response, once its head is there; its body gives the server back. Raises Failure."""
        timeouts = self._terms.timeouts
        self._send(timeouts)
        head = self._final_head(timeouts)
        attempt = self._attempt
        attempt.first_byte = self._terms.now() - self._started
        attempt.status = head.status
        if not attempt.reused:
            keep_alive = head.get(b"keep-alive")
            if keep_alive is not None:
                server.pool.rest.told(keep_alive)
        status = self._status_of_call(head) if self._terms.of_calls else head.status
        if head.status in self._terms.unwanted:
            server.failed(self._terms.now(), attempt.first_byte)
        else:
            server.succeeded(self._started + attempt.first_byte, status, attempt.first_byte)
        if head.status == 101:
            tunnel = Tunnel(self._switched(head), server, attempt, timeouts.tunnel, self)
            return Response(head, tunnel)
        upload = self._upload
        if head.framing == NONE or (head.framing == LENGTH and head.length == 0):
            if head.keep_alive and not self._is_cut and (upload is None or upload.done):
                server.pool.release(self._connection)
            else:
                self._connection.close()
            server.give_back()
            attempt.total = attempt.first_byte
            return Response(head, None)
        relay = Relay(head, self._connection, server, attempt, self)
        relay.read_timeout = 0.0 if timeouts.idle else timeouts.read
        relay.idle = timeouts.idle
        relay.until = self._began + timeouts.request if timeouts.request else 0.0
        relay.is_last = self._is_cut
        relay.upload = upload if upload is not None and not upload.done else None
        return Response(head, relay)

    def elapsed(self) -> float:
        """Seconds since this attempt began."""
        return self._terms.now() - self._started

    def _status_of_call(self, head: ResponseHead) -> int:
        """The status that says how a call went, of one that ended with its head; that says 200 of each."""
        # None is known any more, too, when another server was asked before.
        self._request.grpc_status = grpc.status(head.get(b"grpc-status"))
        return _UNAVAILABLE if self._request.grpc_status in grpc.SERVER_ERRORS else head.status

    def _send(self, timeouts: Timeouts) -> None:
        request = self._request
        head = request.head
        body: RequestBody | None = request.body
        upgrade = self._terms.upgrade
        switches = upgrade and head.upgrade is not None and self._connection.prepare_upgrade(head)
        host = request.host_header
        if host is None and not request.host:
            # HTTP/1.0 may leave it out, the HTTP/1.1 that is sent on may not (RFC 9112 section 3.2).
            host = (
                self._attempt.server.encode()
                if not self._attempt.server.startswith("unix:")
                else b"localhost"
            )
        if body is None:
            data = head.render(request.target, host, request.drop, request.extra, upgrade)
        elif body.kept is not None:
            data = (
                head.render(
                    request.target, host, request.drop, request.extra, upgrade, LENGTH, body.length, False
                )
                + body.kept
            )
            body = None
        else:
            data = head.render(
                request.target,
                host,
                request.drop,
                request.extra,
                upgrade,
                body.framing,
                body.length,
                body.expects and not body.continued and not body.moved,
            )
        channel = self._channel
        try:
            if body is None:
                channel.send(data, self._patience(timeouts, timeouts.send))
                if channel.framed and not switches:
                    channel.shutdown_write()
            else:
                channel.hold(data)
                self._upload = body.flow(channel, timeouts.send, not timeouts.idle)
        except Broken as broken:
            if broken.what == "reset" and channel.sent > self._sent:
                # It may have answered first (413, say).
                self._is_cut = True
                return
            raise self._unsent(broken) from broken

    def _unsent(self, broken: Broken) -> Failure:
        if broken.what == "timeout":
            return Failure("response_timeout" if self.is_over() else "upstream_write_timeout")
        return self._terminated("while the request was sent")

    def _terminated(self, detail: str) -> Failure:
        """The connection, or this stream of it, ended before anything was answered."""
        if self._connection.is_refused:
            body: RequestBody | None = self._request.body
            return Failure("stream_refused", detail, repeatable=body is None or body.is_whole)
        return Failure("connection_terminated", detail, repeatable=self._is_repeatable())

    def _is_repeatable(self) -> bool:
        """Whether the connection died of old age, nobody acted on the request, and it can be sent once more.

        No byte of a response was read; the request allows it or nothing was sent; the body is still whole.
        """
        attempt = self._attempt
        body: RequestBody | None = self._request.body
        if not attempt.reused or attempt.first_byte >= 0.0 or not (body is None or body.is_whole):
            return False
        return self._channel.sent == self._sent or is_idempotent(self._request)

    def _final_head(self, timeouts: Timeouts) -> ResponseHead:
        request = self._request
        channel = self._channel
        for _ in range(_MOST_INTERIM):
            patience = self._upload_until_answer(timeouts)
            head = ResponseHead(self._terms.limits, self._method)
            try:
                code = channel.read_head(head, patience, patience, request.client_channel)
            except Malformed as malformed:
                raise Failure("malformed_response", malformed.rule) from malformed
            if code != HEAD:
                raise self._no_head(code)
            if head.status >= 200 or head.status == 101:
                return head
            if self._attempt.first_byte < 0.0:
                self._attempt.first_byte = self.elapsed()
            if request.interim is not None:
                request.interim(head)
        raise Failure("malformed_response", "too_many_interim")

    def _patience(self, timeouts: Timeouts, own: float) -> float:
        """How long the next bytes may take: `own` seconds, or what is left of a bound."""
        if not timeouts.attempt and not timeouts.request:
            return own
        left = max(self._terms.deadline(self._began, self._started) - self._terms.now(), 0.001)
        return min(left, own) if own else left

    def _upload_until_answer(self, timeouts: Timeouts) -> float:
        if self._is_cut:
            return _LAST_WORDS
        upload = self._upload
        if upload is None or upload.done or upload.broken is not None:
            return self._patience(timeouts, timeouts.read)
        until = self._terms.deadline(self._began, self._started)
        try:
            pump(upload, None, self._channel, None, False, timeouts.idle, until)
        except Malformed as malformed:
            raise Failure("malformed_request", malformed.rule, status=malformed.status) from malformed
        except Broken as broken:
            if broken.side == "sink" and broken.what == "reset":
                # The server may have answered before it stopped listening (413, say).
                return _LAST_WORDS
            raise self._upload_failure(broken, upload) from broken
        return self._patience(timeouts, timeouts.read)

    def is_over(self) -> bool:
        """Whether the bound of the whole exchange is reached; a wait may end a little early."""
        bound = self._terms.timeouts.request
        return bound > 0.0 and self._terms.now() - self._began >= bound - _SLACK

    def _is_late(self) -> bool:
        """Whether the bound of this attempt is reached."""
        bound = self._terms.timeouts.attempt
        return bound > 0.0 and self.elapsed() >= bound - _SLACK

    def _upload_failure(self, broken: Broken, upload: Flow) -> Failure:
        if broken.side == "sink":
            return Failure("upstream_write_timeout")
        if broken.what == "timeout":
            if self.is_over():
                return Failure("response_timeout")
            if upload.source.pending and self._is_late():
                # There was more to send, and the server did not take it.
                return Failure("upstream_write_timeout", "attempt_timeout")
            if self._terms.timeouts.idle:
                return Failure("upstream_read_timeout", "nobody said anything")
            if self._request.body.expects and self._attempt.first_byte < 0.0 and not self._request.body.moved:
                return Failure("upstream_read_timeout", "before the request body was asked for")
            return Failure("request_body_timeout")
        if broken.what == "too_large":
            return Failure("request_body_too_large")
        return Failure("client_gone", "while the request body was read")

    def _no_head(self, code: int) -> Failure:
        if code == GONE:
            return Failure("client_gone", "before the response began")
        if code in (IDLE, SLOW):
            return Failure("response_timeout" if self.is_over() else "upstream_read_timeout")
        if code == CLOSED:
            return self._terminated("before the response began")
        return Failure("connection_terminated", "in the response's head")

    def _switched(self, head: ResponseHead) -> AnyConnection:
        if not self._terms.upgrade or self._request.head.upgrade is None or head.upgrade is None:
            raise Failure("upgrade_failed", "101 was not asked for")
        if self._is_cut or (self._upload is not None and not self._upload.done):
            raise Failure("upgrade_failed", "101 before the end of the request")
        return self._connection
