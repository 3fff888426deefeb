"""What a route wants of a request besides host and path, compiled to small objects.

A field that stands on several lines has one value, its lines joined with commas (RFC 9110 section 5.3); of
cookies of one name the first counts; of query parameters of one name any may match.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from ..config.kinds import CIDRS, Network
from ..config.schema import quoted
from ..message import Request
from ..net.client_address import parse_address
from . import tls
from .settings import RouteSettings
from .values import Wanted

#: A query of more parameters is not searched to its end: a condition must not cost what a client decides.
MAX_PARAMETERS: Final = 1000


class Condition(Protocol):
    """One condition. `key` is the option that it comes from."""

    @property
    def key(self) -> str:
        """The option that it comes from, as it is written."""

    def matches(self, request: Request) -> bool:
        """Whether the request fulfils it."""

    def why_not(self, request: Request) -> str:
        """Why a request that does not fulfil it does not; empty when it does."""


class MethodCondition:
    """The request method is one of a few."""

    __slots__ = ("_methods", "key", "methods")

    def __init__(self, methods: tuple[str, ...]) -> None:
        self.key = "method"
        self.methods = methods
        self._methods = frozenset(method.encode("ascii") for method in methods)

    def matches(self, request: Request) -> bool:
        """Whether it is one of them."""
        return request.head.method in self._methods

    def why_not(self, request: Request) -> str:
        """`method is POST, not GET or HEAD`."""
        if self.matches(request):
            return ""
        return f"method is {request.head.method.decode('ascii')}, not {' or '.join(self.methods)}"


class ClientCondition:
    """The client's address is in one of the networks."""

    __slots__ = ("_masks", "key", "networks")

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self.key = "client"
        self.networks = networks
        self._masks: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in networks:
            self._masks[network.version].append((int(network.netmask), int(network.network_address)))

    def matches(self, request: Request) -> bool:
        """Whether it is in one of them; a client without an address (a unix socket) is in none."""
        address = parse_address(request.client)
        if address is None:
            return False
        number = int(address)
        return any(number & mask == network for mask, network in self._masks[address.version])

    def why_not(self, request: Request) -> str:
        """`client 192.0.2.7 is not in 10.0.0.0/8`."""
        if self.matches(request):
            return ""
        return f"client {request.client} is not in {CIDRS.show(self.networks)}"


class ValueCondition(ABC):
    """A named value of the request is the wanted one."""

    __slots__ = ("_regex", "_text", "key", "name", "wanted")

    def __init__(self, kind: str, name: str, wanted: Wanted) -> None:
        self.key = f"{kind}.{name}"
        self.name = name
        self.wanted = wanted
        self._regex = wanted.regex
        self._text = wanted.text.encode("utf-8", "surrogateescape")

    @abstractmethod
    def values(self, request: Request) -> Iterator[bytes]:
        """The request's values of that name, any of which may match."""

    def matches(self, request: Request) -> bool:
        """Whether one of the values is the wanted one."""
        regex, text = self._regex, self._text
        if regex is None:
            return any(value == text for value in self.values(request))
        return any(regex.test(_text(value)) for value in self.values(request))

    def accepts(self, value: str) -> bool:
        """Whether `value` is the wanted one."""
        return value == self.wanted.text if self._regex is None else self._regex.test(value)

    def why_not(self, request: Request) -> str:
        """`header X-Canary is 'no', not 'yes'`."""
        if self.matches(request):
            return ""
        kind = self.key.partition(".")[0]
        found = [_text(value) for value in islice(self.values(request), 3)]
        wanted = quoted(self.wanted.text)
        if not found:
            return f"{kind} {self.name} is missing, not {wanted}"
        return f"{kind} {self.name} is {' and '.join(quoted(value) for value in found)}, not {wanted}"


class HeaderCondition(ValueCondition):
    """A field has a value."""

    __slots__ = ("_field",)

    def __init__(self, name: str, wanted: Wanted) -> None:
        super().__init__("header", name, wanted)
        self._field = name.lower().encode("ascii")

    def values(self, request: Request) -> Iterator[bytes]:
        """The field's one value, when it is there."""
        lines = request.head.get_all(self._field)
        if lines:
            yield b", ".join(lines)


class CookieCondition(ValueCondition):
    """A cookie has a value."""

    __slots__ = ("_cookie",)

    def __init__(self, name: str, wanted: Wanted) -> None:
        super().__init__("cookie", name, wanted)
        self._cookie = name.encode("utf-8")

    def values(self, request: Request) -> Iterator[bytes]:
        """The first cookie of the name."""
        for line in request.head.get_all(b"cookie"):
            for pair in line.split(b";"):
                name, equals, value = pair.partition(b"=")
                if equals and name.strip(b" \t") == self._cookie:
                    yield value.strip(b" \t")
                    return


class QueryCondition(ValueCondition):
    """A query parameter has a value, decoded."""

    __slots__ = ("_parameter",)

    def __init__(self, name: str, wanted: Wanted) -> None:
        super().__init__("query", name, wanted)
        self._parameter = name.encode("utf-8")

    def values(self, request: Request) -> Iterator[bytes]:
        """The values of all parameters of the name, among the first MAX_PARAMETERS."""
        query = request.head.query
        if not query:
            return
        for pair in query.split(b"&", MAX_PARAMETERS)[:MAX_PARAMETERS]:
            name, _, value = pair.partition(b"=")
            if _decoded(name) == self._parameter:
                yield _decoded(value)


class TlsCondition(ValueCondition):
    """A fact of the client's TLS connection is the wanted one, or one of several is."""

    __slots__ = ()

    def __init__(self, name: str, wanted: Wanted) -> None:
        super().__init__("tls", name, tls.normal(name, wanted))

    def values(self, request: Request) -> Iterator[bytes]:
        """What is known; of a certificate that is not verified nothing is."""
        if request.tls is not None:
            for value in request.tls.values(self.name):
                yield value.encode("ascii")

    def why_not(self, request: Request) -> str:
        """`tls client_dns is 'a.example', not 'b.example'`."""
        if request.tls is None:
            return f"there is no TLS, which {self.key} is about"
        if self.name in tls.ABOUT_CLIENTS and self.name != "client_verify" and not request.tls.certificate:
            return f"{self.key} needs a client certificate that is verified: {request.tls.verified}"
        return super().why_not(request)


def _decoded(value: bytes) -> bytes:
    if b"%" not in value and b"+" not in value:
        return value
    return unquote_to_bytes(value.replace(b"+", b" "))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def compiled(settings: RouteSettings) -> tuple[Condition, ...]:
    """The conditions of a route, the cheap ones first; each is one in the order of routes."""
    conditions: list[Condition] = []
    if settings.method:
        conditions.append(MethodCondition(settings.method))
    if settings.client:
        conditions.append(ClientCondition(settings.client))
    conditions += [TlsCondition(name, wanted) for name, wanted in settings.tls.items()]
    conditions += [HeaderCondition(name, wanted) for name, wanted in settings.header.items()]
    conditions += [CookieCondition(name, wanted) for name, wanted in settings.cookie.items()]
    conditions += [QueryCondition(name, wanted) for name, wanted in settings.query.items()]
    return tuple(conditions)


def exclude(one: Condition, other: Condition) -> bool:
    """Whether no request fulfils both conditions, as far as that can be known."""
    if isinstance(one, MethodCondition) and isinstance(other, MethodCondition):
        return not set(one.methods) & set(other.methods)
    if isinstance(one, ClientCondition) and isinstance(other, ClientCondition):
        return not any(_overlap(a, b) for a in one.networks for b in other.networks)
    if isinstance(one, ValueCondition) and isinstance(other, ValueCondition) and _is_same(one, other):
        if one.wanted.regex is None:
            return not other.accepts(one.wanted.text)
        return other.wanted.regex is None and not one.accepts(other.wanted.text)
    return False


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _is_same(one: ValueCondition, other: ValueCondition) -> bool:
    return type(one) is type(other) and place(one) == place(other)


def place(condition: Condition) -> str:
    """What of a request a condition looks at: the same text for the same thing."""
    return condition.key.lower() if isinstance(condition, HeaderCondition) else condition.key
