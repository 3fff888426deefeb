"""One question to name servers that answer, are silent, are wrong, or are not there."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import gevent
import pytest

from sidecar.net import resolver as module
from sidecar.net.name_files import setup_of
from sidecar.net.resolver import AT_ONCE, Answer, Resolver, Unanswered, Unknown
from sidecar.runtime import SystemClock
from tests.support.dns import DnsServer
from tests.support.live import free_port
from tests.support.streams import now, outcome, start, wait_until

NAME = "app.example"


@pytest.fixture(scope="module", autouse=True)
def threads() -> None:
    """The pool of threads has descriptors of its own, which stay."""
    gevent.get_hub().threadpool.apply(len, ("",))


@pytest.fixture
def server(threads: None, no_leaks: None) -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.set(NAME, "A", "10.0.0.1")
        yield server


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(SystemClock())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question lasts a fifth of a second, a try half of it."""
    monkeypatch.setattr(module, "LIFETIME", 0.2)
    monkeypatch.setattr(module, "_SHORTEST_TRY", 0.05)


def values(answer: Answer) -> list[str]:
    return [record.value for record in answer.records]


def unanswered(resolver: Resolver, *servers: str, **options: Any) -> str:
    with pytest.raises(Unanswered) as caught:
        resolver.ask(setup_of(servers)._replace(**options), NAME, "A")
    return str(caught.value)


def test_a_name_is_asked_for_once(server: DnsServer, resolver: Resolver) -> None:
    answer = resolver.ask(setup_of([server.address]), NAME, "A")
    assert (values(answer), answer.ttl) == (["10.0.0.1"], 60)
    assert server.count() == server.count(NAME, "A", "udp") == 1


def test_a_name_without_records_of_a_kind_is_an_empty_answer(server: DnsServer, resolver: Resolver) -> None:
    assert values(resolver.ask(setup_of([server.address]), NAME, "AAAA")) == []


def test_a_name_that_does_not_exist_is_unknown_and_no_other_server_is_asked(
    server: DnsServer, resolver: Resolver
) -> None:
    with DnsServer() as other, pytest.raises(Unknown, match="NXDOMAIN"):
        resolver.ask(setup_of([server.address, other.address]), "none.example", "A")
    assert not other.asked


@pytest.mark.parametrize("name", ["a..b", "x" * 64])
def test_a_name_that_cannot_be_is_unknown_and_nobody_is_asked(
    server: DnsServer, resolver: Resolver, name: str
) -> None:
    with pytest.raises(Unknown):
        resolver.ask(setup_of([server.address]), name, "A")
    assert not server.asked


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTIMP"])
def test_a_server_that_will_not_answer_leaves_it_to_the_next(
    server: DnsServer, resolver: Resolver, code: str
) -> None:
    with DnsServer() as first:
        first.refuse(code)
        assert values(resolver.ask(setup_of([first.address, server.address]), NAME, "A")) == ["10.0.0.1"]
        assert first.count() == (2 if code == "NOTIMP" else 1)


def test_when_all_refuse_each_reason_is_told_and_nobody_is_asked_twice(
    server: DnsServer, resolver: Resolver
) -> None:
    server.refuse("SERVFAIL")
    with DnsServer() as other:
        other.refuse("REFUSED")
        why = unanswered(resolver, server.address, other.address)
    assert why == f"{server.address}: SERVFAIL; {other.address}: REFUSED"
    assert server.count() == 1


def test_silence_leaves_it_to_the_next_server(impatient: None, server: DnsServer, resolver: Resolver) -> None:
    with DnsServer() as first:
        first.be_silent()
        assert values(resolver.ask(setup_of([first.address, server.address]), NAME, "A")) == ["10.0.0.1"]


def test_a_lost_datagram_is_sent_again(impatient: None, server: DnsServer, resolver: Resolver) -> None:
    """The second time without the extension, which some networks swallow."""

    def swallow(query: dns.message.Message, over: str) -> list[bytes]:
        return [] if query.edns >= 0 else [server.wire(query, over)]

    server.behave(swallow)
    assert values(resolver.ask(setup_of([server.address]), NAME, "A")) == ["10.0.0.1"]
    assert [one.extended for one in server.asked] == [True, False]


def test_silence_ends_in_time_and_stops_nobody_else(
    impatient: None, server: DnsServer, resolver: Resolver
) -> None:
    server.be_silent()
    rounds: list[None] = []

    def count() -> None:
        while True:
            rounds.append(None)
            gevent.sleep(0.001)

    counting = start(count)
    begin = now()
    assert unanswered(resolver, server.address) == f"{server.address}: no answer"
    assert 0.15 < now() - begin < 1.0
    counting.kill()
    assert len(rounds) > 20


def test_a_port_where_nobody_listens_is_known_at_once(resolver: Resolver) -> None:
    begin = now()
    assert "Connection refused" in unanswered(resolver, f"127.0.0.1:{free_port()}")
    assert now() - begin < 1.0


def test_a_server_that_knows_no_extension_is_asked_plainly(server: DnsServer, resolver: Resolver) -> None:
    def old(query: dns.message.Message, over: str) -> list[bytes]:
        response = server.response(query)
        if query.edns >= 0:
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.FORMERR)
        return [response.to_wire()]

    server.behave(old)
    assert values(resolver.ask(setup_of([server.address]), NAME, "A")) == ["10.0.0.1"]
    assert [one.extended for one in server.asked] == [True, False]


def test_what_answers_another_question_is_passed_over(server: DnsServer, resolver: Resolver) -> None:
    def wrong_first(query: dns.message.Message, over: str) -> list[bytes]:
        good = server.wire(query, over)
        lie = good.replace(b"\x0a\0\0\1", b"\x0a\6\6\6")
        other = lie.replace(b"\3app", b"\3bpp")
        return [bytes([lie[0] ^ 1]) + lie[1:], other, b"", b"\0" * 40, good]

    server.behave(wrong_first)
    assert values(resolver.ask(setup_of([server.address]), NAME, "A")) == ["10.0.0.1"]


def test_a_flood_of_what_cannot_be_read_ends(server: DnsServer, resolver: Resolver) -> None:
    server.behave(lambda query, _: [query.to_wire()[:2] + os.urandom(60)] * 50)
    assert unanswered(resolver, server.address) == f"{server.address}: answers that cannot be read"


def test_what_does_not_fit_comes_over_tcp(server: DnsServer, resolver: Resolver) -> None:
    server.set(NAME, "A", *[f"10.1.{at // 250}.{at % 250}" for at in range(1000)])
    answer = resolver.ask(setup_of([server.address]), NAME, "A")
    assert len(answer.records) == 1000
    assert [one.over for one in server.asked] == ["udp", "tcp"]


def test_a_server_may_be_asked_over_tcp_alone(server: DnsServer, resolver: Resolver) -> None:
    setup = setup_of([server.address])._replace(use_tcp=True)
    assert values(resolver.ask(setup, NAME, "A")) == ["10.0.0.1"]
    assert server.count(over="udp") == 0


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"", "the connection was closed"),
        (b"\0", "the connection was closed"),
        (struct.pack("!H", 100) + b"\0" * 50, "the connection was closed"),
        (struct.pack("!H", 0), "an answer that cannot be read"),
        (struct.pack("!H", 40) + b"\0" * 40, "an answer that cannot be read"),
    ],
)
def test_nonsense_over_tcp_is_no_answer(resolver: Resolver, no_leaks: None, reply: bytes, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                gevent.socket.wait_read(listener.fileno())
                with listener.accept()[0] as sock:
                    gevent.socket.wait_read(sock.fileno())
                    sock.recv(4096)
                    sock.sendall(reply)

        serving = start(serve)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert unanswered(resolver, address, use_tcp=True) == f"{address}: over TCP: {why}"
        serving.kill()


def test_silence_over_tcp_ends_in_time(impatient: None, resolver: Resolver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        begin = now()
        assert "over TCP: timeout" in unanswered(resolver, address, use_tcp=True)
        assert now() - begin < 1.0


def alias_of(target: str) -> Callable[[dns.message.Message, str], list[bytes]]:
    """An answer with an alias and nothing else; {name} is the name that is asked for."""

    def answer(query: dns.message.Message, _over: str) -> list[bytes]:
        name = query.question[0].name
        row = f"{name} 5 IN CNAME {target.format(name=name)}"
        text = f"id {query.id}\nflags QR RD RA\n;QUESTION\n{name} IN A\n;ANSWER\n{row}"
        return [dns.message.from_text(text).to_wire()]

    return answer


def test_aliases_are_followed_to_other_questions(server: DnsServer, resolver: Resolver) -> None:
    server.behave(alias_of(NAME + "."), "www.example")
    answer = resolver.ask(setup_of([server.address]), "www.example", "A")
    assert (values(answer), answer.ttl) == (["10.0.0.1"], 5)
    assert [one.name for one in server.asked] == ["www.example", NAME]


def test_aliases_without_end_are_no_answer(server: DnsServer, resolver: Resolver) -> None:
    server.behave(alias_of("x{name}"))
    assert "too many aliases" in unanswered(resolver, server.address)
    assert server.count() == 8


def test_servers_take_turns_when_they_shall(server: DnsServer, resolver: Resolver) -> None:
    with DnsServer() as other:
        other.set(NAME, "A", "10.0.0.1")
        setup = setup_of([server.address, other.address])._replace(rotate=True)
        for _ in range(4):
            resolver.ask(setup, NAME, "A")
        assert server.count() == other.count() == 2


def test_so_many_are_asked_at_one_time_and_the_others_wait(server: DnsServer, resolver: Resolver) -> None:
    server.hold()
    setup = setup_of([server.address])
    asking = [start(resolver.ask, setup, NAME, "A") for _ in range(3 * AT_ONCE)]
    wait_until(lambda: server.held == AT_ONCE)
    gevent.sleep(0.01)
    assert server.held == AT_ONCE
    server.be_well()
    assert {tuple(values(outcome(one))) for one in asking} == {("10.0.0.1",)}


def test_who_is_stopped_leaves_nothing_behind(server: DnsServer, resolver: Resolver) -> None:
    server.hold()
    asking = [start(resolver.ask, setup_of([server.address]), NAME, "A") for _ in range(2 * AT_ONCE)]
    wait_until(lambda: server.held == AT_ONCE)
    gevent.killall(asking)
    server.be_well()
    assert values(resolver.ask(setup_of([server.address]), NAME, "A")) == ["10.0.0.1"]


def test_no_descriptor_to_be_had_is_no_answer(monkeypatch: pytest.MonkeyPatch, resolver: Resolver) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("sidecar.net.resolver.socket.socket", exhausted)
    assert unanswered(resolver, "127.0.0.1") == "127.0.0.1: Too many open files"


def test_a_server_with_another_port_or_family_is_told_by_it(resolver: Resolver) -> None:
    port = free_port()
    assert unanswered(resolver, f"[::1]:{port}").startswith(f"[::1]:{port}: ")
