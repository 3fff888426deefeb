"""From a name to addresses: the hosts file, `localhost`, the search list, both families, services.

Law: what is known stays known until something better is. A server that fails, or that says a name is gone,
takes no address away; only an answer with addresses replaces addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeGuard

import gevent
from gevent import socket

from ..config.addresses import Address
from ..runtime import Tasks
from .name_files import Files, Setup
from .resolver import Answer, Resolver, Unanswered, Unknown

if TYPE_CHECKING:
    from ..wire.dns_message import Record, RecordType

#: Seconds for which an address of the hosts file holds; a change of the file is noticed sooner.
FOR_LONG: Final = 3600

_MOST_ADDRESSES: Final = 256  # of one host and family
_MOST_TARGETS: Final = 256  # of a service
_MOST_FOUND: Final = 1024  # of a service in all
_NOTHING: Final = "the name has no addresses"
_NO_SERVICE: Final = "the service has no targets"

Outcome = Answer | Unknown | Unanswered


class Found(NamedTuple):
    """An address behind a name."""

    address: Address  # numeric
    priority: int  # of its target in a service, the lowest first; 0 for a host
    weight: int  # of its target in a service; 1 for a host
    name: str  # the host whose address it is


class Looked(NamedTuple):
    """How a look-up went."""

    problem: str  # why some or all of it is not known; empty: it is
    ttl: int = 0  # seconds for which it holds; of no meaning with a problem


class Sources(Protocol):
    """Where answers come from."""

    resolver: Resolver
    tasks: Tasks

    def files(self, host: str) -> Files:
        """What the machine says, about this host among others."""


class Subject(Protocol):
    """What is watched."""

    def hosts(self) -> Iterable[str]:
        """The hosts that it is about, as the hosts file would have them."""

    def look(self, sources: Sources) -> Looked:
        """Ask for it; waits."""

    def found(self) -> tuple[Found, ...]:
        """What is known of it, in a stable order."""


class Host:
    """A host with a port."""

    def __init__(self, name: str, port: int = 0) -> None:
        self._name, self._port = name, port
        self._plain = name.rstrip(".").lower()
        self._six: tuple[str, ...] = ()
        self._four: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Numeric, IPv6 first."""
        return self._six + self._four

    def hosts(self) -> Iterable[str]:
        """Itself."""
        return (self._plain,)

    def found(self) -> tuple[Found, ...]:
        """Its addresses."""
        return tuple(Found(Address(one, self._port), 0, 1, self._plain) for one in self.addresses)

    def look(self, sources: Sources) -> Looked:
        """Look into the hosts file, then ask for both families at once."""
        files = sources.files(self._plain)
        fixed = files.hosts.get(self._plain, ())
        if self._plain == "localhost" or self._plain.endswith(".localhost"):
            # RFC 6761 section 6.3: nobody else may answer for this name.
            fixed = tuple(one for one in fixed if ip_address(one).is_loopback) or _loopback()
        if fixed:
            self._six, self._four = (_addresses(fixed, version) for version in (6, 4))
            return Looked("", FOR_LONG)
        problem = ""
        for candidate in files.setup.candidates(self._name):
            six, four = _ask_both(sources, files.setup, candidate)
            if _has_records(six) or _has_records(four):
                return self._take(six, four)
            for outcome in (four, six):
                if isinstance(outcome, Unanswered):
                    # The next candidate is another name: silence must not lead there.
                    return Looked(str(outcome))
            is_there = isinstance(six, Answer) or isinstance(four, Answer)
            problem = _NOTHING if is_there else problem or str(four)
        return Looked(problem)

    def _take(self, six: Outcome, four: Outcome) -> Looked:
        """One family at least has addresses."""
        ttl, problem = FOR_LONG, ""
        for outcome in (six, four):
            if _has_records(outcome):
                ttl = min(ttl, outcome.ttl)
        if isinstance(six, Unanswered):
            # Some servers never answer for IPv6: that matters to those alone who had an answer once.
            problem = str(six) if self._six else ""
        else:
            self._six = _addresses(_values(six), 6)
        if isinstance(four, Unanswered):
            problem = str(four) if self._four else problem
        else:
            self._four = _addresses(_values(four), 4)
        return Looked(problem, ttl)


class Service:
    """A service of DNS (RFC 2782): targets, which are hosts with their own ports."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._targets: tuple[Record, ...] = ()
        self._hosts: dict[str, Host] = {}

    def hosts(self) -> Iterable[str]:
        """The hosts of the targets that are known."""
        return tuple(self._hosts)

    def found(self) -> tuple[Found, ...]:
        """The addresses of all targets; one that several share is the first one's."""
        found: dict[Address, Found] = {}
        for target in self._targets:
            for numeric in self._hosts[target.value].addresses:
                address = Address(numeric, target.port)
                found.setdefault(address, Found(address, target.priority, target.weight, target.value))
        return tuple(found.values())[:_MOST_FOUND]

    def look(self, sources: Sources) -> Looked:
        """Ask for the targets, then for the hosts of all of them; for those known before when that fails."""
        looked = [self._look_targets(sources)]
        looked += _together(sources, list(self._hosts.values()))
        problems = [one.problem for one in looked if one.problem]
        return Looked(problems[0] if problems else "", min(one.ttl for one in looked))

    def _look_targets(self, sources: Sources) -> Looked:
        setup = sources.files("").setup
        problem = ""
        for candidate in setup.candidates(self._name):
            outcome = _ask(sources.resolver, setup, candidate, "SRV")
            if isinstance(outcome, Unanswered):
                return Looked(str(outcome))
            if _has_records(outcome):
                # By priority, then by what does not change from answer to answer.
                ordered = sorted(set(outcome.records), key=lambda one: (one.priority, one.value, one.port))
                self._targets = tuple(ordered[:_MOST_TARGETS])
                self._hosts = {
                    one.value: self._hosts.get(one.value) or Host(f"{one.value}.") for one in self._targets
                }
                return Looked("", outcome.ttl)
            problem = _NO_SERVICE if isinstance(outcome, Answer) else problem or str(outcome)
        return Looked(problem)


def _together(sources: Sources, hosts: list[Host]) -> list[Looked]:
    """Look for all of them at one time; the resolver bounds how many questions that are."""
    looked: list[Looked] = []

    def look(host: Host) -> None:
        looked.append(host.look(sources))

    running = [sources.tasks.spawn("names", look, host) for host in hosts]
    try:
        gevent.joinall(running)
    finally:
        gevent.killall(running)
    return looked


def _ask_both(sources: Sources, setup: Setup, name: str) -> tuple[Outcome, Outcome]:
    """For IPv6 and for IPv4 at one time."""
    six: list[Outcome] = []

    def ask() -> None:
        six.append(_ask(sources.resolver, setup, name, "AAAA"))

    running = sources.tasks.spawn("names", ask)
    try:
        four = _ask(sources.resolver, setup, name, "A")
        running.join()
    finally:
        running.kill()
    return (six[0] if six else Unanswered("stopped")), four


def _ask(resolver: Resolver, setup: Setup, name: str, record_type: RecordType) -> Outcome:
    try:
        return resolver.ask(setup, name, record_type)
    except (Unknown, Unanswered) as error:
        return error


def _has_records(outcome: Outcome) -> TypeGuard[Answer]:
    return isinstance(outcome, Answer) and bool(outcome.records)


def _values(outcome: Outcome) -> Iterator[str]:
    return (record.value for record in outcome.records) if isinstance(outcome, Answer) else iter(())


def _addresses(numeric: Iterable[str], version: int) -> tuple[str, ...]:
    """Those of one family, in a stable order."""
    found = {address for address in map(ip_address, numeric) if address.version == version}
    return tuple(str(address) for address in sorted(found, key=int)[:_MOST_ADDRESSES])


def _loopback() -> tuple[str, ...]:
    """Of the families that this machine has."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return "::1", "127.0.0.1"
    return ("127.0.0.1",)
