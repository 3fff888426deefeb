# cython: language_level=3, annotation_typing=False
"""One client connection whose bytes mean nothing to the proxy: a server is chosen, and both are joined.

Law: nothing of the client is read before a server is chosen, but for a PROXY header where the listener takes
them, and a ClientHello where a route asks for its name. What was read of that is passed on unchanged. A
listener with certificates ends TLS here: what is inside is what is joined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .errors import Broken, Failure, Malformed
from .message import connection
from .net.channel import Channel
from .net.client_address import peer_address
from .net.connections import unread
from .net.endpoints import Endpoints
from .net.proxy_header import read_proxy_header
from .net.tls_info import TlsInfo
from .observe.access import AccessLog
from .routing.table import Router
from .serving import tell_handshake, tell_proxy_header
from .upstream.connect import Link
from .wire.client_hello import ClientHello, Verdict

if TYPE_CHECKING:
    from .net.tls import Terminator

_SHORTEST: Final = 0.001  # seconds; 0 would be no bound


class StreamServing:
    """What a TCP listener's connections need of a generation; each keeps the one that it began with."""

    __slots__ = (
        "ended",
        "event",
        "header_timeout",
        "log",
        "name",
        "proxy_protocol",
        "reads_name",
        "router",
        "tls",
    )

    def __init__(
        self, name: str, settings: Any, router: Router, log: AccessLog | None, event: Callable[..., None]
    ) -> None:
        self.name = name
        self.router = router
        self.log = log  # None: off
        self.event = event
        self.tls: Terminator | None = None  # None: what comes is passed on as it is
        self.proxy_protocol: str = settings.proxy_protocol
        self.header_timeout: float = settings.header_timeout
        #: Whether the name in a ClientHello decides; without, a server may be the first to speak.
        self.reads_name = any(route.settings.sni for route in router.routes)
        self.ended = False


class Stream:
    """A client connection being served. `now` is monotonic, in seconds."""

    __slots__ = ("_channel", "_header", "_now", "_request", "_serving", "_waits")

    def __init__(self, channel: Channel, peer: str, serving: StreamServing, now: Callable[[], float]) -> None:
        self._channel = channel
        self._serving = serving
        self._now = now
        self._header = 0  # bytes of the PROXY header
        self._waits = True  # for the client, before anything is asked for
        self._request = connection(peer_address(peer), serving.name)
        self._request.client_channel = channel

    def run(self) -> None:
        """Serve until both sides have ended. The caller owns the channel."""
        began = self._now()
        if self._serving.proxy_protocol != "off" and not self._read_proxy_header():
            return
        if self._serving.tls is None:
            self._join(began)
        elif self._secure(self._serving.tls):
            try:
                self._join(began)
            finally:
                self._channel.close()

    def _secure(self, tls: Terminator) -> bool:
        """Shake hands; False when that fails. Else the connection is another channel's, which is ours."""
        serving, request = self._serving, self._request
        try:
            channel = tls.secure(self._channel, serving.header_timeout)
        except Failure as failure:
            tell_handshake(serving.event, serving.name, request.client, failure)
            return False
        self._channel = request.client_channel = channel
        self._header = 0
        request.tls = TlsInfo.of(channel)
        return True

    def _join(self, began: float) -> None:
        serving = self._serving
        reason = ""
        try:
            reason = self._serve()
        except Failure as failure:
            reason = failure.reason
        except Exception as error:  # noqa: BLE001 - the one place where the unforeseen ends; the event has its traceback
            reason = "internal_error"
            route = self._request.route
            serving.event("exchange_failed", exc_info=error, route="" if route is None else route.name)
        except BaseException:
            reason = "cut_off"
            raise
        finally:
            self._log(reason, self._now() - began)

    def retire(self) -> None:
        """Close the connection if its client has not said where to; else it goes on to its own end."""
        if self._waits and not self._channel.pending and not unread(self._channel):
            self._channel.close()

    def _read_proxy_header(self) -> bool:
        """Learn from a load balancer who the client is; False when the connection ended or is refused."""
        serving, request = self._serving, self._request
        is_required = serving.proxy_protocol == "require"
        try:
            found = read_proxy_header(self._channel, is_required, serving.header_timeout, self._now)
        except Malformed as malformed:
            tell_proxy_header(serving.event, serving.name, request.client, malformed)
            return False
        except Broken:
            return False
        if found is not None:
            self._header = found.size
            if found.source is not None and found.destination is not None:
                request.client = found.source[0]
                request.endpoints = Endpoints(found.source, found.destination)
        return True

    def _serve(self) -> str:
        """The reason for which the connection ended, empty when both sides ended it. Raises Failure."""
        serving, request = self._serving, self._request
        if serving.reads_name:
            request.host = self._server_name() if request.tls is None else request.tls.sni
        self._waits = False
        route = serving.router.choose(request)
        if route is None:
            raise Failure("no_route")
        request.route = route
        link: Link = route.handler(request)
        try:
            return link.join(self._channel)
        except BaseException:
            # Cut off: neither side must take what it got for all.
            link.abort()
            self._channel.abort()
            raise
        finally:
            link.close()

    def _server_name(self) -> str:
        """The name that the client asks for in its ClientHello; empty when it names none or speaks no TLS."""
        channel = self._channel
        until = self._now() + self._serving.header_timeout
        hello = ClientHello()
        seen = 0
        while True:
            found = hello.feed(channel.peek(seen))
            if found is not Verdict.MORE:
                return "" if isinstance(found, Verdict) else found
            seen = channel.pending
            self._wait_for_more(max(until - self._now(), _SHORTEST))

    def _wait_for_more(self, timeout: float) -> None:
        channel = self._channel
        try:
            if channel.fill(channel.pending + 1, timeout):
                return
        except Broken as broken:
            if broken.what == "timeout":
                raise Failure("request_timeout", "before the end of its ClientHello") from broken
        raise Failure("client_gone", "before the end of its ClientHello")

    def _log(self, reason: str, duration: float) -> None:
        log, request, channel = self._serving.log, self._request, self._channel
        if log is not None and (request.route is None or request.route.logged):
            log.connection(request, reason, channel.received - self._header, channel.sent, duration)
