"""One probe of a server: a connection, or a request whose answer is judged.

Law: a probe is over within its timeout, whatever the server does, and leaves no connection behind. It trusts
the server with nothing: head, body and interim responses are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ..errors import REASONS, Broken, Failure, Malformed
from ..net.channel import HEAD, SLOW, Channel
from ..wire.body import ChunkedDecoder
from ..wire.head import CHUNKED, CLOSE, LENGTH, NONE, Limits, ResponseHead
from . import grpc_health
from .health_check import Check, Statuses

#: Opens a connection within so many seconds. Raises Failure.
Connect = Callable[[float], Channel]

#: How much of a body is looked at.
BODY: Final = 64 << 10

_LIMITS: Final = Limits(64 << 10, 1000, 8192)
_MOST_INTERIM: Final = 64


class Finding(NamedTuple):
    """What a probe found. `reason` is a stable word, empty when all is well; `detail` is for people.

    Reasons: those of failures to connect (`connection_refused`, `connection_timeout`, `dns_error` …), then
    `connection_terminated`, `response_timeout`, `response_incomplete`, `malformed_response`, `status` and
    `body`.
    """

    reason: str = ""
    detail: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether this process could not ask, for want of a descriptor, say: nothing is known then."""
        verdict = REASONS.get(self.reason)
        return verdict is not None and verdict.blame == "proxy"


_GOOD: Final = Finding()


class _Deadline:
    """The moment when a probe is over."""

    __slots__ = ("_now", "_until")

    def __init__(self, now: Callable[[], float], seconds: float) -> None:
        self._now = now
        self._until = now() + seconds

    def left(self) -> float:
        """Seconds. Raises Broken when there are none: to a channel 0 would be no bound at all."""
        left = self._until - self._now()
        if left <= 0.0:
            raise Broken("source", "timeout")
        return left


class Probe:
    """How a server is asked and what it should say. `host` is the value of the Host field."""

    __slots__ = ("_is_grpc", "_method", "_request", "_timeout", "body", "expect")

    def __init__(self, check: Check, timeout: float, host: str) -> None:
        self._timeout = timeout
        self._is_grpc = check.is_grpc
        self._method = b"POST" if check.is_grpc else check.method.encode()
        if check.is_grpc:
            self._request = grpc_health.request(check.target, host, timeout)
        else:
            self._request = b"" if check.is_tcp else _request(check, host)
        self.expect: tuple[Statuses, ...] = (Statuses(200, 399),)
        self.body = b""  # what the first BODY bytes of the body hold; empty: anything

    def run(self, connect: Connect, now: Callable[[], float]) -> Finding:
        """Ask once. Blocks for at most the timeout, as far as `connect` keeps it."""
        deadline = _Deadline(now, self._timeout)
        try:
            channel = connect(self._timeout)
        except Failure as failure:
            return Finding(failure.reason, failure.detail)
        except OSError as error:
            return Finding("internal_error", f"{error}")
        try:
            return self._ask(channel, deadline) if self._request else _GOOD
        except Malformed as malformed:
            return Finding("malformed_response", malformed.rule)
        except Broken as broken:
            if broken.what == "timeout":
                return Finding("response_timeout", f"not complete after {self._timeout:g} s")
            return Finding("connection_terminated", "before the response began")
        finally:
            channel.close()

    def _ask(self, channel: Channel, deadline: _Deadline) -> Finding:
        channel.send(self._request, deadline.left())
        if channel.framed:
            channel.shutdown_write()
        head = self._head(channel, deadline)
        if head is None:
            return Finding("connection_terminated", "before the response began")
        if self._is_grpc:
            return self._state(channel, head, deadline)
        if not any(first <= head.status <= last for first, last in self.expect):
            return Finding("status", f"{head.status}")
        body = _body(channel, head, deadline)
        if body is None:
            return Finding("response_incomplete", "the body is cut short")
        if self.body not in body:
            return Finding("body", f"the first {len(body)} bytes do not hold the text")
        return _GOOD

    def _state(self, channel: Channel, head: ResponseHead, deadline: _Deadline) -> Finding:
        """What the health service of gRPC says."""
        body = _body(channel, head, deadline)
        if body is None:
            return Finding("response_incomplete", "the body is cut short")
        trouble = grpc_health.trouble(head, body, getattr(channel, "trailers", b""))
        return Finding("status", trouble) if trouble else _GOOD

    def _head(self, channel: Channel, deadline: _Deadline) -> ResponseHead | None:
        """The head of the final response; None when the connection ends first. Raises Broken, Malformed."""
        for _ in range(_MOST_INTERIM):
            # With its first byte there the rest has one deadline, whatever comes when.
            if not channel.fill(1, deadline.left()):
                return None
            head = ResponseHead(_LIMITS, self._method)
            left = deadline.left()
            code = channel.read_head(head, left, left)
            if code == SLOW:
                raise Broken("source", "timeout")
            if code != HEAD:
                return None
            if head.status >= 200:
                return head
            if head.status == 101:
                raise Malformed("unasked_upgrade")
        raise Malformed("too_many_interim")


def _request(check: Check, host: str) -> bytes:
    return (
        f"{check.method} {check.target} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "User-Agent: sidecar-health\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")


def _body(channel: Channel, head: ResponseHead, deadline: _Deadline) -> bytes | None:
    """The first BODY bytes of the body; None when it ends before its framing says so.

    It is read also when nobody looks at it: to close on unread bytes would reset the connection, and servers
    tell their users about that.
    """
    if head.framing == NONE:
        return b""
    wanted = min(head.length, BODY) if head.framing == LENGTH else BODY
    decoder = ChunkedDecoder() if head.framing == CHUNKED and not channel.framed else None
    body = bytearray()
    while len(body) < wanted and (decoder is None or not decoder.done):
        try:
            data = channel.read(BODY, deadline.left())
        except Broken as broken:
            if broken.what == "timeout":
                raise
            return None
        if not data:
            return bytes(body) if head.framing == CLOSE or channel.framed else None
        body += data if decoder is None else decoder.feed(data)[0]
    return bytes(body[:wanted])
