"""Servers, groups and forwards for tests: real parts with short defaults, whose state can be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.net.body import RequestBody
from sidecar.upstream.balance.base import Balance
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.budget import Budget
from sidecar.upstream.exchange import Terms, Timeouts
from sidecar.upstream.forward import Forward
from sidecar.upstream.group import Group, Queue, QueueOptions
from sidecar.upstream.guard import Guard
from sidecar.upstream.pool import ServerPool
from sidecar.upstream.retry import Retry, RetryOptions
from sidecar.upstream.server import Server, State
from sidecar.wire.head import CHUNKED, Limits, RequestHead
from tests.support.streams import TIMEOUT, FakeServer, Script, ScriptedPeer, now

GET: Final = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SOON: Final = 0.01

#: Nobody listens there, and nobody can: a port below those that the system gives away.
NOWHERE: Final = Address("127.0.0.1", 1)


def answer(status: int = 200, body: bytes = b"") -> bytes:
    """A response with a length."""
    return b"HTTP/1.1 %d Some\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def post(body: bytes = b"hello", method: bytes = b"POST", fields: bytes = b"") -> bytes:
    """A request with a length."""
    return b"%b /a HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (method, fields, len(body), body)


def request_of(data: bytes = GET, client: str = "192.0.2.7", scheme: str = "http") -> Request:
    """The request whose head begins `data`, without its body."""
    head = RequestHead(Limits())
    head.feed(data)
    return Request(head, "/a", client, scheme, "public")


def server(name: str = "app", address: Address = NOWHERE, **changes: Any) -> Server:
    """A server that nobody has met yet; `changes` are attributes, `weight` and `state` too."""
    weight = changes.pop("weight", 1)
    made = Server(name, ServerPool(address, 4, 60.0), changes.pop("state", None) or State(), weight)
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def group(
    servers: Sequence[Server],
    balance: Callable[[Sequence[Server]], Balance] = RoundRobin,
    *,
    options: QueueOptions | None = None,
    clock: Callable[[], float] = now,
    budget: int = -1,
    **more: Any,
) -> Group:
    """Chooses among these. `more`: sticky, observer, relent; and `queue`, which is shared then."""
    queue = more.pop("queue", None)
    made = Group(options or QueueOptions(), Queue() if queue is None else queue, Budget(budget), clock)
    made.replace(servers, balance, **more)
    return made


def terms(retry: Retry, *, upgrade: bool = True, clock: Callable[[], float] = now, **bounds: float) -> Terms:
    """Terms with patience but for `bounds`: connect, send, read, request, tunnel, attempt."""
    known = dict.fromkeys(("connect", "send", "read", "tunnel"), TIMEOUT) | {"request": 0.0, "attempt": 0.0}
    return Terms(Timeouts(**(known | bounds)), Limits(), clock, upgrade, retry.counted)


def ban(one: Server, moment: float) -> None:
    """Let it fail once too often."""
    one.max_fails = 1
    one.failed(moment)


def refusal(chooser: Group, moment: float = 1.0) -> tuple[str, str, bool]:
    """Why there is no server: reason, detail, and whether the request may be repeated."""
    with pytest.raises(Failure) as caught:
        chooser.choose(request_of(), moment)
    return caught.value.reason, caught.value.detail, caught.value.repeatable


class Fleet:
    """A forward to scripted servers, a list of scripts for each, and the clients that ask it.

    Options: those of RetryOptions; bounds of `terms`, and `terms_clock`; `servers`, attributes by
    number; what `group` takes.
    """

    def __init__(self, *scripts: Sequence[Script], **options: Any) -> None:
        self.fakes = [FakeServer(*own) for own in scripts]
        attributes = options.pop("servers", {})
        self.servers = [
            server(f"app-{number}", fake.address, **attributes.get(number, {}))
            for number, fake in enumerate(self.fakes, 1)
        ]
        wanted = {key: options.pop(key) for key in list(options) if key.startswith("retry_")}
        self.retry = Retry(RetryOptions(**wanted))
        bounds = ("connect", "send", "read", "request", "tunnel", "attempt", "upgrade")
        given = {key: options.pop(key) for key in bounds if key in options}
        self.terms = terms(self.retry, clock=options.pop("terms_clock", now), **given)
        buffer = options.pop("buffer", 0)
        guard: Guard | None = options.pop("guard", None)
        self.group = group(self.servers, **options)
        self.forward = Forward(self.group, self.retry, self.terms, buffer, guard)
        self.client = ScriptedPeer(readable=True)
        self.request: Request | None = None

    def ask(self, data: bytes = GET, **changes: Any) -> Response:
        """Forward a request of the client; `changes` are attributes of the request."""
        request = request_of(data)
        used = len(request.head.raw)
        request.client_channel = self.client.channel
        if used < len(data):
            self.client.channel.unread(data[used:])
        if request.head.framing == CHUNKED or request.head.length:
            request.body = RequestBody(request.head, self.client.channel, TIMEOUT)
        for name, value in changes.items():
            setattr(request, name, value)
        self.request = request
        return self.forward(request)

    def status(self, data: bytes = GET, **changes: Any) -> int:
        """The status of the answer, whose body nobody wants."""
        response = self.ask(data, **changes)
        if response.body is not None:
            response.body.close()
        return response.head.status

    def failure(self, data: bytes = GET, **changes: Any) -> Failure:
        """What it raises."""
        with pytest.raises(Failure) as caught:
            self.ask(data, **changes)
        return caught.value

    @property
    def attempts(self) -> list[tuple[str, bool, int, str]]:
        """(server, whether on a kept connection, status, reason) of each attempt for the last request."""
        assert self.request is not None
        return [(one.server, bool(one.reused), one.status, one.reason) for one in self.request.attempts]

    @property
    def asked(self) -> list[str]:
        """The servers of the attempts for the last request."""
        return [name for name, *_ in self.attempts]

    @property
    def active(self) -> list[int]:
        """Attempts in progress at each server."""
        return [one.state.active for one in self.servers]

    @property
    def fails(self) -> list[int]:
        """Failures that count, of each server."""
        return [one.state.fails for one in self.servers]

    @property
    def received(self) -> list[list[bytes]]:
        """What came to each server, by connection."""
        return [fake.received for fake in self.fakes]

    def close(self) -> None:
        """Close all that it holds."""
        self.client.__exit__()
        for one in self.servers:
            one.pool.close()
        for fake in self.fakes:
            fake.close()


@contextmanager
def fleet(*scripts: Sequence[Script], **options: Any) -> Iterator[Fleet]:
    """A fleet; at the end nobody is in progress, whatever happened."""
    made = Fleet(*scripts, **options)
    try:
        yield made
        assert made.active == [0] * len(made.servers)
    finally:
        made.close()
