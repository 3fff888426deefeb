"""Upstreams that have too much to do, or fail too often: who is let through, who waits, who is refused."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.fleet import Load, Server, servers
from tests.support.live import Live, Sidecar, until
from tests.support.peers import Message, Stream, ask, request

#: Seconds that an answer takes at most which needs nobody: less than any time of these configurations.
AT_ONCE: Final = 0.8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers(tmp_path, "a") as (one,):
        yield one


def _start(live: Live, server: Server, options: str, parameters: str = "") -> Sidecar:
    return live.start(
        f"[upstream app]\nserver.a = {server.address} {parameters}\n{options}\n[route app]\nupstream = app\n"
    )


def _refused(live: Live, error: str) -> Message:
    """A request that is refused at once, with the reason and when to come again."""
    began = time.monotonic()
    answer = ask(live.port, "/refused")
    assert time.monotonic() - began < AT_ONCE
    assert answer.status == 503
    assert int(answer.fields["retry-after"]) >= 1
    assert f"error={error}" in answer.fields["proxy-status"]
    return answer


@contextlib.contextmanager
def _asking(live: Live, *targets: str) -> Iterator[list[Stream]]:
    """Clients that have asked and not read yet."""
    with contextlib.ExitStack() as stack:
        clients = []
        for target in targets:
            clients.append(stack.enter_context(Stream.connect(live.port)))
            clients[-1].send(request("GET", target))
        yield clients


def _waits(client: Stream) -> bool:
    """Whether nothing comes for it for a moment."""
    return not select.select([client.sock], [], [], 0.05)[0]


def _hold(server: Server, *names: str) -> None:
    until(lambda: set(names) <= set(server.executed()), f"{names} at the server")


def test_breaker(live: Live, server: Server) -> None:
    """After three failures in a row nobody is let through, then a probe; a good one closes the circuit."""
    sidecar = _start(live, server, "breaker_failures = 3\nbreaker_timeout = 1s")
    server.tell("/mode/status/500")
    assert [ask(live.port, "/bad").status for _ in range(3)] == [500, 500, 500]
    for _ in range(5):
        _refused(live, "destination_unavailable")
    assert server.executed() == ["bad"] * 3
    # A probe fails: for as long again nobody is let through.
    until(lambda: ask(live.port, "/probe").status == 500, "a probe")
    _refused(live, "destination_unavailable")
    server.tell("/mode/well")
    until(lambda: ask(live.port, "/probe").status == 200, "a probe that is well")
    assert [ask(live.port, "/good").status for _ in range(5)] == [200] * 5
    assert server.executed() == ["bad"] * 3 + ["probe"] * 2 + ["good"] * 5
    sidecar.wait_event("circuit_closed")
    events = [event for event in sidecar.events() if event["event"].startswith("circuit_")]
    assert [(event["event"].removeprefix("circuit_"), event.get("cause", "")) for event in events] == [
        ("opened", "failures"),
        ("half_open", ""),
        ("opened", "probe"),
        ("half_open", ""),
        ("closed", ""),
    ]
    reasons = {line.get("reason") for line in sidecar.exchanges() if line["status"] == 503}
    assert reasons == {"circuit_open"}


def test_breaker_by_share(live: Live, server: Server) -> None:
    """Half of the requests fail: the share opens the circuit, though no two failures are in a row."""
    sidecar = _start(live, server, "breaker_errors = 40%\nbreaker_requests = 10\nbreaker_timeout = 30s")
    statuses: list[int] = []
    while len(statuses) < 12 and 503 not in statuses:
        server.tell("/mode/status/500" if len(statuses) % 2 else "/mode/well")
        statuses.append(ask(live.port, "/x").status)
    assert statuses == [200, 500] * 5 + [503]
    (event,) = sidecar.wait_event("circuit_opened")
    assert (event["cause"], event["failures"], event["requests"]) == ("errors", 5, 10)


def test_breaker_when_nobody_listens(live: Live, server: Server) -> None:
    """A server that is gone costs as many attempts as it takes to open the circuit, then none."""
    _start(live, server, "breaker_failures = 2\nbreaker_timeout = 1s\nretry_on = off")
    server.kill()
    assert [ask(live.port, "/x").status for _ in range(2)] == [502, 502]
    _refused(live, "destination_unavailable")
    server.start()
    until(lambda: ask(live.port, "/x").status == 200, "the server is back")


def test_queue(live: Live, server: Server) -> None:
    """Who finds all servers at their limits waits in line; who finds the line full is refused at once."""
    sidecar = _start(live, server, "queue = 3", "max_connections=1")
    with _asking(live, "/wait/first") as (first,):
        _hold(server, "first")
        with contextlib.ExitStack() as stack:
            waiting = []
            for name in ("q1", "q2", "q3"):
                waiting += stack.enter_context(_asking(live, f"/{name}"))
                assert _waits(waiting[-1])
            _refused(live, "connection_limit_reached")
            server.tell("/release")
            assert first.read_message().status == 200
            assert [client.read_message().body for client in waiting] == [b"a q1\n", b"a q2\n", b"a q3\n"]
    assert server.executed() == ["first", "q1", "q2", "q3"]
    (line,) = [line for line in sidecar.wait_exchanges(5) if line["status"] == 503]
    assert line["reason"] == "upstream_overloaded"


def test_queue_timeout(live: Live, server: Server) -> None:
    """Nobody waits longer than the queue's time, and who has left the line is not served."""
    sidecar = _start(live, server, "queue = 3\nqueue_timeout = 200ms", "max_connections=1")
    with _asking(live, "/wait/first") as (first,):
        _hold(server, "first")
        began = time.monotonic()
        answer = ask(live.port, "/late")
        assert answer.status == 503
        assert 0.15 < time.monotonic() - began < 1.0
        assert "connection_limit_reached" in answer.fields["proxy-status"]
        server.tell("/release")
        assert first.read_message().status == 200
    assert ask(live.port, "/next").status == 200
    assert [line.get("reason") for line in sidecar.wait_exchanges(3)] == ["upstream_overloaded", None, None]
    assert server.executed() == ["first", "next"]


def test_server_recovers_while_somebody_waits(live: Live, tmp_path: Path) -> None:
    """It serves the line soon: nobody waits until another request ends or comes."""
    with servers(tmp_path, "a", "b") as (one, other):
        other.kill()
        sidecar = live.start(
            f"[upstream app]\nserver.a = {one.address} max_connections=1\nserver.b = {other.address}\n"
            "queue_timeout = 15s\nhealth_check = tcp\nhealth_interval = 100ms\nhealth_timeout = 100ms\n"
            "health_fall = 1\nhealth_rise = 1\n[route app]\nupstream = app\n"
        )
        sidecar.wait_event("server_down")
        with _asking(live, "/wait/first") as (first,):
            _hold(one, "first")
            with _asking(live, "/second") as (second,):
                assert _waits(second)
                other.start()
                began = time.monotonic()
                assert second.read_message().body == b"b second\n"
                assert time.monotonic() - began < 5
            one.tell("/release")
            assert first.read_message().status == 200


def test_client_leaves_the_line(live: Live, server: Server) -> None:
    """Its place is free at once, what it asked for is not executed for nobody, and others have their turn."""
    sidecar = _start(live, server, "queue = 1", "max_connections=1")
    with _asking(live, "/wait/first") as (first,):
        _hold(server, "first")
        with _asking(live, "/left") as (left,):
            assert _waits(left)
        until(lambda: any(line["path"] == "/left" for line in sidecar.exchanges()), "the end of /left")
        with _asking(live, "/stays") as (stays,):
            assert _waits(stays)
            server.tell("/release")
            assert first.read_message().status == 200
            assert stays.read_message().status == 200
    assert server.executed() == ["first", "stays"]
    (line,) = [line for line in sidecar.wait_exchanges(3) if line["path"] == "/left"]
    assert (line["status"], line["reason"]) == (499, "client_gone")


def test_concurrency_limit(live: Live, server: Server) -> None:
    """As many as the limit are let through; another is refused at once, and let through when one is over."""
    sidecar = _start(live, server, "concurrency_limit = 2")
    with _asking(live, "/wait/one", "/wait/two") as (one, two):
        _hold(server, "one", "two")
        _refused(live, "connection_limit_reached")
        server.tell("/release")
        assert (one.read_message().status, two.read_message().status) == (200, 200)
    assert ask(live.port, "/three").status == 200
    assert server.executed()[2:] == ["three"]
    assert [line["reason"] for line in sidecar.wait_exchanges(4) if line["status"] == 503] == [
        "upstream_overloaded"
    ]


@pytest.mark.alone
def test_adaptive_concurrency(live: Live, server: Server) -> None:
    """A server that keeps up is never refused anything for it.

    Eight clients are never more than half of the first limit, so it stays, also while the machine is slow.
    """
    _start(live, server, "concurrency_limit = adaptive")
    with Load(live.port, 1000, 8) as load:
        until(lambda: server.size > 1000 * 10, "1000 requests")
    print(load.report)
    assert load.report.failures == []
