"""Sessions with a client that the test plays, and the whole path to servers that play a script.

Nothing here sleeps; the access log is read back as records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

import gevent
from gevent.event import Event

from sidecar.config.addresses import Address
from sidecar.message import Handler
from sidecar.net.channel import Channel
from sidecar.net.settings import ListenerSettings
from sidecar.observe.access import AccessLog
from sidecar.runtime import FakeClock
from sidecar.serving import Current, Serving
from sidecar.session import Session
from sidecar.upstream.forward import Forward
from sidecar.upstream.retry import Retry, RetryOptions
from tests.support.streams import TIMEOUT, FakeServer, Peer, Script, now, outcome, tcp_pair, wait_until
from tests.support.upstreams import group, server, terms


class _Lines:
    """Where the access log of a test goes: each line is read back."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.written = Event()

    def write(self, line: bytes) -> None:
        self.records.append(json.loads(line))
        self.written.set()


class Client(Peer):
    """A client connection that a session serves."""

    def __init__(self, proxy: Proxy, sock: Any, channel: Channel, peer: str) -> None:
        super().__init__(sock)
        self.channel = channel
        self.session = Session(channel, peer, 8080, proxy, now)
        self.greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        try:
            self.session.run()
        finally:
            self.channel.close()

    def end(self) -> None:
        """Wait for the session's own end."""
        outcome(self.greenlet)


class Proxy(Current):
    """Sessions with one handler. `settings` are those of the listener; events are kept by name."""

    def __init__(self, handler: Handler, **settings: Any) -> None:
        self.lines = _Lines()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.clients: list[Client] = []
        settings["trusted_proxies"] = tuple(ip_network(text) for text in settings.get("trusted_proxies", ()))
        self.settings = ListenerSettings(bind=(Address("127.0.0.1", 0),), **settings)
        super().__init__(self.make_serving(handler))

    def make_serving(self, handler: Handler) -> Serving:
        """Another generation of what is served."""
        return Serving(
            "public", self.settings, handler, AccessLog(self.lines, "json", FakeClock()), self._event
        )

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.lines.records

    def connect(self, peer: str = "192.0.2.7", **buffers: int) -> Client:
        """A new client connection, served from now on."""
        ours, theirs = tcp_pair(**buffers)
        client = Client(self, theirs, Channel(ours.detach(), True), peer)
        self.clients.append(client)
        return client

    def wait_records(self, count: int, client: Client) -> None:
        """Until so many exchanges were logged, or the session ended."""
        while len(self.records) < count and not client.greenlet.dead:
            self.lines.written.clear()
            gevent.wait([self.lines.written, client.greenlet], count=1, timeout=TIMEOUT)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        gevent.joinall([client.greenlet for client in self.clients], timeout=TIMEOUT)
        gevent.killall([client.greenlet for client in self.clients])


class Path:
    """A session whose handler is a real Forward to scripted servers, with everything they hold."""

    def __init__(
        self,
        *scripts: Script,
        timeouts: dict[str, float] | None = None,
        forward: dict[str, Any] | None = None,
        keepalive: int = 8,
        **settings: Any,
    ) -> None:
        self.server = FakeServer(*scripts)
        self.one = server("app-1", self.server.address)
        self.pool = self.one.pool
        self.pool.resize(keepalive, 60.0)
        options = dict(forward or {})
        retry = Retry(RetryOptions())
        agreed = terms(retry, upgrade=options.pop("upgrade", True), **(timeouts or {}))
        self.forward = Forward(group([self.one]), retry, agreed, **options)
        self.proxy = Proxy(self.forward, **settings)

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.proxy.records

    @property
    def received(self) -> list[bytes]:
        return self.server.received

    def connect(self, **buffers: int) -> Client:
        return self.proxy.connect("192.0.2.7", **buffers)

    def close(self) -> None:
        """End all of it: whatever happened, the server was given back."""
        self.proxy.close()
        self.pool.close()
        self.server.close()
        assert self.one.state.active == 0

    def __enter__(self) -> Path:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Exchanged(NamedTuple):
    """What is left of it: bytes at the client and at each connection of the server, the access records."""

    client: bytes
    upstream: list[bytes]
    records: list[dict[str, Any]]
    was_reset: bool

    @property
    def head(self) -> bytes:
        return self.client.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.client.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.client[9:12])


def exchange(
    request: bytes, upstream: Sequence[Script] = (), *, requests: int = 1, piece: int = 0, **settings: Any
) -> Exchanged:
    """Send `request` (it may be several), end when `requests` are logged. `piece`: bytes sent at a time."""
    with Path(*upstream, **settings) as path:
        client = path.connect()
        if piece:
            client.send_pieces(request, piece)
        else:
            client.send(request)
        path.proxy.wait_records(requests, client)
        client.session.retire()
        data = client.read_all()
        path.proxy.close()
        path.pool.close()
        wait_until(lambda: not path.server.open_connections)
        return Exchanged(data, path.received, list(path.records), client.was_reset)
