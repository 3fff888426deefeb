# cython: language_level=3, annotation_typing=False
"""How connections to one server begin: TCP, what the server must hear first, and TLS where it speaks that.

Law: all of it has one bound in time, and a connection that fails on the way is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ..config.addresses import Address
from ..errors import Broken, Failure
from ..net.channel import Channel
from ..net.dial import dial_any, numeric_target
from ..runtime import SystemClock

if TYPE_CHECKING:
    from ..net.tls_channel import TlsChannel

#: Seconds that are left when nothing is: to a channel 0 would be no bound at all.
_LEAST: Final = 0.001

_HTTP_2: Final = b"h2"
#: In the alert of a server that wants none of the protocols it was offered (RFC 7301 section 3.2).
_NO_PROTOCOL: Final = "no application protocol"


class Shake(Protocol):
    """A `net.tls.ClientContext`."""

    def connect(self, channel: Channel, server_name: str, timeout: float) -> TlsChannel:
        """The channel that is secure, `timeout` in seconds. Raises Failure; `channel` is closed then."""


class Trusting(Protocol):
    """What knows the TLS context that is good now."""

    @property
    def context(self) -> Shake:
        """It may be another one the next time."""


class Secure(NamedTuple):
    """TLS towards one server, whose certificate must be for `server_name`."""

    trust: Trusting
    server_name: str
    needs_http2: bool = False  # one that does not choose it (ALPN) is of no use


class Dialer:
    """Opens connections to one server."""

    __slots__ = ("_now", "_targets", "secure")

    def __init__(
        self,
        addresses: Sequence[Address],
        secure: Secure | None = None,
        now: Callable[[], float] = SystemClock.monotonic,
    ) -> None:
        """`addresses`: numeric, the same server's in each family, or a UNIX socket."""
        self._targets = [numeric_target(one) for one in addresses]
        self._now = now
        self.secure = secure

    def connect(self, timeout: float) -> Channel:
        """TCP alone, in at most so many seconds (0: the system's bound). Raises Failure."""
        return dial_any(self._targets, timeout)

    def open(self, timeout: float, first: bytes = b"") -> Channel:
        """A connection that is ready for requests; `first` is what the server hears before all else.

        Without TLS that is held back until the first bytes of the request. Raises Failure; nothing was asked.
        """
        secure = self.secure
        if secure is None:
            channel = dial_any(self._targets, timeout)
            if first:
                channel.hold(first)
            return channel
        until = self._now() + timeout if timeout else 0.0
        channel = dial_any(self._targets, timeout)
        try:
            if first:
                say(channel, first, self._left(until))
            shaken = secure.trust.context.connect(channel, secure.server_name, self._left(until))
        except BaseException as error:
            channel.close()
            if secure.needs_http2 and isinstance(error, Failure) and _NO_PROTOCOL in error.detail:
                raise Failure("not_http2", "the server has no h2 (ALPN)", repeatable=True) from error
            raise
        if secure.needs_http2 and shaken.alpn != _HTTP_2:
            shaken.close()
            raise Failure("not_http2", "the server did not choose h2 (ALPN)", repeatable=True)
        return shaken

    def _left(self, until: float) -> float:
        return max(until - self._now(), _LEAST) if until else 0.0


def say(channel: Channel, first: bytes, timeout: float) -> None:
    """Send what a server must hear first, with what is held. Raises Failure."""
    try:
        channel.send(first, timeout)
    except Broken as broken:
        if broken.what == "timeout":
            raise Failure("connection_timeout", "at its start", repeatable=True) from broken
        raise Failure("connection_terminated", "at its start", repeatable=True) from broken
