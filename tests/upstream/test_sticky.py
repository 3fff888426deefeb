"""Clients that stay: the cookie is signed, survives generations, and is believed only when it is ours."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.message import Response
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.server import Server
from sidecar.upstream.sticky import Sticky
from sidecar.wire.head import ResponseHead
from tests.support.streams import ServerSide
from tests.support.upstreams import OK, fleet, request_of, server

pytestmark = pytest.mark.usefixtures("no_leaks")

COOKIE = re.compile(rb"Set-Cookie: id=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax(; Secure)?\r\n")


def sticky(servers: Sequence[Server], secret: bytes = b"key", upstream: str = "app") -> Sticky:
    return Sticky("id", secret, upstream, servers)


def asking(*cookies: bytes) -> object:
    lines = b"".join(b"Cookie: %b\r\n" % cookie for cookie in cookies)
    return request_of(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines)


def told(it: Sticky, one: Server, request: object = None) -> bytes:
    response = Response(ResponseHead.make(200, []))
    it.mark(request or asking(), response, one)
    return response.extra


def value(it: Sticky, one: Server) -> bytes:
    found = COOKIE.fullmatch(told(it, one))
    assert found is not None
    return found[1]


@pytest.fixture
def servers() -> list[Server]:
    return [server("10.0.0.1:80"), server("10.0.0.2:80")]


def test_a_cookie_leads_back_to_the_server_that_set_it(servers: list[Server]) -> None:
    it = sticky(servers)
    for one in servers:
        assert it.find(asking(b"id=" + value(it, one))) is one


def test_a_new_generation_with_the_same_secret_believes_old_cookies(servers: list[Server]) -> None:
    old = sticky(servers)
    again = [server("10.0.0.9:80"), server(servers[1].name), server(servers[0].name)]
    new = sticky(again)
    assert new.find(asking(b"id=" + value(old, servers[0]))) is again[2]
    assert new.find(asking(b"id=" + value(old, servers[1]))) is again[1]


def test_a_server_that_is_gone_is_nobody(servers: list[Server]) -> None:
    assert sticky(servers[1:]).find(asking(b"id=" + value(sticky(servers), servers[0]))) is None


@pytest.mark.parametrize(("secret", "upstream"), [(b"other", "app"), (b"key", "other")])
def test_what_was_signed_for_something_else_is_ignored(
    servers: list[Server], secret: bytes, upstream: str
) -> None:
    cookie = b"id=" + value(sticky(servers, secret, upstream), servers[0])
    assert sticky(servers).find(asking(cookie)) is None


def test_names_that_could_be_taken_for_others_are_kept_apart() -> None:
    one, other = server("bc:1"), server("c:1")
    assert value(sticky([one], upstream="a"), one) != value(sticky([other], upstream="ab"), other)


@given(st.binary(max_size=80).filter(lambda text: not set(text) & set(b"\r\n\0")))
def test_a_forged_value_is_ignored_and_never_an_error(text: bytes) -> None:
    it = sticky([server("10.0.0.1:80")])
    forged = bytes(byte for byte in text if 32 <= byte < 127)
    assert it.find(asking(b"id=" + forged)) is None


@pytest.mark.parametrize("cut", [slice(0, 31), slice(0, 0), slice(1, 32)])
def test_a_part_of_a_value_is_ignored(servers: list[Server], cut: slice) -> None:
    it = sticky(servers)
    assert it.find(asking(b"id=" + value(it, servers[0])[cut])) is None


def test_a_value_in_other_letters_is_ignored(servers: list[Server]) -> None:
    it = sticky(servers)
    assert it.find(asking(b"id=" + value(it, servers[0]).upper())) is None
    assert it.find(asking(b"ID=" + value(it, servers[0]))) is None


def test_it_is_found_among_other_cookies_and_lines(servers: list[Server]) -> None:
    it = sticky(servers)
    ours = b"id=" + value(it, servers[1])
    assert it.find(asking(b"a=b", b"xid=1; id2=2;%b ;c" % ours)) is servers[1]
    assert it.find(asking(b"id=forged; %b" % ours)) is servers[1]
    assert it.find(asking(b"a=b; c", b"")) is None


def test_a_flood_of_cookies_is_not_searched_to_its_end(servers: list[Server]) -> None:
    it = sticky(servers)
    ours = b"id=" + value(it, servers[0])
    assert it.find(asking(b"a=b;" * 99 + ours)) is servers[0]
    assert it.find(asking(b"a=b;" * 100 + ours)) is None


def test_a_client_that_knows_its_server_is_not_told_again(servers: list[Server]) -> None:
    it = sticky(servers)
    knows = asking(b"id=" + value(it, servers[0]))
    assert told(it, servers[0], knows) == b""
    assert COOKIE.fullmatch(told(it, servers[1], knows)) is not None


def test_over_https_the_cookie_stays_on_https(servers: list[Server]) -> None:
    request = request_of(scheme="https")
    found = COOKIE.fullmatch(told(sticky(servers), servers[0], request))
    assert found is not None
    assert found[2] == b"; Secure"
    plain = COOKIE.fullmatch(told(sticky(servers), servers[0]))
    assert plain is not None
    assert plain[2] is None


def test_a_server_that_was_replaced_meanwhile_is_not_told(servers: list[Server]) -> None:
    assert told(sticky(servers[:1]), servers[1]) == b""


# -- on the way


def test_the_answer_of_the_server_sets_the_cookie_and_the_next_request_stays() -> None:
    with fleet([[OK] * 9], [[OK] * 9], [[OK] * 9]) as it:
        it.group.sticky = sticky(it.servers)
        assert it.ask().extra == b"Set-Cookie: id=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % value(
            it.group.sticky, it.servers[0]
        )
        cookie = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: id=%b\r\n\r\n" % value(it.group.sticky, it.servers[2])
        for _ in range(3):
            assert it.ask(cookie).extra == b""
            assert it.asked == ["app-3"]


def test_a_client_whose_server_fails_gets_another_one_and_its_cookie() -> None:
    with fleet([], [[OK] * 3]) as it:
        it.group.sticky = sticky(it.servers)
        cookie = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: id=%b\r\n\r\n" % value(it.group.sticky, it.servers[0])
        response = it.ask(cookie)
        assert it.asked == ["app-1", "app-2"]
        found = COOKIE.fullmatch(response.extra)
        assert found is not None
        assert found[1] == value(it.group.sticky, it.servers[1])
        # The first is banned now: it is not even tried.
        it.ask(cookie)
        assert it.asked == ["app-2"]


def test_servers_that_are_replaced_during_an_exchange_do_not_break_it() -> None:
    others = [server("b"), server("c")]

    def slow(side: ServerSide) -> None:
        side.read_request()
        it.group.replace(others, RoundRobin, sticky(others))
        side.send(OK)

    with fleet([slow]) as it:
        it.group.sticky = sticky(it.servers)
        assert it.ask().extra == b""
