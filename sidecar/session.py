# cython: language_level=3, annotation_typing=False
"""One client connection: heads in, responses out, until either side has had enough.

Law: this is the only place where a failure becomes a response, and the only one that knows a client's
channel. It knows no feature: what happens to a request is the handler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .errors import Broken, Failure, Malformed
from .message import Request, Response
from .net.body import RequestBody
from .net.channel import HEAD, SLOW, Channel
from .net.client_address import UNTRUSTED_DROP, host_line, peer_address
from .net.connections import unread
from .net.endpoints import Endpoints
from .net.proxy_header import read_proxy_header
from .net.tls_info import TlsInfo
from .respond import failure as failure_response
from .respond import grpc_end, grpc_failure, grpc_status
from .serving import Current, Serving, tell_handshake, tell_proxy_header
from .upstream.relay import Tunnel
from .wire.grpc import is_call
from .wire.head import CHUNKED, CLOSE, LENGTH, NONE, Names, RequestHead, ResponseHead
from .wire.target import normal_path

if TYPE_CHECKING:
    from .net.h2 import Multiplex, Stream

#: How long a client that was refused may go on sending before it is cut off, so that it can read why.
_LINGER: Final = 2.0
_LINGER_BYTES: Final = 65_536  # … and how much, when a rule of HTTP/2 ended it: who floods does not read

_UNTRUSTED: Final = Names(UNTRUSTED_DROP)


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
        "_multiplex",
        "_now",
        "_peer",
        "_port",
        "_tls",
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
        self._tls: TlsInfo | None = None
        self._multiplex: Multiplex | None = None  # of a connection that speaks HTTP/2

    def run(self) -> None:
        """Serve until the connection ends. A plain channel that ends well is left to the caller to close."""
        serving = self._current.serving
        try:
            if serving.proxy_protocol != "off" and not self._read_proxy_header(serving):
                return
            if serving.tls is not None:
                self._run_secure(serving)
                return
            while self._exchange(self._current.serving):
                pass
        except Broken:
            self._channel.abort()

    def _run_secure(self, serving: Serving) -> None:
        assert serving.tls is not None
        plain = self._channel
        try:
            channel = serving.tls.secure(plain, serving.header_timeout)
        except Failure as failure:
            if failure.reason == "plain_http":
                self._refuse(serving, failure)
            else:
                tell_handshake(serving.event, serving.name, self._client, failure)
            return
        # From here on the connection is this channel's.
        self._channel = channel
        try:
            self._tls = TlsInfo.of(channel)
            if channel.alpn == b"h2":
                self._run_streams(serving)
            else:
                while self._exchange(self._current.serving):
                    pass
        except Broken:
            channel.abort()
        finally:
            channel.close()

    def _run_streams(self, serving: Serving) -> None:
        """Serve a connection that speaks HTTP/2: each stream has a session of its own."""
        from .net.h2 import Multiplex  # who does not use it need not have it in memory

        multiplex = self._multiplex = Multiplex(
            self._channel,
            serving.limits,
            self._serve_stream,
            max_streams=serving.max_streams,
            header_timeout=serving.header_timeout,
            write_timeout=serving.write_timeout,
            idle_timeout=serving.idle_timeout,
        )
        try:
            multiplex.run()
        except BaseException:
            multiplex.kill()
            raise
        finally:
            # It knows this session, too.
            self._multiplex = None
            if multiplex.refused:
                peer, rule = self._client, multiplex.refused
                serving.event("http2_refused", peer=peer, listener=serving.name, rule=rule)
        if multiplex.refused:
            self._channel.linger(_LINGER, _LINGER_BYTES)

    def _serve_stream(self, stream: Stream) -> None:
        session = Session.__new__(Session)
        session._channel = stream
        session._peer = self._peer
        session._port = self._port
        session._current = self._current
        session._now = self._now
        session._client = self._client
        session._endpoints = self._endpoints
        session._tls = self._tls
        session._known = self._known
        session._fixed = self._fixed
        session._trusted = self._trusted
        session._multiplex = None
        serving = self._current.serving
        if serving.ended and self._multiplex is not None:
            self._multiplex.leave()
        try:
            if session._exchange(serving):
                stream.finish()
        except Broken:
            stream.abort()
        self._known = session._known
        self._fixed = session._fixed
        self._trusted = session._trusted

    def _read_proxy_header(self, serving: Serving) -> bool:
        """Learn from a load balancer who the client is; False when the connection ended or is refused."""
        is_required = serving.proxy_protocol == "require"
        try:
            found = read_proxy_header(self._channel, is_required, serving.header_timeout, self._now)
        except Malformed as malformed:
            tell_proxy_header(serving.event, serving.name, self._client, malformed)
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
        if self._multiplex is not None:
            self._multiplex.leave()
        elif self._idle and not self._channel.pending and not unread(self._channel):
            self._channel.close()

    def _exchange(self, serving: Serving) -> bool:
        channel = self._channel
        head = RequestHead(serving.limits)
        self._idle = True
        try:
            code = channel.read_head(head, serving.idle_timeout, serving.header_timeout)
        except Malformed as malformed:
            self._idle = False
            if malformed.rule == "http2_preface" and serving.http2 and self._known is None:
                self._run_streams(serving)
                return False
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
        except Failure as failed:
            self._break_off(failed, request)
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
            request.path = head.normal() or normal_path(head.path)
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
        if is_call(request.head.get(b"content-type")):
            response = grpc_failure(error)
            request.grpc_status = grpc_status(error)
        else:
            response = failure_response(error, request.head.method)
        if serving.on_failure is not None:
            serving.on_failure(request, response)
        return response

    def _break_off(self, error: Failure, request: Request) -> None:
        """End an answer that the client has got a part of, so that it does not pass for all of it."""
        channel = self._channel
        if channel.framed and error.blame != "client" and is_call(request.head.get(b"content-type")):
            stream: Stream = channel  # type: ignore[assignment]
            stream.finish(grpc_end(error))
            request.grpc_status = grpc_status(error)
        else:
            channel.abort()

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
        request.tls = self._tls
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
        extra = serving.date() if response.reason == "plain_http" else serving.date() + serving.always
        data = response.head.render(LENGTH, False, 11, None, extra) + (response.body or b"")
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
