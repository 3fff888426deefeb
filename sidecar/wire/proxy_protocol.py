"""The header that a balancer sends ahead of a connection: PROXY protocol, version 1 and 2, read and written.

Strict, without switches, and bounded: whoever may send this header decides who the client is.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from ..errors import Malformed

#: Longest line of version 1, CRLF included (section 2.1 of the specification).
MAX_LINE: Final = 107
#: Longest header of version 2 that is taken. The format allows 64 KiB; addresses and all registered TLVs fit.
MAX_HEADER: Final = 4096

_LINE_START: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = len(_SIGNATURE) + 4  # then version and command, family and transport, length
_LOCAL: Final = 0x20
_PROXIED: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21
#: Family and transport → size of the two addresses and their ports. 0: not said.
_ADDRESSES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}


class Result(NamedTuple):
    """A whole header. Addresses are (IP address, port).

    Without addresses (LOCAL, UNKNOWN, families other than TCP over IP) those of the connection itself hold.
    """

    size: int  # bytes that the header takes; what follows belongs to the connection
    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    is_local: bool  # the balancer's own connection, such as a health check


def parse(data: bytes) -> Result | None:
    """The header at the start of `data`; None when more bytes are needed, never more than MAX_HEADER.

    Raises Malformed: proxy_missing when this is not a PROXY header at all, else proxy_bad_line,
    proxy_bad_address, proxy_bad_port, proxy_bad_version, proxy_bad_family, proxy_bad_length, proxy_too_long.
    """
    if data.startswith(_LINE_START):
        return _line(data)
    if data.startswith(_SIGNATURE):
        return _binary(data)
    if _LINE_START.startswith(data) or _SIGNATURE.startswith(data):
        return None
    raise Malformed("proxy_missing")


def _line(data: bytes) -> Result | None:
    end = data.find(b"\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise Malformed("proxy_too_long")
        return None
    line = data[: end - 1]
    if data[end - 1] != 13 or not line.isascii() or not line.decode("ascii").isprintable():
        raise Malformed("proxy_bad_line")
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        # What may follow is to be ignored.
        return Result(end + 1, None, None, False)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise Malformed("proxy_bad_line")
    make = IPv4Address if words[1] == b"TCP4" else IPv6Address
    source = _address(words[2], make), _port(words[4])
    destination = _address(words[3], make), _port(words[5])
    return Result(end + 1, source, destination, False)


def _address(word: bytes, make: type[IPv4Address] | type[IPv6Address]) -> str:
    # A zone is meaningful on one machine only; it has no place here.
    if b"%" in word:
        raise Malformed("proxy_bad_address")
    try:
        return str(make(word.decode("ascii")))
    except ValueError:
        raise Malformed("proxy_bad_address") from None


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[0] == 48 and word != b"0") or int(word) > 65535:
        raise Malformed("proxy_bad_port")
    return int(word)


def _binary(data: bytes) -> Result | None:
    if len(data) < _FIXED:
        return None
    command, family = data[12], data[13]
    if command not in (_LOCAL, _PROXIED):
        raise Malformed("proxy_bad_version")
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if size > MAX_HEADER:
        raise Malformed("proxy_too_long")
    if len(data) < size:
        return None
    if command == _LOCAL:
        # The rest is skipped unread: the sender may put anything there.
        return Result(size, None, None, True)
    if family not in _ADDRESSES:
        raise Malformed("proxy_bad_family")
    block = data[_FIXED:size]
    addresses = _ADDRESSES[family]
    if len(block) < addresses:
        raise Malformed("proxy_bad_length")
    if family != 0:
        _check_tlvs(block, addresses)
    return _proxied(size, family, block)


def _proxied(size: int, family: int, block: bytes) -> Result:
    if family == _TCP4:
        source, destination = str(IPv4Address(block[:4])), str(IPv4Address(block[4:8]))
        ports = block[8:12]
    elif family == _TCP6:
        source, destination = str(IPv6Address(block[:16])), str(IPv6Address(block[16:32]))
        ports = block[32:36]
    else:
        return Result(size, None, None, False)
    return Result(
        size,
        (source, int.from_bytes(ports[:2], "big")),
        (destination, int.from_bytes(ports[2:], "big")),
        False,
    )


def _check_tlvs(block: bytes, at: int) -> None:
    """Type, two bytes of length, value; they must end where the header ends."""
    while at < len(block):
        if at + 3 > len(block):
            raise Malformed("proxy_bad_length")
        at += 3 + int.from_bytes(block[at + 1 : at + 3], "big")
    if at != len(block):
        raise Malformed("proxy_bad_length")


#: The sender's own connection, of which nothing is to be learned: a health check, say. By version.
LOCAL: Final = {1: b"PROXY UNKNOWN\r\n", 2: _SIGNATURE + bytes((_LOCAL, 0, 0, 0))}

Socket = tuple[str, int]  # (IP address, port)


def render(version: int, source: Socket | None, destination: Socket | None) -> bytes:
    """The header of a connection over TCP from `source` to `destination`.

    Where one has no address (a UNIX socket) it says that nothing is known. An IPv4 address beside an IPv6 one
    is written in IPv6 form, because a header has one family. Raises ValueError for what is no address.
    """
    if source is None or destination is None:
        return LOCAL[version]
    one, other = ip_address(source[0]), ip_address(destination[0])
    if one.version != other.version:
        one, other = _as_v6(one), _as_v6(other)
    if version == 1:
        return b"PROXY TCP%d %b %b %d %d\r\n" % (
            one.version,
            str(one).encode("ascii"),
            str(other).encode("ascii"),
            source[1],
            destination[1],
        )
    block = one.packed + other.packed + source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    family = _TCP4 if one.version == 4 else _TCP6
    return _SIGNATURE + bytes((_PROXIED, family)) + len(block).to_bytes(2, "big") + block


def _as_v6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if address.version == 6 else IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
