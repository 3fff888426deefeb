"""TLS as the rest sees it: certificates of a listener, trust in servers, and channels that are secure.

Law: OpenSSL has no session cache of ours. Sessions live in tickets, whose keys belong to the process, so that
they are good across reloads; a ticket made under one [certificate] is never good under another.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256, sha512
from pathlib import Path
from typing import Final, NamedTuple

from ..config.addresses import is_ip_address
from ..errors import Broken, Failure, TlsError
from .channel import Channel
from .tls_channel import TlsChannel, accept, attend, connect, first_byte
from .tls_context import Context, Roots

__all__ = ["ClientContext", "Pair", "ServerContext", "Terminator", "Tickets", "TlsError"]

#: Seconds for which a ticket key seals, and keys that still open what they sealed.
_ROTATION: Final = 12 * 3600.0
_OLDER_KEYS: Final = 2

#: Seconds for which a session may be resumed: a day, as Mozilla advises.
_SESSION: Final = 86400

#: What begins a TLS connection (a record of the type handshake), and what may begin an HTTP request.
_HANDSHAKE: Final = 22
_METHODS: Final = range(ord("A"), ord("Z") + 1)


class Pair(NamedTuple):
    """A certificate and its key, both PEM; the chain has the server's own certificate first."""

    certificate: bytes
    key: bytes


class Tickets:
    """The keys that seal session tickets: a new one every 12 hours, two older ones still open theirs.

    Each key comes from the one before it by a one-way function: workers forked after the start agree without
    a word, and who learns today's key does not learn yesterday's. `now` is in seconds and the same in all of
    them.
    """

    def __init__(self, random: Callable[[int], bytes], now: Callable[[], float]) -> None:
        self.random = random
        self._now = now
        self._until = now() + _ROTATION
        self._chain = random(32)
        self._keys = [_ticket_key(self._chain)]

    def newest(self) -> tuple[bytes, bytes, bytes]:
        """The key that seals: its name (16 bytes), AES-256, HMAC-SHA-256."""
        if self._now() >= self._until:
            self._rotate()
        return self._keys[0]

    def find(self, name: bytes) -> tuple[bytes, bytes, bool] | None:
        """(AES, HMAC, whether it is the newest) of the key of that name; None: not ours, or too old."""
        newest = self.newest()
        for key in self._keys:
            if key[0] == name:
                return key[1], key[2], key is newest
        return None

    def _rotate(self) -> None:
        while self._now() >= self._until:
            self._chain = sha256(b"next" + self._chain).digest()
            self._until += _ROTATION
            self._keys = [_ticket_key(self._chain), *self._keys[:_OLDER_KEYS]]


def _ticket_key(chain: bytes) -> tuple[bytes, bytes, bytes]:
    name, keys = sha256(b"name" + chain).digest()[:16], sha512(b"keys" + chain).digest()
    return name, keys[:32], keys[32:]


class ServerContext:
    """One [certificate]: what a listener shows to clients that ask for its names.

    `pairs` may have different types of key (ECDSA, RSA) for the same names. `identity` names the section:
    sessions are resumed only under the same one, with the same demands on client certificates. Raises
    TlsError.
    """

    def __init__(  # noqa: PLR0913 - the options of one section
        self,
        pairs: Sequence[Pair],
        *,
        min_version: str = "1.2",
        ciphers: str = "",
        client_ca: bytes = b"",
        client_crl: bytes = b"",
        verify_client: str = "off",
        tickets: Tickets,
        identity: bytes,
    ) -> None:
        self.context = context = Context(True)
        context.tickets = tickets
        context.set_min_version(min_version)
        if ciphers:
            context.set_ciphers(ciphers)
        for number, pair in enumerate(pairs):
            context.add_pair(pair.certificate, pair.key, number)
        roots = Roots()
        if client_ca:
            roots.add(client_ca, "client_ca")
            context.name_authorities(client_ca)
        if client_crl:
            roots.add_revoked(client_crl)
        context.verify(verify_client, roots)
        demands = [identity, client_ca, client_crl, verify_client.encode()]
        context.set_identity(sha256(b"".join(sha256(one).digest() for one in demands)).digest())
        attend(context)

    @property
    def leaves(self) -> list[bytes]:
        """DER of each pair's own certificate."""
        return self.context.leaves


class Terminator:
    """TLS of one listener.

    `choose` is asked once per connection, with the name the client wants (lower case; "" for none): a renewed
    certificate is just another answer. `alpn`: protocols, best first; a client that offers others only is
    refused, one that offers none is served.
    """

    def __init__(self, choose: Callable[[str], ServerContext], alpn: tuple[bytes, ...]) -> None:
        self._context = context = Context(True)
        context.choose = lambda name: choose(name).context
        context.protocols = alpn
        context.set_timeout(_SESSION)
        attend(context)

    def secure(self, channel: Channel, timeout: float) -> TlsChannel:
        """Handshake with a client, `timeout` seconds for all of it; what was read ahead is taken along.

        Raises Failure: `plain_http` leaves the channel as it was, so that it can be answered; with any other
        (`tls_handshake_failed`, `client_gone`) it is closed.
        """
        try:
            first, left = first_byte(channel, timeout)
        except Broken as broken:
            channel.close()
            if broken.what == "timeout":
                raise Failure("tls_handshake_failed", "nothing came in time") from broken
            raise Failure("client_gone", "before the handshake") from broken
        if first != _HANDSHAKE:
            if first in _METHODS:
                raise Failure("plain_http", "an HTTP request without TLS")
            if first < 0:
                channel.close()
                raise Failure("client_gone", "before the handshake")
        secure = accept(channel, self._context)
        secure.handshake(left)
        return secure


class ClientContext:
    """TLS towards servers.

    `ca` is PEM; None stands for the system's roots. Remembers the last ticket for each name, so that new
    connections resume. Raises TlsError.
    """

    def __init__(
        self,
        *,
        verify: bool = True,
        ca: bytes | None = None,
        pair: Pair | None = None,
        alpn: tuple[bytes, ...] = (),
        min_version: str = "1.2",
    ) -> None:
        self._context = context = Context(False)
        self._is_verified = verify
        context.set_min_version(min_version)
        if pair is not None:
            context.add_pair(pair.certificate, pair.key)
        if verify:
            context.verify(
                "require", _given_roots(ca) if ca is not None else _system_roots(_place_of_roots())
            )
        context.offer(alpn)
        attend(context)

    def connect(self, channel: Channel, server_name: str, timeout: float) -> TlsChannel:
        """Handshake with a server whose certificate must be for `server_name`, a host name or an address.

        Raises Failure (`tls_verify`, `tls_alert`, `tls_failed`, `tls_timeout`), and the channel is closed
        then. Nothing of a request was sent, so each of them is repeatable.
        """
        name = server_name.lower().rstrip(".")
        secure = connect(channel, self._context, name, is_ip_address(name), self._is_verified)
        secure.handshake(timeout)
        return secure


def _given_roots(pem: bytes) -> Roots:
    roots = Roots()
    roots.add(pem, "tls_ca")
    return roots


def _place_of_roots() -> tuple[str, float]:
    """(the file or directory that OpenSSL finds by itself, when it was changed last)."""
    paths = ssl.get_default_verify_paths()
    place = paths.cafile or paths.capath
    if place is None:
        raise TlsError("this machine has no TLS roots: install its ca-certificates, or name a file", "tls_ca")
    return place, os.stat(place).st_mtime


@cache
def _system_roots(place: tuple[str, float]) -> Roots:
    """Read once, 150 certificates and more: all upstreams share them until they change."""
    roots = Roots()
    roots.add_system(place[0] if Path(place[0]).is_file() else "")
    return roots
