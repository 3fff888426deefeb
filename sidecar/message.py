# cython: language_level=3, annotation_typing=False
"""What travels along the one line of calls: a request down, a response back up.

`Handler` is the only verb: the router is a handler, a route is a handler, a policy wraps a handler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from .wire.head import Limits, Names, RequestHead, ResponseHead


class Attempt:
    """One try at one server, for the log. Seconds; -1 where the moment was never reached."""

    __slots__ = ("connect", "first_byte", "reason", "reused", "server", "status", "total")

    def __init__(self, server: str) -> None:
        self.server = server
        self.reused = False
        self.connect = -1.0
        self.first_byte = -1.0
        self.total = -1.0
        self.status = 0
        self.reason = ""


class Body(Protocol):
    """The body of a message that is still on its way; `net` knows how to move it."""

    def close(self) -> None:
        """Give back what the body holds; called exactly once, whatever happened."""


class Request:
    """One request on its way to an answer. A policy may change it; the head never changes."""

    __slots__ = (
        "attempts",
        "body",
        "client",
        "client_channel",
        "drop",
        "endpoints",
        "extra",
        "grpc_status",
        "head",
        "host",
        "host_header",
        "interim",
        "listener",
        "match",
        "path",
        "port",
        "route",
        "scheme",
        "target",
        "tls",
    )

    def __init__(self, head: RequestHead, path: str, client: str, scheme: str, listener: str) -> None:
        self.head = head
        self.path = path  # normalised: decoded, dot segments resolved, slashes merged; what routes look at
        self.client = client  # address of the client, trusted proxies skipped
        self.scheme = scheme  # what the client used towards the first trusted proxy
        self.listener = listener  # name of the listener it came in by
        self.host: str = head.host
        self.port: int = 0  # the port the client asked for, for X-Forwarded-Port
        self.extra: bytes = b""  # complete field lines the upstream gets on top (X-Forwarded-* first)
        self.drop: Names | None = None  # fields of the client that the upstream does not get
        self.host_header: bytes | None = None  # Host for the upstream; None: the client's
        self.body: Any = None  # net.body.RequestBody, or None when there is none
        self.client_channel: Any = None  # net.channel.Channel, watched while the upstream is waited for
        self.endpoints: Any = None  # net.endpoints.Endpoints as a balancer told; None: the channel's
        self.interim: Callable[[ResponseHead], None] | None = None  # passes a 1xx on to the client
        self.match: dict[str, str] | None = None  # named groups of the route's regexes
        self.route: Any = None  # routing.table.Route once chosen
        self.target: bytes | None = None  # origin-form to send; None: the client's bytes
        self.tls: Any = None  # net.tls_info.TlsInfo of the client's connection; None: it is plain
        self.grpc_status: int = -1  # that a call of gRPC ended with; -1: none is known
        self.attempts: list[Attempt] = []


class Response:
    """A head and a body. `body` is bytes in hand, a Body on its way, or None."""

    __slots__ = ("body", "drop", "extra", "head", "reason")

    def __init__(self, head: ResponseHead, body: Any = None, reason: str = "") -> None:
        self.head = head
        self.body = body
        self.reason = reason  # why the proxy answered itself; "" for an upstream's answer
        self.extra: bytes = b""  # complete field lines the client gets on top
        self.drop: Names | None = None  # fields of the upstream that the client does not get


Handler = Callable[[Request], Response]


#: In place of a head where there is no request, only a connection: one that was never fed.
_NO_HEAD: Final = RequestHead(Limits())


def connection(client: str, listener: str) -> Request:
    """What routes and upstreams are asked with for a TCP connection. `host`, set later, is the name it wants.

    Its head is empty; the configuration is checked so that nobody asks for it.
    """
    return Request(_NO_HEAD, "", client, "tcp", listener)
