"""Copies of requests for another upstream: they bring what the original brings, and never disturb it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from sidecar.errors import Failure, Malformed
from sidecar.message import Request, Response
from sidecar.net.body import RequestBody
from sidecar.net.flow import pump
from sidecar.runtime import Tasks
from sidecar.upstream import mirror as module
from sidecar.upstream.mirror import Mirror
from sidecar.wire.head import ResponseHead
from tests.support.streams import TIMEOUT, ScriptedPeer, settle
from tests.support.upstreams import answer, fleet, post, request_of

pytestmark = pytest.mark.usefixtures("no_leaks")


class Upstream:
    """A handler that remembers whom it answered."""

    def __init__(self) -> None:
        self.met: list[Request] = []
        self.error: Exception | None = None

    def __call__(self, request: Request) -> Response:
        self.met.append(request)
        if self.error is not None:
            raise self.error
        return Response(ResponseHead.make(200, []), None)


class Both:
    """An original, its shadow, and the mirror between them."""

    def __init__(self, percent: int = 100, largest: int = 100) -> None:
        self.died: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.died.append(error))
        self.original, self.shadow = Upstream(), Upstream()
        self.mirror = Mirror(self.original, self.shadow, percent, largest, self.tasks)

    def ask(self, request: Request | None = None) -> Response:
        response = self.mirror(request or request_of())
        settle()
        return response


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.tasks.stop()
    assert made.died == []


@pytest.fixture
def client() -> Iterator[ScriptedPeer]:
    peer = ScriptedPeer(readable=True)
    yield peer
    peer.channel.close()
    peer.close()


def with_body(client: ScriptedPeer, data: bytes) -> Request:
    request = request_of(data)
    client.channel.unread(data[len(request.head.raw) :])
    request.client_channel = client.channel
    request.body = RequestBody(request.head, client.channel, TIMEOUT)
    return request


def test_the_copy_asks_for_the_same_and_has_no_client(both: Both):
    request = request_of()
    request.target, request.extra, request.host_header = b"/other", b"X-A: b\r\n", b"app"
    request.interim = lambda head: None
    both.ask(request)
    (copy,) = both.shadow.met
    assert both.original.met == [request]
    assert copy is not request
    assert (copy.head, copy.target, copy.extra, copy.host_header) == (
        request.head,
        b"/other",
        b"X-A: b\r\n",
        b"app",
    )
    assert (copy.client_channel, copy.interim) == (None, None)
    assert copy.attempts is not request.attempts


@pytest.mark.parametrize(("percent", "copies"), [(100, 20), (50, 10), (10, 2), (1, 0)])
def test_as_many_are_copied_as_asked_for(percent: int, copies: int):
    both = Both(percent)
    for _ in range(20):
        both.ask()
    assert len(both.shadow.met) == copies
    assert len(both.original.met) == 20


def test_the_copy_brings_the_body_and_leaves_it_to_the_original(both: Both, client: ScriptedPeer):
    request = with_body(client, post(b"hello"))
    both.ask(request)
    (copy,) = both.shadow.met
    assert copy.body is not request.body
    assert (copy.body.kept, copy.body.length, copy.body.is_whole) == (b"hello", 5, True)
    assert request.body.kept == b"hello"


CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HELD_BACK = b"Expect: 100-continue\r\n"


class Reader(Upstream):
    """One to whom the body goes; it changes the request as a later step may, and fails if it is told to."""

    def __call__(self, request: Request) -> Response:
        with ScriptedPeer() as server:
            pump(request.body.flow(server.channel, TIMEOUT))
        request.target = b"/changed"
        return super().__call__(request)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "data",
    [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", post(b"hello", fields=HELD_BACK)],
    ids=["chunked", "held back"],
)
def test_a_body_that_passes_is_copied_when_all_of_it_is_known(client: ScriptedPeer, data: bytes, fails: bool):
    both = Both()
    both.original = Reader()
    both.original.error = Failure("connection_terminated") if fails else None
    mirror = Mirror(both.original, both.shadow, 100, 5, both.tasks)
    request = with_body(client, data)
    request.target = b"/rewritten"
    with pytest.raises(Failure) if fails else nullcontext():
        mirror(request)
    assert both.shadow.met == []
    settle()
    (copy,) = both.shadow.met
    assert (copy.body.kept, copy.body.length, copy.target) == (b"hello", 5, b"/rewritten")
    assert request.target == b"/changed"
    assert mirror.skipped == 0


@pytest.mark.parametrize(
    "data",
    [post(b"x" * 101), CHUNKED + b"65\r\n%b\r\n0\r\n\r\n" % (b"x" * 101), CHUNKED + b"0\r\nX-Sum: 1\r\n\r\n"],
    ids=["large", "large chunks", "trailer fields"],
)
def test_a_body_that_cannot_be_kept_is_not_copied(client: ScriptedPeer, data: bytes):
    both = Both()
    both.original = Reader()
    mirror = Mirror(both.original, both.shadow, 100, 100, both.tasks)
    mirror(with_body(client, data))
    settle()
    assert both.shadow.met == []
    assert mirror.skipped == 1


def test_a_body_that_the_original_did_not_read_is_not_copied(both: Both, client: ScriptedPeer):
    both.ask(with_body(client, CHUNKED + b"0\r\n\r\n"))
    assert both.shadow.met == []
    assert both.mirror.skipped == 1
    assert len(both.original.met) == 1


def test_a_shadow_that_fails_is_not_noticed(both: Both):
    both.shadow.error = Failure("connection_refused")
    assert both.ask().head.status == 200
    both.shadow.error = None
    both.ask()
    assert len(both.shadow.met) == 2


def test_the_failure_of_the_original_is_told_and_the_copy_goes_its_way(both: Both):
    both.original.error = Failure("connection_refused")
    with pytest.raises(Failure):
        both.ask()
    settle()
    assert len(both.shadow.met) == 1


def test_copies_in_progress_are_bounded(both: Both, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST", 2)
    for _ in range(5):
        both.mirror(request_of())  # nobody else runs meanwhile
    settle()
    assert (len(both.shadow.met), both.mirror.skipped) == (2, 3)
    both.ask()
    assert len(both.shadow.met) == 3


@pytest.mark.parametrize(
    ("script", "is_kept"),
    [
        (answer(200, b"x" * 1000), True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", False),
    ],
    ids=["a length", "chunks", "too large", "broken"],
)
def test_the_answer_of_a_real_shadow_is_read_and_its_connection_kept(
    both: Both, script: bytes, is_kept: bool
):
    with fleet([[script]]) as shadow:
        mirror: Any = Mirror(both.original, shadow.forward, 100, 100, both.tasks)
        mirror(request_of())
        settle(50)
        assert len(shadow.servers[0].pool.pool.items) == is_kept
        assert shadow.servers[0].state.active == 0
        shadow.servers[0].pool.close()


def test_a_copy_that_cannot_be_understood_is_nobodys_trouble(both: Both) -> None:
    both.shadow.error = Malformed("bad_grpc_timeout")
    assert both.ask().head.status == 200
    assert len(both.shadow.met) == 1
