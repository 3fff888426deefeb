"""The two ends of a client's connection: as the kernel knows them, or as a balancer in front told them."""

from __future__ import annotations

import _socket
from typing import Any, Final, NamedTuple

from .channel import Channel
from .client_address import peer_address

#: TCP_CLOSE and TCP_CLOSE_WAIT of <netinet/tcp.h>: a reset came, or the other end's FIN.
_ENDED: Final = (7, 8)


class Endpoints(NamedTuple):
    """Each (IP address, port); None where the connection has no address: a UNIX socket."""

    source: tuple[str, int] | None
    destination: tuple[str, int] | None


def endpoints(channel: Channel) -> Endpoints:
    """Those of the connection itself; none when it has ended already."""
    try:
        # The descriptor stays the channel's: the object that asks the kernel gives it back.
        sock = _socket.socket(fileno=channel.fileno())
    except (OSError, ValueError):
        return Endpoints(None, None)
    try:
        return Endpoints(_address(sock.getpeername()), _address(sock.getsockname()))
    except OSError:
        return Endpoints(None, None)
    finally:
        sock.detach()


def has_ended(channel: Channel) -> bool:
    """Whether the other end is known to have ended its side, whatever is still to be read."""
    if channel.framed:
        return channel.peer_finished
    try:
        sock = _socket.socket(fileno=channel.fileno())
    except (OSError, ValueError):
        return True
    try:
        return sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 1)[0] in _ENDED
    except OSError:
        # A UNIX socket, of which nothing is known without reading.
        return False
    finally:
        sock.detach()


def _address(name: Any) -> tuple[str, int] | None:
    # IPv6 names have four parts; the address may be an IPv4 one in IPv6 form, or name a zone.
    return (peer_address(name[0]), name[1]) if isinstance(name, tuple) else None
