"""What servers hear of a client before its first byte, and of the proxy when it asks for itself."""

from __future__ import annotations

import pytest

from sidecar.message import Request, connection
from sidecar.net.channel import Channel
from sidecar.net.endpoints import Endpoints
from sidecar.upstream.introduction import introduction, own_introduction
from sidecar.wire.proxy_protocol import Result, parse
from tests.support.streams import ScriptedPeer, tcp_pair


def request(client: str = "192.0.2.7", told: Endpoints | None = None) -> Request:
    made = connection(client, "edge")
    made.endpoints = told
    return made


def said(send_proxy: str, asked: Request) -> Result:
    introduce = introduction(send_proxy)
    assert introduce is not None
    data = introduce(asked)
    found = parse(data)
    assert found is not None
    assert found.size == len(data)
    return found


TOLD = Endpoints(("192.0.2.7", 4321), ("198.51.100.1", 443))


def test_off_is_nothing():
    assert introduction("off") is None


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_a_balancer_told(version: str):
    found = said(version, request(told=TOLD))
    assert (found.source, found.destination, found.is_local) == (*TOLD, False)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_the_kernel_knows(version: str):
    ours, theirs = tcp_pair()
    expected = theirs.getsockname(), ours.getsockname()
    asked = request("127.0.0.1")
    asked.client_channel = Channel(ours.detach())
    found = said(version, asked)
    assert (found.source, found.destination) == expected
    asked.client_channel.close()
    theirs.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_client_behind_a_trusted_proxy_has_no_port(version: str):
    found = said(version, request("2001:db8::9", TOLD))
    assert found.source == ("2001:db8::9", 0)
    assert found.destination is not None
    assert found.destination[1] == 443


def unknown(version: str) -> Result:
    one, two = ScriptedPeer(), request("unix:")
    with one:
        two.client_channel = one.channel
        return said(version, two)


def test_a_client_on_a_unix_socket_is_unknown():
    assert unknown("v1") == Result(15, None, None, False)
    assert unknown("v2") == Result(16, None, None, True)


def test_a_copy_without_its_client_is_unknown():
    assert said("v1", request()).source is None


@pytest.mark.parametrize(
    ("version", "header"),
    [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")],
)
def test_the_proxy_itself_is_nobodys_client(version: str, header: bytes):
    assert own_introduction(version) == header


def test_without_a_header_there_is_nothing_to_say_first():
    assert own_introduction("off") == b""
