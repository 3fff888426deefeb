"""Servers by name, asked of a real name server: they move, multiply and vanish, and the name server fails."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.dns import DnsServer
from tests.support.fleet import Server
from tests.support.live import Live, Sidecar, free_port, until
from tests.support.peers import Stream, ask, request

#: Seconds within which a new answer counts: its TTL is 1, and the sidecar asks no more often than that.
SOON: Final = 4.0

CONFIG: Final = """
[sidecar]
resolver = {dns}
[upstream app]
server.a = {server}
{options}
[route app]
upstream = app
[route other]
path = /other
respond = 200 here
"""


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[int, Server]]:
    """One server at the same port of each of 127.0.0.2, 3 and 4."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        found = {}
        for number in (2, 3, 4):
            found[number] = Server(f"s{number}", tmp_path, address=f"127.0.0.{number}", port=port)
            stack.callback(found[number].kill)
        yield found


def _start(live: Live, dns: DnsServer, server: str, options: str = "") -> Sidecar:
    return live.start(CONFIG.format(dns=dns.address, server=server, options=options))


def _who(live: Live, target: str = "/x") -> str:
    """Which server answers; else the status."""
    answer = ask(live.port, target)
    return answer.body.split()[0].decode() if answer.status == 200 else str(answer.status)


def _shares(live: Live, requests: int) -> Counter[str]:
    return Counter(_who(live) for _ in range(requests))


def test_move(live: Live, dns: DnsServer, hosts: dict[int, Server]) -> None:
    """The new address is used within the TTL; the old one is asked nothing more, and finishes what it has."""
    dns.set("app.test", "A", "127.0.0.2", ttl=1)
    sidecar = _start(live, dns, f"app.test:{hosts[2].port}")
    with Stream.connect(live.port) as client:
        client.send(request("GET", "/wait/long"))
        until(lambda: hosts[2].executed() == ["long"], "the long request")
        dns.set("app.test", "A", "127.0.0.3", ttl=1)
        until(lambda: _who(live) == "s3", "the new address", SOON)
        before = hosts[2].executed()
        assert _shares(live, 20) == {"s3": 20}
        assert hosts[2].executed() == before
        hosts[2].tell("/release")
        assert client.read_message().body == b"s2 wait/long\n"
        # The same client, whose next request goes where the name leads now.
        assert client.ask("GET", "/next").body == b"s3 next\n"
    (first, second) = sidecar.wait_event("dns_changed", 2)
    assert first["added"] == [hosts[2].address]
    assert (second["added"], second["removed"]) == ([hosts[3].address], [hosts[2].address])


def test_all_addresses(live: Live, dns: DnsServer, hosts: dict[int, Server]) -> None:
    """All addresses share the requests; when one comes or goes the others keep their connections."""
    dns.set("app.test", "A", "127.0.0.2", "127.0.0.3", ttl=1)
    sidecar = _start(live, dns, f"app.test:{hosts[2].port}")
    assert _shares(live, 20) == {"s2": 10, "s3": 10}
    dns.set("app.test", "A", "127.0.0.2", "127.0.0.3", "127.0.0.4", ttl=1)
    until(lambda: _who(live) == "s4", "the third address", SOON)
    assert _shares(live, 30) == {"s2": 10, "s3": 10, "s4": 10}
    dns.set("app.test", "A", "127.0.0.3", "127.0.0.4", ttl=1)
    sidecar.wait_event("dns_changed", 3)
    until(lambda: "s2" not in _shares(live, 6), "the first address is gone", SOON)
    assert _shares(live, 30) == {"s3": 15, "s4": 15}
    count = sum(len(server.executed()) for server in hosts.values())
    lines = sidecar.wait_exchanges(count)
    # Each server was dialed once.
    assert Counter(line["upstream"] for line in lines if not line["attempts"][0]["reused"]) == {
        server.address: 1 for server in hosts.values()
    }


def test_service(live: Live, dns: DnsServer, hosts: dict[int, Server]) -> None:
    """SRV: ports and weights as they are told; a higher priority number is for when the others fail."""
    for number, server in hosts.items():
        dns.set(f"s{number}.test", "A", server.host)
    port = hosts[2].port
    dns.set(
        "_http._tcp.app.test",
        "SRV",
        f"1 30 {port} s2.test.",
        f"1 10 {port} s3.test.",
        f"2 10 {port} s4.test.",
        ttl=1,
    )
    _start(live, dns, "srv:_http._tcp.app.test fail_timeout=200ms")
    assert _shares(live, 40) == {"s2": 30, "s3": 10}
    hosts[2].kill()
    assert _shares(live, 10) == {"s3": 10}
    hosts[3].kill()
    assert _shares(live, 10) == {"s4": 10}
    hosts[3].start()
    until(lambda: _who(live) == "s3", "a primary is back")
    dns.set("_http._tcp.app.test", "SRV", f"1 10 {port} s4.test.", ttl=1)
    until(lambda: _shares(live, 4) == {"s4": 4}, "another answer", SOON)


def test_silent_name_server(live: Live, dns: DnsServer, hosts: dict[int, Server]) -> None:
    """What was answered last holds as long as there is no better answer, and longer than its TTL."""
    dns.set("app.test", "A", "127.0.0.2", ttl=1)
    sidecar = _start(live, dns, f"app.test:{hosts[2].port}")
    dns.refuse("SERVFAIL")
    (failed,) = sidecar.wait_event("dns_failed", timeout=SOON)
    assert (failed["name"], failed["kept"]) == (f"app.test:{hosts[2].port}", 1)
    assert _shares(live, 10) == {"s2": 10}
    dns.be_well()
    dns.be_silent()
    asked = dns.count()
    until(lambda: dns.count() > asked, "a question without answer", SOON)
    assert _shares(live, 10) == {"s2": 10}
    dns.be_well()
    dns.set("app.test", "A", "127.0.0.3", ttl=1)
    until(lambda: _who(live) == "s3", "the new address", 2 * SOON)
    assert len(sidecar.wait_event("dns_recovered")) == 1
    assert len(sidecar.events("dns_failed")) == 1


def test_unknown_at_the_start(live: Live, dns: DnsServer, hosts: dict[int, Server]) -> None:
    """A name that does not exist yet keeps nothing else from being served, and is used once it does."""
    sidecar = _start(live, dns, f"app.test:{hosts[2].port}")
    assert ask(live.port, "/other").body == b"here"
    answer = ask(live.port, "/x")
    assert answer.status == 502
    assert "error=dns_error" in answer.fields["proxy-status"]
    dns.set("app.test", "A", "127.0.0.2", ttl=60)
    until(lambda: _who(live) == "s2", "the name is known", SOON)
    lines = [line for line in sidecar.wait_exchanges(3) if line["path"] == "/x"]
    assert (lines[0]["status"], lines[0]["reason"], lines[0]["attempts"]) == (502, "dns_error", [])


def test_both_families(live: Live, dns: DnsServer, hosts: dict[int, Server]) -> None:
    """A server with an address in each family is one server: it has one share, and either address will do."""
    dns.set("app.test", "A", "127.0.0.2")
    dns.set("app.test", "AAAA", "::1")
    sidecar = _start(live, dns, f"app.test:{hosts[2].port}\nserver.b = {hosts[3].address}")
    # Nobody listens at ::1.
    assert _shares(live, 20) == {"s2": 10, "s3": 10}
    assert all(len(line["attempts"]) == 1 for line in sidecar.wait_exchanges(20))
