"""How connections to a server begin: what it hears first, TLS for its name, and one bound for all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.errors import Failure
from sidecar.net.channel import Channel
from sidecar.net.tls import Terminator
from sidecar.upstream.dialer import Dialer, Secure, say
from tests.support.streams import TIMEOUT, FakeServer, ScriptedPeer, ServerSide, now, settle
from tests.support.tls import client_context, pair, server_context

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.05
FIRST = b"PROXY UNKNOWN\r\n"


class Trust:
    """Knows the context that is good now."""

    def __init__(self, **options: Any) -> None:
        self.context = client_context(**options)


@contextmanager
def server(script: Any) -> Iterator[FakeServer]:
    made = FakeServer(script)
    try:
        yield made
    finally:
        made.close()
        settle()


def secured(seen: dict[str, Any], *alpn: bytes, first: int = 0, name: str = "app.test") -> Any:
    """A script: read so many bytes, then TLS with a certificate for `name`."""

    def script(side: ServerSide) -> None:
        seen["first"] = side.read(first)
        own = server_context(pair(name))
        context = Terminator(lambda _: own, alpn)
        channel = Channel(os.dup(side.sock.fileno()), True)
        try:
            secure = context.secure(channel, TIMEOUT)
        except Failure as failure:
            seen["failure"] = failure.reason
            return
        finally:
            channel.close()
        seen["sni"] = secure.sni
        secure.send(b"hello", TIMEOUT)
        secure.close()

    return script


def failure(dialer: Dialer, timeout: float = TIMEOUT, first: bytes = b"") -> Failure:
    with pytest.raises(Failure) as caught:
        dialer.open(timeout, first)
    assert caught.value.repeatable
    return caught.value


def test_without_tls_what_is_heard_first_leaves_with_the_request() -> None:
    with server(lambda side: side.read(3)) as fake:
        channel = Dialer((fake.address,)).open(TIMEOUT, b"ab")
        settle()
        assert fake.received in ([], [b""])
        channel.send(b"c", TIMEOUT)
        channel.shutdown_write()
        assert channel.read(1, TIMEOUT) == b""
        channel.close()
        assert fake.received == [b"abc"]


def test_tls_is_for_the_name_of_the_server() -> None:
    seen: dict[str, Any] = {}
    with server(secured(seen)) as fake:
        channel = Dialer((fake.address,), Secure(Trust(), "app.test")).open(TIMEOUT)
        assert channel.read(5, TIMEOUT) == b"hello"
        channel.close()
    assert seen == {"first": b"", "sni": "app.test"}


def test_what_is_heard_first_comes_before_the_handshake() -> None:
    seen: dict[str, Any] = {}
    with server(secured(seen, first=len(FIRST))) as fake:
        dialer = Dialer((fake.address,), Secure(Trust(), "app.test"))
        channel = dialer.open(TIMEOUT, FIRST)
        assert channel.read(5, TIMEOUT) == b"hello"
        channel.close()
    assert seen["first"] == FIRST


def test_a_certificate_for_another_name_is_refused() -> None:
    with server(secured({}, name="other.test")) as fake:
        assert failure(Dialer((fake.address,), Secure(Trust(), "app.test"))).reason == "tls_verify"


def test_an_unknown_authority_is_refused_unless_nobody_looks() -> None:
    with server(secured({})) as fake:
        assert failure(Dialer((fake.address,), Secure(Trust(ca=None), "app.test"))).reason == "tls_verify"
    with server(secured({})) as fake:
        careless = Secure(Trust(verify=False, ca=None), "app.test")
        Dialer((fake.address,), careless).open(TIMEOUT).close()


@pytest.mark.parametrize(
    ("alpn", "detail"),
    [
        ((b"http/1.1",), "the server has no h2 (ALPN)"),
        ((), "the server did not choose h2 (ALPN)"),
    ],
)
def test_a_server_that_does_not_choose_http_2_is_of_no_use_where_it_is_needed(
    alpn: tuple[bytes, ...], detail: str
) -> None:
    with server(secured({}, *alpn)) as fake:
        dialer = Dialer((fake.address,), Secure(Trust(alpn=(b"h2",)), "app.test", True))
        found = failure(dialer)
        assert (found.reason, found.detail) == ("not_http2", detail)


def test_a_server_of_http_is_no_server_of_tls() -> None:
    def script(side: ServerSide) -> None:
        side.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with server(script) as fake:
        assert failure(Dialer((fake.address,), Secure(Trust(), "app.test"))).reason == "tls_failed"


def test_the_handshake_has_what_is_left_of_the_time() -> None:
    with server(lambda side: None) as fake:
        began = now()
        assert failure(Dialer((fake.address,), Secure(Trust(), "app.test")), SOON).reason == "tls_timeout"
        assert now() - began < TIMEOUT / 2


def test_tcp_alone_needs_no_tls() -> None:
    with server(lambda side: side.send(b"x")) as fake:
        channel = Dialer((fake.address,), Secure(Trust(), "app.test")).connect(TIMEOUT)
        assert channel.read(1, TIMEOUT) == b"x"
        channel.close()


@pytest.mark.parametrize(
    ("is_full", "reason"), [(False, "connection_terminated"), (True, "connection_timeout")]
)
def test_a_server_that_does_not_listen_to_what_is_first(is_full: bool, reason: str) -> None:
    with ScriptedPeer() as peer:
        data = b"x"
        if is_full:
            data = b"x" * 10_000_000
        else:
            peer.close()
        with pytest.raises(Failure) as caught:
            say(peer.channel, data, SOON)
        assert (caught.value.reason, caught.value.repeatable) == (reason, True)
