"""Where to listen and where to connect: `host:port`, `[v6]:port` or `unix:/path`, with parameters behind.

Where to listen may also be `fd:NAME`: sockets that somebody else opened for this process.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, ClassVar, Final, Protocol, TypeVar

from .schema import Kind, quoted

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")  # its last label is a number
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LONGEST_NAME: Final = 253  # RFC 1035 section 2.3.4, without the lengths of the labels
_LONGEST_PATH: Final = 107  # bytes; sockaddr_un has 108 and a NUL at the end
#: As sd_listen_fds_with_names(3) has them, without what separates the items of a list.
_SOCKET_NAME: Final = re.compile(r"[!-+\--9;-~]{1,255}")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (`host`, `port`), a UNIX socket (`path`), inherited sockets (`name`), or a `service`.

    What does not belong to its form is empty.
    """

    host: str = ""  # an IP address in its shortest form, without brackets, or a name in lower case
    port: int = 0
    path: str = ""
    name: str = ""
    service: str = ""  # a name with SRV records

    @property
    def is_name(self) -> bool:
        """Whether its host has to be resolved."""
        return bool(self.host) and ":" not in self.host and not _NUMERIC.fullmatch(self.host)

    @property
    def is_unix(self) -> bool:
        """Whether this is a UNIX socket with a path."""
        return bool(self.path)

    @property
    def is_inherited(self) -> bool:
        """Whether this names sockets that are open already."""
        return bool(self.name)

    @property
    def is_fixed(self) -> bool:
        """Whether it is the same each time it is written. Port 0 is not: the system chooses."""
        return bool(self.port or self.path or self.name)

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for all addresses of the machine."""
        return self.host in ("0.0.0.0", "::")

    def excludes(self, other: Address) -> bool:
        """Whether only one of them can be bound at one time, as far as that is written."""
        if self == other:
            return self.is_fixed
        is_near = 0 < self.port == other.port and (":" in self.host) == (":" in other.host)
        return is_near and (self.is_wildcard or other.is_wildcard)

    def __str__(self) -> str:
        """As it is written in the configuration."""
        if self.path:
            return f"unix:{self.path}"
        if self.name:
            return f"fd:{self.name}"
        if self.service:
            return f"srv:{self.service}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_ip_address(text: str) -> bool:
    """Whether it is one of either family, without brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _parse_unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    if not path.startswith("/"):
        raise ValueError(f"{quoted(text)} is not an absolute path: write unix:/run/app.sock")
    if len(path.encode(errors="replace")) > _LONGEST_PATH:
        raise ValueError(f"{quoted(text)} is too long for a UNIX socket: write at most {_LONGEST_PATH} bytes")
    if not path.isprintable():
        raise ValueError(f"{quoted(text)} holds a character that no path should have: rename the socket")
    return Address(path=path)


def _parse_inherited(text: str) -> Address:
    name = text.removeprefix("fd:")
    if not _SOCKET_NAME.fullmatch(name):
        raise ValueError(
            f"{quoted(text)} names no sockets: write fd: and the FileDescriptorName= of a socket unit"
        )
    return Address(name=name)


def _parse_service(text: str) -> Address:
    service = text.removeprefix("srv:")
    if not _NAME.fullmatch(service) or len(service.rstrip(".")) > _LONGEST_NAME:
        raise ValueError(f"{quoted(text)} is not a service: write srv:_http._tcp.app.example")
    return Address(service=service.lower())


def _host(text: str, host: str) -> str:
    """The host in its one form. `text` is the whole address, for the message."""
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(IPv6Address(host[1:-1]))
        if _NUMERIC.fullmatch(host):
            return str(IPv4Address(host))
    except ValueError:
        raise ValueError(
            f"{quoted(host)} is not an IP address: write 192.0.2.7:80 or [2001:db8::7]:80"
        ) from None
    if ":" in host:
        raise ValueError(f"{quoted(text)} has an IPv6 address without brackets: write [::1]:8080")
    if not _NAME.fullmatch(host) or len(host.rstrip(".")) > _LONGEST_NAME:
        raise ValueError(
            f"{quoted(host)} is not a host: write a name, an IPv4 address or an IPv6 address in brackets"
        )
    return host.lower()


def _parse_tcp(text: str, lowest: int) -> Address:
    if "://" in text:
        raise ValueError(f"{quoted(text)} is a URL: write host:port or unix:/path")
    host, colon, port = text.rpartition(":")
    if not colon or host.count("[") > host.count("]"):
        raise ValueError(f"{quoted(text)} has no port: write host:port, [v6]:port or unix:/path")
    if not host:
        raise ValueError(
            f"{quoted(text)} has no host: write 0.0.0.0:8080 or [::]:8080, with the port you mean"
        )
    if not _PORT.fullmatch(port) or not lowest <= int(port) <= 65535:
        raise ValueError(
            f"{quoted(port)} in {quoted(text)} is not a port: write {lowest} to 65535 after the colon"
        )
    return Address(_host(text, host), int(port))


def _parse_bind(text: str) -> Address:
    if text.startswith("fd:"):
        return _parse_inherited(text)
    return _parse_unix(text) if text.startswith("unix:") else _parse_tcp(text, 0)


def _parse_server(text: str) -> Address:
    if text.startswith("srv:"):
        return _parse_service(text)
    return _parse_unix(text) if text.startswith("unix:") else _parse_tcp(text, 1)


#: Where to listen; port 0 lets the system choose.
BIND: Final[Kind[Address]] = Kind("address", _parse_bind)

#: Where to connect.
SERVER_ADDRESS: Final[Kind[Address]] = Kind("address", _parse_server)


def _no_value(text: str) -> bool:
    raise ValueError("takes no value: write the word alone")


#: A parameter that is there or not.
FLAG: Final[Kind[bool]] = Kind("flag", _no_value)


class Addressed(Protocol):
    """What `with_parameters` makes: a dataclass with an address and fields that have defaults."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def address(self) -> Address:
        """Where to connect."""


A = TypeVar("A", bound=Addressed)


def with_parameters(make: Callable[..., A], parameters: Mapping[str, Kind[Any]]) -> Kind[A]:
    """A server address followed by `name=value` words, and words alone for parameters of the kind FLAG.

    `make` is a dataclass with the field `address` and, for each parameter, a field with a default.
    """

    def parse(text: str) -> A:
        address, *words = text.split()
        return make(address=SERVER_ADDRESS.parse(address), **_parse_parameters(words, parameters))

    def show(value: A) -> str:
        words = [str(value.address)]
        for field in dataclasses.fields(value):
            given = getattr(value, field.name)
            if field.name in parameters and given != field.default:
                kind = parameters[field.name]
                words.append(field.name if kind is FLAG else f"{field.name}={kind.show(given)}")
        return " ".join(words)

    known = " ".join(f"[{name}]" if kind is FLAG else f"[{name}=…]" for name, kind in parameters.items())
    return Kind(f"address {known}", parse, show)


def _parse_parameters(words: list[str], known: Mapping[str, Kind[Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise ValueError(f"{quoted(word)} is not a parameter of a server: {_advice(name, known)}")
        if name in values:
            raise ValueError(f"{_written(name, known)} is given twice: keep one")
        if word == name and known[name] is FLAG:
            values[name] = True
            continue
        if not value:
            raise ValueError(f"{quoted(word)} has no value: write {name}=…, without spaces")
        try:
            values[name] = known[name].parse(value)
        except ValueError as error:
            raise ValueError(f"{name}= {error}") from None
    return values


def _written(name: str, known: Mapping[str, Kind[Any]]) -> str:
    return name if known[name] is FLAG else f"{name}="


def _advice(name: str, known: Mapping[str, Kind[Any]]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {_written(near[0], known)}?"
    return f"known are {', '.join(_written(one, known) for one in known)}"
