# cython: language_level=3, annotation_typing=False
"""One client connection: heads in, responses out, until either side has had enough.

Law: this is the only place where a failure becomes a response, and the only one that knows a client's
channel. It knows no feature: what happens to a request is the handler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .errors import Broken, Failure, Malformed
from .message import Handler, Request, Response
from .net.body import RequestBody
from .net.channel import HEAD, SLOW, Channel
from .net.client_address import UNTRUSTED_DROP, ClientAddress, host_line, peer_address
from .net.connections import unread
from .net.endpoints import Endpoints
from .net.proxy_header import read_proxy_header
from .observe.access import AccessLog
from .respond import date_line
from .respond import failure as failure_response
from .upstream.relay import Tunnel
from .wire.head import CHUNKED, CLOSE, LENGTH, NONE, Limits, Names, RequestHead, ResponseHead
from .wire.target import normal_path

#: How long a client that was refused may go on sending before it is cut off, so that it can read why.
_LINGER: Final = 2.0

_UNTRUSTED: Final = Names(UNTRUSTED_DROP)


class Serving:
    """What a listener's connections need of the current generation; replaced whole by a reload."""

    __slots__ = (
        "addresses",
        "body_timeout",
        "date",
        "ended",
        "event",
        "handler",
        "header_timeout",
        "idle_timeout",
        "limits",
        "log",
        "name",
        "on_failure",
        "proxy_protocol",
        "scheme",
        "write_timeout",
    )

    def __init__(
        self, name: str, settings: Any, handler: Handler, log: AccessLog | None, event: Callable[..., None]
    ) -> None:
        self.name = name
        self.scheme = "http"
        self.handler = handler
        self.log = log  # None: off
        self.event = event
        self.date = date_line  # the Date field of answers that have none
        self.on_failure: Callable[[Request, Response], None] | None = None
        self.limits = Limits(settings.max_header_size, settings.max_headers, settings.max_target_size)
        self.proxy_protocol: str = settings.proxy_protocol
        self.header_timeout: float = settings.header_timeout
        self.body_timeout: float = settings.body_timeout
        self.write_timeout: float = settings.write_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.addresses = ClientAddress(settings.trusted_proxies)
        self.ended = (
            False  # the listener is gone, or the process drains: connections end after their exchange
        )


class Current:
    """Where connections find what serves them now; a reload puts another Serving in."""

    __slots__ = ("serving",)

    def __init__(self, serving: Serving) -> None:
        self.serving = serving


class Session:
    """A client connection being served, by what `current` holds at each request."""

    __slots__ = (
        "_channel",
        "_client",
        "_current",
        "_endpoints",
        "_fixed",
        "_idle",
        "_known",
        "_now",
        "_peer",
        "_port",
        "_trusted",
    )

    def __init__(
        self, channel: Channel, peer: str, port: int, current: Current, now: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._peer = peer
        self._port = port
        self._current = current
        self._now = now
        self._idle = True
        self._client = peer_address(peer)
        self._known: Serving | None = None
        self._fixed = b""
        self._trusted = False
        self._endpoints: Endpoints | None = None  # what a balancer told

    def run(self) -> None:
        """Serve until the connection ends. Closes nothing on a clean end: the caller owns the channel."""
        serving = self._current.serving
        try:
            if serving.proxy_protocol != "off" and not self._read_proxy_header(serving):
                return
            while self._exchange(self._current.serving):
                pass
        except Broken:
            self._channel.abort()

    def _read_proxy_header(self, serving: Serving) -> bool:
        """Learn from a load balancer who the client is; False when the connection ended or is refused."""
        is_required = serving.proxy_protocol == "require"
        try:
            found = read_proxy_header(self._channel, is_required, serving.header_timeout, self._now)
        except Malformed as malformed:
            serving.event("proxy_header_refused", peer=self._client, rule=malformed.rule)
            return False
        except Broken as broken:
            if broken.what == "ended":
                return False
            raise
        if found is not None and found.source is not None and found.destination is not None:
            self._peer = self._client = found.source[0]
            self._port = found.destination[1]
            self._endpoints = Endpoints(found.source, found.destination)
        return True

    def retire(self) -> None:
        """Close the connection if no request is on it, or has come; else it ends after its exchange."""
        if self._idle and not self._channel.pending and not unread(self._channel):
            self._channel.close()

    def _exchange(self, serving: Serving) -> bool:
        channel = self._channel
        head = RequestHead(serving.limits)
        self._idle = True
        try:
            code = channel.read_head(head, serving.idle_timeout, serving.header_timeout)
        except Malformed as malformed:
            self._idle = False
            return self._refuse(serving, malformed)
        self._idle = False
        if code != HEAD:
            if code == SLOW:
                return self._refuse(serving, Failure("request_timeout"))
            return False
        # The wait may have outlasted a generation.
        serving = self._current.serving
        started = self._now()
        sent = channel.sent
        request = self._request(head, serving)
        response = self._answer(request, serving)
        if response is None:
            self._log(serving, request, 499, "client_gone", sent, started)
            return False
        if self._deliver(request, response, serving, sent, started):
            # Also when a drain began meanwhile: the client was promised more, and hears of the end with that.
            return True
        if response.head.status != 101 and (head.keep_alive or request.body is not None):
            # The client did not ask for this end: it may be sending still (RFC 9112 section 9.6).
            channel.linger(_LINGER)
        return False

    def _deliver(
        self, request: Request, response: Response, serving: Serving, sent: int, started: float
    ) -> bool:
        """Send the response and log the exchange, however it ends; True when the connection can go on."""
        channel = self._channel
        reason = response.reason
        keep = False
        mark = channel.sent
        try:
            try:
                keep = self._send(request, response, serving)
            except Failure as failed:
                reason = failed.reason
                if channel.sent != mark or failed.blame == "client":
                    raise
                # The body broke before the client got anything: it can still be told.
                channel.forget()
                _give_back(response)
                response = self._failed(failed, request, serving)
                keep = self._send(request, response, serving)
        except Failure:
            channel.abort()
        except Broken as broken:
            reason = "client_write_timeout" if broken.what == "timeout" else "client_gone"
            channel.abort()
        except Exception as error:  # noqa: BLE001 - as in _answer
            reason = "internal_error"
            serving.event("exchange_failed", exc_info=error, route=_route_name(request))
            channel.abort()
        except BaseException:
            # Killed: what the client got so far must not pass for all of it.
            channel.abort()
            raise
        finally:
            _give_back(response)
            self._log(serving, request, response.head.status, reason, sent, started)
        return keep

    def _answer(self, request: Request, serving: Serving) -> Response | None:
        """The handler's response, or the one that its failure becomes; None when nobody is there."""
        head = request.head
        try:
            request.path = normal_path(head.path)
            return serving.handler(request)
        except (Failure, Malformed) as error:
            if isinstance(error, Failure) and error.reason == "client_gone":
                return None
            return self._failed(error, request, serving)
        except Exception as error:  # noqa: BLE001 - the one place where the unforeseen ends; the event has its traceback
            serving.event("exchange_failed", exc_info=error, route=_route_name(request))
            return self._failed(Failure("internal_error"), request, serving)

    def _failed(self, error: Failure | Malformed, request: Request, serving: Serving) -> Response:
        """What a failure becomes, with the fields that the route gives every answer."""
        response = failure_response(error, request.head.method)
        if serving.on_failure is not None:
            serving.on_failure(request, response)
        return response

    def _request(self, head: RequestHead, serving: Serving) -> Request:
        request = Request(head, "", self._client, serving.scheme, serving.name)
        if serving is not self._known:
            self._learn(serving)
        if self._trusted:
            resolved = serving.addresses.resolve(head, self._peer, serving.scheme, self._port)
            request.client, request.scheme, request.extra = resolved.client, resolved.scheme, resolved.extra
        else:
            request.extra = self._fixed + host_line(head.authority)
            request.drop = _UNTRUSTED
        request.client_channel = self._channel
        request.endpoints = self._endpoints
        if head.framing == CHUNKED or head.length:
            request.body = RequestBody(head, self._channel, serving.body_timeout)
        if head.version == 11:
            request.interim = self._interim
        return request

    def _learn(self, serving: Serving) -> None:
        """What holds for all requests of this connection while the generation lasts."""
        self._known = serving
        self._trusted = serving.addresses.trusts(self._peer)
        self._fixed = serving.addresses.fixed(self._peer, serving.scheme, self._port)

    def _interim(self, head: ResponseHead) -> None:
        """Pass a 1xx on at once."""
        try:
            self._channel.send(head.render(NONE, True), self._current.serving.write_timeout)
        except Broken as broken:
            raise Failure("client_gone", "while an interim response was sent") from broken

    def _send(self, request: Request, response: Response, serving: Serving) -> bool:
        """Send the response; True when the connection can serve another request."""
        channel = self._channel
        head = response.head
        body = response.body
        version = request.head.version
        keep = request.head.keep_alive and not self._current.serving.ended
        if not head.has_date:
            response.extra += serving.date()
        if body is None or type(body) is bytes:
            if request.body is not None and not request.body.settle():
                keep = False
            framing = head.framing if head.framing == LENGTH else NONE
            data = head.render(framing, keep, version, response.drop, response.extra)
            channel.send(data + body if body else data, serving.write_timeout)
            return keep
        if type(body) is Tunnel:
            channel.hold(head.render(NONE, True, version, response.drop, response.extra, True))
            body.send_to(channel, CLOSE, serving.write_timeout)
            return False
        framing = head.framing
        if framing != LENGTH:
            framing = CHUNKED if version == 11 else CLOSE
        if framing == CLOSE or not body.is_whole_exchange:
            keep = False
        channel.hold(head.render(framing, keep, version, response.drop, response.extra))
        body.send_to(channel, framing, serving.write_timeout)
        return keep

    def _refuse(self, serving: Serving, error: Failure | Malformed) -> bool:
        """Answer what cannot be read as a request, and end."""
        response = failure_response(error, b"GET")
        data = response.head.render(LENGTH, False, 11, None, serving.date()) + (response.body or b"")
        sent = self._channel.sent
        started = self._now()
        self._channel.send(data, serving.write_timeout)
        if serving.log is not None:
            serving.log.refused(
                self._client, serving.name, response.head.status, _why(error), self._channel.sent - sent
            )
        self._channel.linger(max(_LINGER - (self._now() - started), 0.1))
        return False

    def _log(
        self, serving: Serving, request: Request, status: int, reason: str, sent: int, started: float
    ) -> None:
        route = request.route
        log = serving.log
        if log is None or (route is not None and not route.logged):
            return
        received = len(request.head.raw)
        if request.body is not None:
            received += request.body.moved
        log.record(request, status, reason, received, self._channel.sent - sent, self._now() - started)


def _give_back(response: Response) -> None:
    """A body that was on its way holds a connection."""
    if response.body is not None and type(response.body) is not bytes:
        response.body.close()


def _why(error: Failure | Malformed) -> str:
    return error.rule if isinstance(error, Malformed) else error.reason


def _route_name(request: Request) -> str:
    return request.route.name if request.route is not None else ""
