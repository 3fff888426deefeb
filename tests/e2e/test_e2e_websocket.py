"""WebSockets between a real client and a real server, with the sidecar in the middle."""

from __future__ import annotations

import contextlib
import os

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support import websocket
from tests.support.live import Live, until

APP = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"


def _client(live: Live) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{live.port}/chat", max_size=None, proxy=None)


def test_messages_of_all_sizes_come_back(live: Live) -> None:
    """Texts and bytes, empty, small and many megabytes, alone and one after the other."""
    with websocket.echo() as address:
        live.start(APP.format(address))
        with _client(live) as client:
            for message in ("hello", "", b"\0\xff", os.urandom(70_000), os.urandom(8_000_000)):
                client.send(message)
                assert client.recv(timeout=15) == message
            for number in range(200):
                client.send(str(number))
            assert [client.recv(timeout=15) for _ in range(200)] == [str(number) for number in range(200)]
            assert client.ping().wait(10)


def test_close_handshake_passes_in_both_directions(live: Live) -> None:
    """Who closes says why, and the other side reads it; the log line comes with the end of the tunnel."""
    with websocket.echo() as address:
        sidecar = live.start(APP.format(address))
        with _client(live) as client:
            client.send("leave")
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(timeout=10)
            assert ended.value.rcvd
            assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4001, "as you wish")
        with _client(live) as client:
            client.send("bye")
            assert client.recv(timeout=10) == "bye"
            client.close(1000)
            assert client.close_code == 1000
        lines = sidecar.wait_exchanges(2)
    assert [line["status"] for line in lines] == [101, 101]
    assert not any("reason" in line for line in lines)


def test_many_tunnels_at_once(live: Live) -> None:
    """Fifty of them do not mix up their messages."""
    with websocket.echo() as address, contextlib.ExitStack() as stack:
        live.start(APP.format(address))
        clients = [stack.enter_context(_client(live)) for _ in range(50)]
        for number, client in enumerate(clients):
            client.send(f"for {number}")
        for number, client in enumerate(clients):
            assert client.recv(timeout=10) == f"for {number}"


def test_upgrade_that_is_off_is_not_passed_on(live: Live) -> None:
    """The server sees a plain request, and the client its plain answer."""
    with websocket.echo() as address:
        sidecar = live.start(APP.format(address) + "upgrade = off\n")
        with pytest.raises(InvalidStatus) as refused:
            _client(live)
        assert refused.value.response.status_code == 426
        until(lambda: sidecar.exchanges(), "the line")
        assert sidecar.exchanges()[0]["status"] == 426
