"""Connections outwards: from an address to a channel.

A numeric address and a UNIX socket never go near a resolver.
"""

from __future__ import annotations

import _socket
import errno
import os
from ipaddress import ip_address
from typing import Any, Final

import gevent.socket

from ..config.addresses import Address
from ..errors import Failure
from .channel import Channel

#: Reachable or not, the address has been refused; anything else is a failure of another kind.
_REFUSED: Final = frozenset((errno.ECONNREFUSED, errno.ENOENT))

#: Nothing is wrong with the address: this process, or the machine, has no descriptor left.
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE))

#: (family, socket address) as the system takes them.
Target = tuple[int, Any]


def numeric_target(address: Address) -> Target | None:
    """The one target of a numeric address or a UNIX socket; None for a name."""
    if address.is_unix:
        return _socket.AF_UNIX, address.path
    try:
        version = ip_address(address.host).version
    except ValueError:
        return None
    return (_socket.AF_INET6 if version == 6 else _socket.AF_INET), (address.host, address.port)


def resolve(address: Address) -> list[Target]:
    """The targets of a name, in the system's order. Raises Failure("dns_error")."""
    try:
        found = gevent.socket.getaddrinfo(address.host, address.port, type=_socket.SOCK_STREAM)
    except OSError as error:
        raise Failure("dns_error", f"{address.host}: {error}", repeatable=True) from error
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def dial(targets: list[Target], timeout: float) -> Channel:
    """A connection to the first target that accepts; `timeout` seconds for each (0: the system's).

    Raises Failure with connection_refused, connection_timeout or connection_failed; nothing was sent then.
    """
    failure = Failure("connection_failed", "no address", repeatable=True)
    for target in targets:
        try:
            return _connect(target, timeout)
        except Failure as error:
            failure = error
    raise failure


def _connect(target: Target, timeout: float) -> Channel:
    family, address = target
    try:
        sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    except OSError as error:
        reason = "descriptors_exhausted" if error.errno in _EXHAUSTED else "connection_failed"
        raise Failure(reason, error.strerror or str(error), repeatable=True) from error
    if family != _socket.AF_UNIX:
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    code = sock.connect_ex(address)
    channel = Channel(sock.detach())
    if code == errno.EINPROGRESS:
        try:
            code = channel.wait_connected(timeout)
        except BaseException:
            channel.close()
            raise
    if code == 0:
        return channel
    channel.close()
    if code in (-1, errno.ETIMEDOUT):
        raise Failure("connection_timeout", f"{address}", repeatable=True)
    reason = "connection_refused" if code in _REFUSED else "connection_failed"
    raise Failure(reason, f"{address}: {os.strerror(code)}", repeatable=True)
