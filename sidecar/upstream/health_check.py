"""What a health check is told: what it asks, what a good answer is, and how many of either make a verdict."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from ..config.kinds import TEXT, TIMEOUT, checked, choice, integer, list_of, optional
from ..config.schema import Kind, option, quoted

_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_GRPC: Final = "grpc"
_LONGEST_SERVICE: Final = 255
_LONGEST_TARGET: Final = 2048
_LONGEST_TEXT: Final = 1024  # bytes


@dataclass(frozen=True, slots=True)
class Check:
    """A request without body for `target`; with an empty method only a connection is made.

    With the method `grpc` the target is a service, and grpc.health.v1.Health is asked for its state.
    """

    method: str = ""
    target: str = ""

    @property
    def is_tcp(self) -> bool:
        """Whether a connection is all that is asked for."""
        return not self.method

    @property
    def is_grpc(self) -> bool:
        """Whether the health service of gRPC is asked."""
        return self.method == _GRPC

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.method} {self.target}".rstrip() if self.method else "tcp"


_SERVICE: Final = re.compile(r"[A-Za-z0-9_./-]+")
_TARGET: Final = re.compile(r"/(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")


def _parse_check(text: str) -> Check:
    if text == "tcp":
        return Check()
    words = text.split()
    if words[0] == _GRPC:
        return _parse_grpc(words[1:])
    if len(words) != 2 or words[0] not in _METHODS:
        raise ValueError(f"{quoted(text)} is not a check: {_check_advice(words)}")
    target = words[1]
    if "://" in target:
        raise ValueError(f"{quoted(target)} is a URL: write the path alone, and health_host for the host")
    if not _TARGET.fullmatch(target):
        raise ValueError(
            f"{quoted(target)} is not a path: write it from its slash on, escaped as in a URL: /healthz"
        )
    if len(target) > _LONGEST_TARGET:
        raise ValueError(f"the path has {len(target)} characters: write at most {_LONGEST_TARGET}")
    return Check(words[0], target)


def _parse_grpc(words: list[str]) -> Check:
    service = " ".join(words)
    if service and (not _SERVICE.fullmatch(service) or len(service) > _LONGEST_SERVICE):
        raise ValueError(f"{quoted(service)} is not a service: write grpc, or grpc package.Service")
    return Check(_GRPC, service)


def _check_advice(words: list[str]) -> str:
    first = words[0] if words else ""
    if len(words) == 1 and len(first) < 80 and _TARGET.fullmatch(first):
        return f"did you mean GET {first}?"
    if len(words) == 1 and first.lower() == "tcp":
        return "did you mean tcp?"
    if first.lower() in ("off", "none", "no"):
        return "leave the value empty"
    if first.upper() in _METHODS and first not in _METHODS:
        return f"methods are written in capitals: {first.upper()}"
    return "write GET /healthz, HEAD /, OPTIONS /, grpc, grpc SERVICE or tcp"


#: `GET /healthz`, `HEAD /`, `OPTIONS /`, `grpc`, `grpc package.Service` or `tcp`.
CHECK: Final[Kind[Check]] = Kind("GET path | HEAD path | OPTIONS path | grpc [service] | tcp", _parse_check)


class Statuses(NamedTuple):
    """From `first` to `last`, both included."""

    first: int
    last: int


_STATUSES: Final = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")


def _parse_statuses(text: str) -> Statuses:
    found = _STATUSES.fullmatch(text)
    if found is None:
        raise ValueError(f"{quoted(text)} is neither a status nor a range: write 200 or 200-399")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 200 <= first <= 599 or not 200 <= last <= 599:
        raise ValueError(f"{quoted(text)} holds statuses that no answer ends with: write 200 to 599")
    if found[2] and first >= last:
        right = f"{last}-{first}" if first > last else f"{first}"
        raise ValueError(f"{quoted(text)} does not go up: write {right}")
    return Statuses(first, last)


def _show_statuses(statuses: Statuses) -> str:
    return f"{statuses.first}" if statuses.first == statuses.last else f"{statuses.first}-{statuses.last}"


#: Statuses and ranges of them.
STATUSES: Final[Kind[tuple[Statuses, ...]]] = list_of(
    Kind("status | status-status", _parse_statuses, _show_statuses)
)

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


def _parse_host(text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None or not 1 <= int(found[2] or 1) <= 65535 or not _is_v6_or_name(found[1]):
        raise ValueError(f"{quoted(text)} is not a host: write example.org, example.org:80 or [2001:db8::7]")
    return text


def _is_v6_or_name(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


#: What a Host field may say.
HOST: Final[Kind[str]] = Kind("host[:port]", _parse_host)


def _too_long(text: str) -> str | None:
    size = len(text.encode())
    return f"{size} bytes are too long: write at most {_LONGEST_TEXT}" if size > _LONGEST_TEXT else None


#: A piece of a body.
PIECE: Final[Kind[str]] = checked(TEXT, _too_long)

# Options ----------------------------------------------------------------------------------------------------

#: Seconds; below that a check would be a load of its own.
_SHORTEST: Final = 0.1

_FAST: Final = 1.0
_UNLESS_TCP: Final = ("health_expect", "health_host", "health_body")
_UNLESS_GRPC: Final = ("health_expect", "health_body")

_INTERVAL: Final = checked(
    TIMEOUT, lambda value: "that is too often: write at least 100ms" if value < _SHORTEST else None
)


@dataclass(frozen=True)
class HealthOptions:
    """Options of an upstream. Times in seconds."""

    health_check: Check | None = option(
        None,
        optional(CHECK),
        "How servers are probed: a request such as GET /healthz, grpc for what the health service of gRPC "
        "says of a server or of one service, or tcp for a connection alone, with TLS if protocol says so; "
        "empty: not.",
    )
    health_interval: float = option(5.0, _INTERVAL, "Time from one probe of a server to the next, ±10 %.")
    health_fast_interval: float = option(
        _FAST,
        _INTERVAL,
        "The same while a new server is pending and while probes contradict what is held of a server; never "
        "longer than health_interval.",
    )
    health_timeout: float = option(
        2.0, TIMEOUT, "Longest time for a whole probe, from connecting to the last byte of the answer."
    )
    health_rise: int = option(2, integer(1, 100), "Good probes in a row that bring a server back.")
    health_fall: int = option(3, integer(1, 100), "Failed probes in a row that take a server out.")
    health_expect: tuple[Statuses, ...] = option(
        (Statuses(200, 399),), STATUSES, "Statuses of a good answer, such as 200, 204, 300-399."
    )
    health_host: str = option("", HOST, "The Host field of a probe; empty: the server's address.")
    health_body: str = option(
        "", PIECE, "A text that the first 64 KiB of a good answer's body contain; empty: anything will do."
    )
    health_start: str = option(
        "up",
        choice("up", "pending"),
        "Whether a new server is used at once (up) or after its first good probe (pending).",
    )

    @property
    def health_key(self) -> Hashable:
        """What gives the history of a check its meaning."""
        return tuple(getattr(self, key) for key in _KEYS)

    def health_mistakes(self) -> Iterator[tuple[str, str]]:
        """Combinations that cannot work, each the key to blame and what is wrong with it."""
        check = self.health_check
        if check is None:
            return
        if self.health_timeout > self.health_interval:
            yield "health_timeout", "is longer than health_interval: make it shorter, or the interval longer"
        if self.health_fast_interval > self.health_interval and self.health_fast_interval != _FAST:
            yield "health_fast_interval", "is longer than health_interval: make it shorter"
        if self.health_body and check.method == "HEAD":
            yield "health_body", "an answer to HEAD has no body: write health_check = GET …"

    def health_idle(self) -> Iterator[tuple[str, str]]:
        """Options that do nothing beside the others, each the key and why; `[defaults upstream]` may."""
        if self.health_check is None:
            for key in _KEYS:
                if getattr(self, key) != _DEFAULTS[key]:
                    yield key, "does nothing without health_check: add that, or remove this"
        else:
            idle = _UNLESS_TCP if self.health_check.is_tcp else _UNLESS_GRPC * self.health_check.is_grpc
            for key in idle:
                if getattr(self, key) != _DEFAULTS[key]:
                    check = str(self.health_check)
                    yield (
                        key,
                        f"does nothing beside health_check = {check}: write GET /healthz, or remove this",
                    )


_KEYS: Final = tuple(field.name for field in fields(HealthOptions))
_DEFAULTS: Final = {key: getattr(HealthOptions(), key) for key in _KEYS}
