# cython: language_level=3, annotation_typing=False
"""What a listener's connections need of the generation that serves, and where they find it.

Law: a reload replaces it whole; whoever serves a request looks once, when the request is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import Failure, Malformed
from .message import Handler, Request, Response
from .net.client_address import ClientAddress
from .observe.access import AccessLog
from .respond import date_line
from .wire.head import Limits

if TYPE_CHECKING:
    from .net.tls import Terminator


class Serving:
    """What a listener's connections need of the current generation; replaced whole by a reload."""

    __slots__ = (
        "addresses",
        "always",
        "body_timeout",
        "date",
        "ended",
        "event",
        "handler",
        "header_timeout",
        "http2",
        "idle_timeout",
        "limits",
        "log",
        "max_streams",
        "name",
        "on_failure",
        "proxy_protocol",
        "scheme",
        "tls",
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
        # What every answer says, also one to what cannot be read; the others get it from a policy.
        self.always: bytes = b"" if settings.hsts is None else settings.hsts.line
        self.date = date_line  # the Date field of answers that have none
        self.on_failure: Callable[[Request, Response], None] | None = None
        self.limits = Limits(settings.max_header_size, settings.max_headers, settings.max_target_size)
        self.proxy_protocol: str = settings.proxy_protocol
        self.tls: Terminator | None = None  # None: plain
        self.http2: bool = settings.http2
        self.max_streams: int = settings.max_streams
        self.header_timeout: float = settings.header_timeout
        self.body_timeout: float = settings.body_timeout
        self.write_timeout: float = settings.write_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.addresses = ClientAddress(settings.trusted_proxies)
        self.ended = (
            False  # the listener is gone, or the process drains: connections end after their exchange
        )


def tell_handshake(event: Callable[..., None], listener: str, peer: str, failure: Failure) -> None:
    """That TLS did not come about. Who just leaves may be a balancer that looks whether we are there."""
    if failure.reason == "client_gone":
        event("tls_handshake_abandoned", peer=peer, listener=listener)
    else:
        event("tls_handshake_failed", peer=peer, listener=listener, error=failure.detail)


def tell_proxy_header(event: Callable[..., None], listener: str, peer: str, malformed: Malformed) -> None:
    """That a connection did not begin with the header of a balancer as it should."""
    event("proxy_header_refused", peer=peer, listener=listener, rule=malformed.rule)


class Current:
    """Where connections find what serves them now; a reload puts another Serving in."""

    __slots__ = ("serving",)

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
