"""What the machine says about names: /etc/hosts and /etc/resolv.conf.

Law: reading blocks, so it belongs into a thread; what was read is one value that nobody changes.
"""

from __future__ import annotations

import _socket
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .dial import Target

HOSTS: Final = "/etc/hosts"
RESOLV_CONF: Final = "/etc/resolv.conf"

_PORT: Final = 53
_LOCAL: Final = "127.0.0.1"  # asked when nobody is named, as resolv.conf(5) has it
_MOST_SERVERS: Final = 3  # resolv.conf(5): MAXNS
_MOST_SEARCHED: Final = 16
_MOST_HOSTS: Final = 256  # addresses of a name
_LARGEST: Final = 32 << 20  # bytes of a file that are read; lists of blocked names are long
_LONGEST_LINE: Final = 65536
_MOST_DOTS: Final = 15  # RES_MAXNDOTS
_LONGEST_TIMEOUT: Final = 30
_MOST_ATTEMPTS: Final = 5


class Setup(NamedTuple):
    """Whom to ask, and how."""

    servers: tuple[Target, ...]
    search: tuple[str, ...] = ()  # domains that are tried behind a name
    ndots: int = 1  # a name with so many dots is tried as it is first
    timeout: float = 5.0  # seconds for one try
    attempts: int = 2  # rounds over the servers
    rotate: bool = False  # each question begins at another server
    use_tcp: bool = False

    def candidates(self, name: str) -> list[str]:
        """The absolute names that a name may mean, the likeliest first."""
        if name.endswith("."):
            return [name]
        searched = [f"{name}.{domain}" for domain in self.search]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


class Files(NamedTuple):
    """What the files said at one moment."""

    setup: Setup
    hosts: dict[str, tuple[str, ...]]  # of the names in `wanted` alone
    wanted: frozenset[str]
    marks: tuple[object, ...]  # by which a change of the files is seen


def setup_of(servers: Sequence[str]) -> Setup:
    """Name servers that were named: `address`, `address:port` or `[v6]:port`. Names are tried as they are.

    Raises ValueError.
    """
    return Setup(tuple(_server(one) for one in servers))


def read_files(named: Setup | None, wanted: Iterable[str], before: Files | None = None) -> Files:
    """Read both files (blocks); `before` itself when nothing has changed. With `named`, only the hosts."""
    wanted = frozenset(wanted)
    marks = (_mark(HOSTS), None if named else _mark(RESOLV_CONF))
    if before and before.marks == marks and wanted <= before.wanted:
        return before
    setup = named or parse_resolv_conf(_lines(RESOLV_CONF))
    return Files(setup, parse_hosts(_lines(HOSTS), wanted), wanted, marks)


def parse_hosts(lines: Iterable[str], wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """The addresses of those names in a hosts(5) file."""
    found: dict[str, dict[str, None]] = {}
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        named = wanted.intersection(name.rstrip(".").lower() for name in names)
        if not named or "%" in address:
            continue
        with suppress(ValueError):
            numeric = str(ip_address(address))
            for name in named:
                found.setdefault(name, {})[numeric] = None
    return {name: tuple(addresses)[:_MOST_HOSTS] for name, addresses in found.items()}


def parse_resolv_conf(lines: Iterable[str]) -> Setup:
    """A resolv.conf(5) file; what it says in a wrong way counts as not said, as everywhere."""
    servers: list[Target] = []
    search: list[str] = []
    options: dict[str, str] = {}
    for line in lines:
        word, *rest = (line.split() if line[:1] not in "#;" else []) or [""]
        if word == "nameserver" and rest:
            with suppress(ValueError):
                servers.append(_numeric(rest[0], _PORT))
        elif word in ("search", "domain"):
            # The last one counts.
            search = [one.rstrip(".").lower() for one in rest if one != "."]
        elif word == "options":
            options.update((name, value) for name, _, value in (one.partition(":") for one in rest))
    return Setup(
        servers=tuple(servers[:_MOST_SERVERS]) or (_numeric(_LOCAL, _PORT),),
        search=tuple(search[:_MOST_SEARCHED]),
        ndots=_number(options.get("ndots", ""), 1, 0, _MOST_DOTS),
        timeout=_number(options.get("timeout", ""), 5, 1, _LONGEST_TIMEOUT),
        attempts=_number(options.get("attempts", ""), 2, 1, _MOST_ATTEMPTS),
        rotate="rotate" in options,
        use_tcp="use-vc" in options,
    )


def _number(text: str, default: int, lowest: int, highest: int) -> int:
    if not text.isascii() or not text.isdigit():
        return default
    return max(lowest, min(int(text[:9]), highest))


def _server(text: str) -> Target:
    """`address`, `address:port` or `[v6]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, str(_PORT)
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:9]) < 65536:
        raise ValueError(f"{text!r} is not a name server: write an address, or address:port")
    return _numeric(host.removeprefix("[").removesuffix("]"), int(port))


def _numeric(host: str, port: int) -> Target:
    """The target of an IP address, with its zone if it has one. Raises ValueError."""
    ip_address(host)
    try:
        # Numeric alone: this never asks anybody. It knows the number of a zone.
        found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_DGRAM, 0, _socket.AI_NUMERICHOST)
    except OSError as error:
        raise ValueError(f"{host!r} is not an address of a name server") from error
    return found[0][0], found[0][4]


def _mark(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _lines(path: str) -> Iterator[str]:
    """The lines of a file; none, when it cannot be read or is no file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return
        with open(path, "rb") as file:
            # Line by line: one call over a file of megabytes would keep the interpreter from everybody else.
            while (line := file.readline(_LONGEST_LINE)) and file.tell() <= _LARGEST:
                yield line.decode(errors="replace")
    except OSError:
        return
