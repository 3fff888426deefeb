"""The ends of a connection, as the kernel knows them."""

from __future__ import annotations

import socket as plain

import pytest

from sidecar.net.channel import Channel
from sidecar.net.endpoints import Endpoints, endpoints, has_ended
from tests.support.streams import tcp_pair, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_both_ends_of_a_tcp_connection():
    ours, theirs = tcp_pair()
    expected = Endpoints(theirs.getsockname(), ours.getsockname())
    channel = Channel(ours.detach())
    assert endpoints(channel) == expected
    # The descriptor is still the channel's.
    theirs.sendall(b"x")
    assert channel.read(1, 1.0) == b"x"
    channel.close()
    theirs.close()


@pytest.mark.parametrize("bound", ["::1", "::"])
def test_ipv6_and_ipv4_in_its_form(bound: str):
    with plain.socket(plain.AF_INET6) as listener:
        listener.setsockopt(plain.IPPROTO_IPV6, plain.IPV6_V6ONLY, 0)
        listener.bind((bound, 0))
        listener.listen(1)
        host = "127.0.0.1" if bound == "::" else "::1"
        with plain.create_connection((host, listener.getsockname()[1])) as theirs:
            ours, _ = listener.accept()
            channel = Channel(ours.detach())
            port = theirs.getsockname()[1]
            assert endpoints(channel) == Endpoints((host, port), (host, listener.getsockname()[1]))
            channel.close()


def test_a_unix_socket_has_no_address():
    one, two = plain.socketpair()
    channel = Channel(one.detach())
    assert endpoints(channel) == Endpoints(None, None)
    channel.close()
    two.close()


def test_a_connection_that_has_ended():
    ours, theirs = tcp_pair()
    channel = Channel(ours.detach())
    theirs.setsockopt(plain.SOL_SOCKET, plain.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert endpoints(channel) == Endpoints(None, None)
    channel.close()
    assert endpoints(channel) == Endpoints(None, None)


def test_who_has_ended_is_known_without_reading():
    ours, theirs = tcp_pair()
    channel = Channel(ours.detach())
    assert not has_ended(channel)
    theirs.sendall(b"x")
    theirs.shutdown(plain.SHUT_WR)
    wait_until(lambda: has_ended(channel))
    assert channel.read(1, 1.0) == b"x"
    theirs.close()
    channel.close()
    assert has_ended(channel)


def test_of_a_unix_socket_nothing_is_known_without_reading():
    one, two = plain.socketpair()
    two.close()
    channel = Channel(one.detach())
    assert not has_ended(channel)
    channel.close()
