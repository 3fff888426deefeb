# cython: language_level=3, annotation_typing=False
"""Who the client is, and what the upstream is told about it in X-Forwarded-* and X-Real-IP.

A field is believed only when the peer of the connection is a trusted proxy; else it is replaced. An address
in X-Forwarded-For is believed only when every address to the right of it is a trusted proxy's too.

The host that routes and variables look at is never taken from X-Forwarded-Host: many balancers pass that
field on as the client wrote it, so it must not choose a route. It is passed on to the upstream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

from ..wire.head import RequestHead

#: The peer of a connection over a unix socket: it has no address.
UNIX_PEER: Final = "unix:"

#: Fields that tell of a client's certificate as `client_certificate_header` writes them.
CLIENT_CERTIFICATE_FIELDS: Final[tuple[bytes, ...]] = (
    b"Client-Cert",
    b"Client-Cert-Chain",
    b"X-Forwarded-Client-Cert",
)
#: More fields by which applications learn such things: to be dropped when the peer is not trusted.
#: (X-Forwarded-For, -Host, -Port, -Proto and X-Real-IP never travel on as they came.)
UNTRUSTED_DROP: Final[tuple[bytes, ...]] = (
    b"Forwarded",
    b"X-Forwarded-By",
    b"X-Forwarded-Prefix",
    b"X-Forwarded-Protocol",
    b"X-Forwarded-Scheme",
    b"X-Forwarded-Server",
    b"X-Forwarded-Ssl",
    # As Envoy and RFC 9440 name them, Traefik, and what nginx, HAProxy and Apache are mostly told to send.
    *CLIENT_CERTIFICATE_FIELDS,
    b"X-Forwarded-Tls-Client-Cert",
    b"X-Forwarded-Tls-Client-Cert-Info",
    b"Ssl-Client-Cert",
    b"Ssl-Client-Verify",
    b"Ssl-Client-Subject-Dn",
    b"Ssl-Client-Issuer-Dn",
    b"X-Client-Cert",
    b"X-Client-Verify",
    b"X-Client-Dn",
    b"X-Ssl-Cert",
    b"X-Ssl-Client-Cert",
    b"X-Ssl-Client-Verify",
    b"X-Ssl-Client-Dn",
    b"X-Ssl-Client-S-Dn",
    b"X-Ssl-Client-I-Dn",
    b"X-Ssl-Client-Cn",
    b"X-Ssl-Client-Serial",
    b"X-Ssl-Client-Sha1",
    b"X-Ssl-Client-Fingerprint",
    b"X-Ssl-Issuer",
    b"X-Ssl-Subject",
)

_SCHEMES: Final = {b"http": ("http", 80), b"https": ("https", 443)}
#: Addresses whose verdict is remembered: the same clients and proxies come again with every request.
_REMEMBERED: Final = 4096
_LONGEST_ADDRESS: Final = 64  # characters; what is longer is no address, brackets and port included
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~!$&'()*+;=-]{1,255})(?::(?P<port>[0-9]{1,5}))?"
)


class Forwarded(NamedTuple):
    """What is known about the client of one request."""

    client: str  # IP address without port, or UNIX_PEER
    scheme: str  # http or https
    extra: bytes  # the complete field lines for the upstream
    port: int  # that the client asked for; 0 when unknown


class ClientAddress:
    """Reads and writes the forwarding fields of one listener.

    `trusted` are the networks of the proxies that are believed. A peer over a unix socket has no address, so
    it is believed only with `trust_unix`; nothing is appended to X-Forwarded-For for it.
    """

    __slots__ = ("_entries", "_peers", "_trust_unix", "_v4", "_v6")

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network], *, trust_unix: bool = False) -> None:
        self._v4 = tuple((int(n.network_address), int(n.netmask)) for n in trusted if n.version == 4)
        self._v6 = tuple((int(n.network_address), int(n.netmask)) for n in trusted if n.version == 6)
        self._trust_unix = trust_unix
        self._peers: dict[str, tuple[str, bool]] = {}
        self._entries: dict[bytes, tuple[str, bool]] = {}

    def trusts(self, peer: str) -> bool:
        """Whether what this peer says is believed."""
        return self._known(peer)[1]

    def fixed(self, peer: str, scheme: str, port: int) -> bytes:
        """The field lines that are the same for every request of a connection whose peer is not trusted.

        With `host_line(head.authority)` behind they are complete. `port` 0 is unknown and left out.
        """
        address = peer_address(peer)
        lines = _scheme_lines(scheme, port)
        return lines if address == UNIX_PEER else _address_lines([], address, address) + lines

    def resolve(self, head: RequestHead, peer: str, scheme: str, port: int) -> Forwarded:
        """What is known about this request's client; `peer`, `scheme` and `port` are the connection's."""
        address, is_trusted = self._known(peer)
        if not is_trusted:
            return Forwarded(
                address, scheme, self.fixed(peer, scheme, port) + host_line(head.authority), port
            )
        chain = _entries(head, b"x-forwarded-for")
        client, hops = self._walk(chain, address)
        scheme, authority, port = _believed(head, hops, scheme, port)
        lines = _address_lines(chain, address, client) + _scheme_lines(scheme, port) + host_line(authority)
        return Forwarded(client, scheme, lines, port)

    def _walk(self, chain: list[bytes], peer: str) -> tuple[str, int]:
        """The client, and how many entries stand to the right of it; `peer` is trusted."""
        client, hops = peer, 0
        for passed, entry in enumerate(reversed(chain)):
            found = self._entries.get(entry) or self._read(entry)
            if found is None:
                break
            client, hops = found[0], passed
            if not found[1]:
                break
        return client, hops

    def _read(self, entry: bytes) -> tuple[str, bool] | None:
        """The address that an entry writes, and whether it is trusted; None when it is none."""
        if len(entry) > _LONGEST_ADDRESS:
            return None
        address = parse_address(entry.decode("latin-1"))
        if address is None:
            return None
        if len(self._entries) >= _REMEMBERED:
            self._entries.clear()
        found = self._entries[entry] = str(address), self._is_trusted(address)
        return found

    def _known(self, peer: str) -> tuple[str, bool]:
        """The peer's address and whether it is trusted; remembered, because connections come again."""
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= _REMEMBERED:
                self._peers.clear()
            address = peer_address(peer)
            parsed = parse_address(address)
            known = address, self._trust_unix if parsed is None else self._is_trusted(parsed)
            self._peers[peer] = known
        return known

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        number = int(address)
        networks = self._v4 if address.version == 4 else self._v6
        return any(number & mask == network for network, mask in networks)


def peer_address(peer: str) -> str:
    """The address of a connection's other end as it is logged and sent; UNIX_PEER when it has none."""
    # A socket names the zone of a link-local address; it means nothing to anybody else.
    address = parse_address(peer.partition("%")[0])
    return UNIX_PEER if address is None else str(address)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address that `text` writes, with or without brackets and port; None when it is none.

    An IPv4 address in IPv6 form (::ffff:192.0.2.1, as dual-stack sockets report it) is the IPv4 address.
    """
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        return _ipv6(text) if bracket and (not port or _is_port(port)) else None
    if "." in text and text.count(":") < 2:
        text, colon, port = text.partition(":")
        return _ipv4(text) if not colon or _is_port(colon + port) else None
    return _ipv6(text)


def _ipv4(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _ipv6(text: str) -> IPv4Address | IPv6Address | None:
    # A zone means something on one machine only, and it may hold any character.
    if "%" in text:
        return None
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and digits.isascii() and digits.isdigit() and len(digits) <= 5


def host_line(authority: bytes) -> bytes:
    """The line of X-Forwarded-Host; empty for the rare request that names no host."""
    return b"X-Forwarded-Host: " + authority + b"\r\n" if authority else b""


def _address_lines(chain: list[bytes], peer: str, client: str) -> bytes:
    hops = chain if peer == UNIX_PEER else [*chain, peer.encode("ascii")]
    lines = b"X-Forwarded-For: %b\r\n" % b", ".join(hops) if hops else b""
    return lines if client == UNIX_PEER else lines + b"X-Real-IP: %b\r\n" % client.encode("ascii")


def _scheme_lines(scheme: str, port: int) -> bytes:
    lines = b"X-Forwarded-Proto: %b\r\n" % scheme.encode("ascii")
    return lines + b"X-Forwarded-Port: %d\r\n" % port if port else lines


def _entries(head: RequestHead, name: bytes) -> list[bytes]:
    """The entries of a list field, all its lines joined, empty entries left out."""
    entries = [entry.strip(b" \t") for line in head.get_all(name) for entry in line.split(b",")]
    return [entry for entry in entries if entry]


def _entry(head: RequestHead, name: bytes, hops: int) -> bytes:
    """What the proxy that spoke with the client said: each proxy behind it may have added one entry."""
    lines = head.get_all(name)
    if len(lines) == 1 and b"," not in lines[0]:
        return lines[0]
    entries = _entries(head, name) if lines else ()
    return entries[max(-len(entries), -1 - hops)] if entries else b""


def _believed(head: RequestHead, hops: int, scheme: str, port: int) -> tuple[str, bytes, int]:
    """Scheme, authority and port as a trusted peer tells them; what it does not tell is the connection's."""
    authority = head.authority
    told = _entry(head, b"x-forwarded-proto", hops)
    if told:
        scheme, default = _SCHEMES.get(told.lower(), (scheme, 0))
        port = (head.port or default) if default else port
    host = _entry(head, b"x-forwarded-host", hops)
    found = _AUTHORITY.fullmatch(host) if host else None
    if found:
        authority = host
        port = _port(found["port"]) or port
    return scheme, authority, _port(_entry(head, b"x-forwarded-port", hops)) or port


def _port(text: bytes | None) -> int:
    """The port, 0 when there is none or it is not one."""
    if not text or len(text) > 5 or not text.isdigit() or int(text) > 65535:
        return 0
    return int(text)
