"""From names to addresses: files, search lists, two families, services; what is kept when a part fails."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from sidecar.config.addresses import Address
from sidecar.net import resolver as resolver_module
from sidecar.net.lookup import FOR_LONG, Found, Host, Looked, Service
from sidecar.net.name_files import Files, Setup, setup_of
from sidecar.net.resolver import AT_ONCE, Resolver
from sidecar.runtime import SystemClock, Tasks
from tests.support.dns import DnsServer
from tests.support.streams import outcome, start, wait_until

NAME = "app.example"
SERVICE = "_http._tcp.app.example"


class Machine:
    """The sources of a look-up, with files that a test sets."""

    def __init__(self, *servers: DnsServer) -> None:
        self.resolver = Resolver(SystemClock())
        self.died: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.died.append(error))
        self.setup: Setup = setup_of([server.address for server in servers])
        self.hosts: dict[str, tuple[str, ...]] = {}

    def files(self, _host: str) -> Files:
        return Files(self.setup, self.hosts, frozenset(), ())


@pytest.fixture(scope="module", autouse=True)
def threads() -> None:
    """The pool of threads has descriptors of its own, which stay."""
    gevent.get_hub().threadpool.apply(len, ("",))


@pytest.fixture
def server(threads: None, no_leaks: None) -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def machine(server: DnsServer) -> Iterator[Machine]:
    machine = Machine(server)
    yield machine
    assert machine.died == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "LIFETIME", 0.1)
    monkeypatch.setattr(resolver_module, "_SHORTEST_TRY", 0.05)


# -- hosts


def test_both_families_are_asked_at_one_time_and_all_addresses_taken(
    server: DnsServer, machine: Machine
) -> None:
    server.set(NAME, "A", "10.0.0.10", "10.0.0.9", ttl=30)
    server.set(NAME, "AAAA", "2001:db8::1", ttl=20)
    server.hold()
    host = Host(NAME, 80)
    looking = start(host.look, machine)
    wait_until(lambda: server.held == 2)
    server.be_well()
    assert outcome(looking) == Looked("", 20)
    assert host.found() == (
        Found(Address("2001:db8::1", 80), 0, 1, NAME),
        Found(Address("10.0.0.9", 80), 0, 1, NAME),
        Found(Address("10.0.0.10", 80), 0, 1, NAME),
    )


def test_the_order_of_an_answer_does_not_matter(server: DnsServer, machine: Machine) -> None:
    host = Host(NAME)
    server.set(NAME, "A", "10.0.0.1", "10.0.0.2")
    host.look(machine)
    before = host.found()
    server.set(NAME, "A", "10.0.0.2", "10.0.0.1")
    host.look(machine)
    assert host.found() == before


@pytest.mark.parametrize("code", ["SERVFAIL", "NXDOMAIN", "REFUSED"])
def test_a_failure_takes_no_address_away(server: DnsServer, machine: Machine, code: str) -> None:
    server.set(NAME, "A", "10.0.0.1")
    host = Host(NAME)
    assert not host.look(machine).problem
    server.refuse(code)
    assert code in host.look(machine).problem
    assert host.addresses == ("10.0.0.1",)


def test_an_answer_without_addresses_takes_none_away(server: DnsServer, machine: Machine) -> None:
    server.set(NAME, "A", "10.0.0.1")
    host = Host(NAME)
    host.look(machine)
    server.set(NAME, "A")
    assert host.look(machine).problem == "the name has no addresses"
    assert host.addresses == ("10.0.0.1",)


def test_a_family_goes_when_the_other_has_addresses(server: DnsServer, machine: Machine) -> None:
    server.set(NAME, "A", "10.0.0.1")
    server.set(NAME, "AAAA", "2001:db8::1")
    host = Host(NAME)
    host.look(machine)
    server.set(NAME, "AAAA")
    assert host.look(machine) == Looked("", 60)
    assert host.addresses == ("10.0.0.1",)
    server.refuse("NXDOMAIN", NAME, "A")  # wrong, and known from servers for names with one family
    server.set(NAME, "AAAA", "2001:db8::1")
    assert host.look(machine) == Looked("", 60)
    assert host.addresses == ("2001:db8::1",)


def test_a_family_that_is_never_answered_does_no_harm(server: DnsServer, machine: Machine) -> None:
    server.set(NAME, "A", "10.0.0.1")
    server.refuse("SERVFAIL", kind="AAAA")
    host = Host(NAME)
    assert host.look(machine) == Looked("", 60)
    assert host.addresses == ("10.0.0.1",)


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_family_that_is_not_answered_any_more_is_kept_and_told(
    impatient: None, server: DnsServer, machine: Machine, kind: str
) -> None:
    server.set(NAME, "A", "10.0.0.1")
    server.set(NAME, "AAAA", "2001:db8::1")
    host = Host(NAME)
    host.look(machine)
    server.set(NAME, "A", "10.0.0.2")
    server.set(NAME, "AAAA", "2001:db8::2")
    server.be_silent(NAME, kind)
    assert "no answer" in host.look(machine).problem
    assert (
        host.addresses
        == {
            "A": ("2001:db8::2", "10.0.0.1"),
            "AAAA": ("2001:db8::1", "10.0.0.2"),
        }[kind]
    )


def test_more_addresses_than_anybody_has_are_cut(server: DnsServer, machine: Machine) -> None:
    server.set(NAME, "A", *[f"10.1.{at // 250}.{at % 250}" for at in range(1000)])
    host = Host(NAME)
    host.look(machine)
    assert len(host.addresses) == 256


# -- the files of the machine


def test_the_hosts_file_goes_first(server: DnsServer, machine: Machine) -> None:
    machine.hosts = {NAME: ("10.9.9.9", "2001:db8::9")}
    host = Host("App.Example.", 80)
    assert host.look(machine) == Looked("", FOR_LONG)
    assert host.addresses == ("2001:db8::9", "10.9.9.9")
    assert not server.asked


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "app.localhost"])
def test_localhost_is_this_machine_whoever_says_otherwise(
    server: DnsServer, machine: Machine, name: str
) -> None:
    machine.hosts = {name.rstrip(".").lower(): ("10.6.6.6",)}
    server.set("localhost", "A", "10.6.6.6")
    host = Host(name)
    assert host.look(machine) == Looked("", FOR_LONG)
    assert set(host.addresses) <= {"127.0.0.1", "::1"}
    assert "127.0.0.1" in host.addresses
    assert not server.asked
    machine.hosts = {name.rstrip(".").lower(): ("127.0.0.2", "10.6.6.6")}
    host.look(machine)
    assert host.addresses == ("127.0.0.2",)


def test_localhost_has_the_families_of_the_machine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr("sidecar.net.lookup.socket.socket", without)
    host = Host("localhost")
    host.look(machine)
    assert host.addresses == ("127.0.0.1",)


def test_a_short_name_is_searched(server: DnsServer, machine: Machine) -> None:
    machine.setup = machine.setup._replace(search=("one.example", "two.example"), ndots=5)
    server.set("app.one.example", "TXT", "there, without addresses")
    server.set("app.two.example", "A", "10.0.0.2")
    server.set("app", "A", "10.0.0.3")
    host = Host("app", 80)
    assert not host.look(machine).problem
    assert host.found() == (Found(Address("10.0.0.2", 80), 0, 1, "app"),)
    server.remove("app.two.example")
    host.look(machine)
    assert host.addresses == ("10.0.0.3",)


def test_silence_does_not_lead_to_another_name(server: DnsServer, machine: Machine) -> None:
    machine.setup = machine.setup._replace(search=("one.example", "two.example"), ndots=5)
    server.refuse("SERVFAIL", "app.one.example")
    server.set("app.two.example", "A", "10.0.0.2")
    host = Host("app")
    assert "SERVFAIL" in host.look(machine).problem
    assert host.addresses == ()


def test_a_name_that_is_nowhere_says_so(server: DnsServer, machine: Machine) -> None:
    machine.setup = machine.setup._replace(search=("one.example", "two.example"), ndots=5)
    assert Host("app").look(machine).problem == "no such name (NXDOMAIN)"
    server.set("app.one.example", "TXT", "there, without addresses")
    assert Host("app").look(machine).problem == "the name has no addresses"


def test_a_search_that_makes_a_name_too_long_is_passed_over(server: DnsServer, machine: Machine) -> None:
    name = ".".join(["a" * 60] * 4)
    machine.setup = machine.setup._replace(search=("long.example" * 3,), ndots=9)
    server.set(name, "A", "10.0.0.1")
    host = Host(name)
    assert not host.look(machine).problem
    assert host.addresses == ("10.0.0.1",)


# -- services


def service(server: DnsServer, *rows: str, ttl: int = 60) -> None:
    server.set(SERVICE, "SRV", *rows, ttl=ttl)


def test_a_service_is_the_addresses_of_its_targets(server: DnsServer, machine: Machine) -> None:
    service(server, "20 1 8082 b.example.", "10 5 8081 a.example.", "10 0 8083 c.example.", ttl=50)
    server.set("a.example", "A", "10.0.0.1", "10.0.0.2", ttl=40)
    server.set("b.example", "AAAA", "2001:db8::b", ttl=30)
    server.set("c.example", "A", "10.0.0.3")
    watched = Service(SERVICE)
    assert watched.look(machine) == Looked("", 30)
    assert watched.found() == (
        Found(Address("10.0.0.1", 8081), 10, 5, "a.example"),
        Found(Address("10.0.0.2", 8081), 10, 5, "a.example"),
        Found(Address("10.0.0.3", 8083), 10, 0, "c.example"),
        Found(Address("2001:db8::b", 8082), 20, 1, "b.example"),
    )
    assert set(watched.hosts()) == {"a.example", "b.example", "c.example"}


def test_the_targets_are_asked_for_at_one_time(server: DnsServer, machine: Machine) -> None:
    service(server, *[f"1 1 80 h{at}.example." for at in range(8)])
    for at in range(8):
        server.set(f"h{at}.example", "A", f"10.0.0.{at}")
    server.hold("A")
    looking = start(Service(SERVICE).look, machine)
    wait_until(lambda: server.held == 8)
    server.be_well()
    assert outcome(looking) == Looked("", 60)


def test_a_target_that_is_not_known_is_told_and_the_others_are_used(
    server: DnsServer, machine: Machine
) -> None:
    service(server, "10 5 80 a.example.", "10 5 80 b.example.")
    server.set("a.example", "A", "10.0.0.1")
    watched = Service(SERVICE)
    assert watched.look(machine).problem == "no such name (NXDOMAIN)"
    assert [one.name for one in watched.found()] == ["a.example"]


def test_without_an_answer_for_the_service_its_targets_are_kept_and_looked_for(
    server: DnsServer, machine: Machine
) -> None:
    service(server, "10 5 80 a.example.")
    server.set("a.example", "A", "10.0.0.1")
    watched = Service(SERVICE)
    watched.look(machine)
    server.refuse("SERVFAIL", SERVICE)
    server.set("a.example", "A", "10.0.0.2")
    assert "SERVFAIL" in watched.look(machine).problem
    assert [str(one.address) for one in watched.found()] == ["10.0.0.2:80"]
    server.behave(None, SERVICE)
    service(server)
    assert watched.look(machine).problem == "the service has no targets"
    service(server, "0 0 0 .")
    assert watched.look(machine).problem == "the service has no targets"
    assert watched.found()


def test_a_target_that_fails_later_keeps_its_addresses(server: DnsServer, machine: Machine) -> None:
    service(server, "10 5 80 a.example.")
    server.set("a.example", "A", "10.0.0.1")
    watched = Service(SERVICE)
    watched.look(machine)
    server.refuse("SERVFAIL", "a.example")
    service(server, "10 6 81 a.example.")
    assert "SERVFAIL" in watched.look(machine).problem
    assert watched.found() == (Found(Address("10.0.0.1", 81), 10, 6, "a.example"),)


def test_an_address_of_several_targets_counts_once_for_the_first(server: DnsServer, machine: Machine) -> None:
    service(server, "20 5 80 a.example.", "10 7 80 b.example.", "10 7 81 b.example.")
    server.set("a.example", "A", "10.0.0.1")
    server.set("b.example", "A", "10.0.0.1")
    watched = Service(SERVICE)
    watched.look(machine)
    assert watched.found() == (
        Found(Address("10.0.0.1", 80), 10, 7, "b.example"),
        Found(Address("10.0.0.1", 81), 10, 7, "b.example"),
    )


def test_a_target_may_be_in_the_hosts_file(server: DnsServer, machine: Machine) -> None:
    service(server, "10 5 80 a.example.")
    machine.hosts = {"a.example": ("10.9.9.9",)}
    watched = Service(SERVICE)
    assert watched.look(machine) == Looked("", 60)
    assert [str(one.address) for one in watched.found()] == ["10.9.9.9:80"]


def test_a_target_is_absolute_and_a_service_is_searched(server: DnsServer, machine: Machine) -> None:
    machine.setup = machine.setup._replace(search=("one.example",), ndots=5)
    server.set("_http._tcp.app.one.example", "SRV", "10 5 80 a.example.")
    server.set("a.example", "A", "10.0.0.1")
    server.set("a.example.one.example", "A", "10.6.6.6")
    watched = Service("_http._tcp.app")
    assert watched.look(machine) == Looked("", 60)
    assert [str(one.address) for one in watched.found()] == ["10.0.0.1:80"]


def test_more_targets_than_anybody_has_are_cut(server: DnsServer, machine: Machine) -> None:
    service(server, *[f"1 1 {1 + at} a.example." for at in range(1000)])
    server.set("a.example", "A", *[f"10.0.0.{at}" for at in range(8)])
    watched = Service(SERVICE)
    watched.look(machine)
    assert len(watched.found()) == 1024
    assert server.count("a.example", "A") == 1


def test_a_look_that_is_stopped_leaves_nothing_behind(server: DnsServer, machine: Machine) -> None:
    service(server, *[f"1 1 80 h{at}.example." for at in range(50)])
    server.hold("A", "AAAA")
    looking = start(Service(SERVICE).look, machine)
    wait_until(lambda: server.held == AT_ONCE)
    looking.kill()
    server.be_well()
    assert len(machine.tasks._group) == 0
