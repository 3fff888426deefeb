"""Servers that die, freeze, break off and talk nonsense under load: what clients see, what is done twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.fleet import Load, Report, Server, repeated, servers
from tests.support.live import Live, Sidecar, until
from tests.support.peers import ask

RATE: Final = 2000

#: So many requests a second that others would slow them down.
pytestmark = pytest.mark.alone

CHECKS: Final = "health_check = GET /health\nhealth_interval = 200ms\nhealth_timeout = 100ms"
#: A server that rests but for a moment, so that much happens in little time.
SOON: Final = "max_fails=1 fail_timeout=100ms"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Server]]:
    with servers(tmp_path, "a", "b", "c") as started:
        yield started


def _start(live: Live, all_servers: Sequence[Server], *options: str, last: str = "") -> Sidecar:
    """`last`: what more is said of the last server."""
    lines = [f"server.{server.name} = {server.address} {SOON}" for server in all_servers]
    lines[-1] += f" {last}"
    return live.start("\n".join(["[upstream app]", *lines, *options, "[route app]", "upstream = app"]))


#: Requests at one server before one fails, for the retry budget to be as in a service that runs.
USUAL: Final = 300


def _use(server: Server, requests: int = 50) -> None:
    """Wait until it has executed so many more."""
    size = server.size
    until(lambda: server.size > size + 10 * requests, f"{requests} requests at {server.name}", 10)


def _has_failed_post(sidecar: Sidecar) -> bool:
    lines = sidecar.exchanges()
    return any(line["method"] == "POST" and (line["status"] >= 500 or "reason" in line) for line in lines)


def _story(line: dict[str, Any]) -> list[tuple[str, str]]:
    """The attempts: at which server, and what it said or why it said nothing."""
    return [(one["server"], one.get("reason") or str(one["status"])) for one in line["attempts"]]


def _met_two(sidecar: Sidecar) -> list[list[tuple[str, str]]]:
    """The stories of those that two servers refused."""
    stories = [_story(line) for line in sidecar.exchanges()]
    return [story for story in stories if sum(why == "connection_refused" for _, why in story) == 2]


def _lines(sidecar: Sidecar, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The lines of the access log about these requests."""

    def found() -> dict[str, dict[str, Any]]:
        return {line["path"][1:]: line for line in sidecar.exchanges() if line["path"][1:] in wanted}

    until(lambda: len(found()) == len(wanted), "their lines in the access log")
    return found()


def _explained(report: Report, sidecar: Sidecar) -> dict[str, dict[str, Any]]:
    """The line in the access log of each POST that failed; there was no other failure."""
    print(report)
    assert report.failed("g") == {}
    failed = report.failed("p")
    lines = _lines(sidecar, set(failed))
    assert sidecar.complaints() == []
    assert sidecar.events("task_died") == sidecar.events("exchange_failed") == []
    return lines


@pytest.mark.parametrize(("checks", "kills"), [("", 20), (CHECKS, 6)], ids=["passive", "active"])
def test_kill(live: Live, three: list[Server], checks: str, kills: int) -> None:
    """2,000 requests a second, a server killed and restarted 20 times: no GET fails, no POST is done twice.

    A POST fails only when the server died with it in hand: nobody can know whether it acted.
    """
    sidecar = _start(live, three, checks)
    with Load(live.port, RATE) as load:
        _use(three[0], USUAL)
        for number in range(kills):
            victim, other = three[number % 3], three[(number + 1) % 3]
            victim.kill()
            _use(other)
            victim.start()
            _use(victim)
    lines = _explained(load.report, sidecar)
    assert {line["reason"] for line in lines.values()} <= {"connection_terminated"}
    for line in lines.values():
        assert _story(line)[-1][1] == "connection_terminated"
    assert len(lines) < load.report.sent / 100
    assert repeated(three) == []
    assert load.report.rate > RATE * 0.8


def test_two_of_three_die(live: Live, three: list[Server]) -> None:
    """At one time, with two attempts in all: a server that is not reached is none, so no GET fails."""
    sidecar = _start(live, three, "retry_attempts = 2", last="backup")
    dying, last = three[:2], three[2]
    with Load(live.port, RATE) as load:
        for _ in range(5):
            _use(dying[0], USUAL)
            for server in dying:
                server.signal(signal.SIGKILL)
            for server in dying:
                server.kill()
            _use(last, 300)
            for server in dying:
                server.start()
            for server in dying:
                _use(server)
    print(load.report)
    # But where both had it in hand: the second one died a moment later, and had got it from the first one.
    for line in _lines(sidecar, set(load.report.failed("g"))).values():
        story = _story(line)
        assert {who for who, _ in story} == {server.address for server in dying}
        assert {why for _, why in story} == {"connection_terminated"}
    # Under load others may have found both dead before; who is alone asks both, and the backup then.
    for server in dying:
        server.kill()
    assert until(lambda: ask(live.port, "/g").status == 200 and _met_two(sidecar), "one that meets both")
    assert {story[-1] for story in _met_two(sidecar)} == {(last.address, "200")}
    assert repeated(three) == []


@pytest.mark.parametrize("checks", ["", CHECKS], ids=["passive", "active"])
def test_freeze(live: Live, three: list[Server], checks: str) -> None:
    """A server that is stopped takes requests and says nothing: another is asked when its time is up."""
    sidecar = _start(live, three, "attempt_timeout = 300ms", checks)
    victim, other = three[:2]
    with Load(live.port, RATE, 64) as load:
        _use(victim, USUAL)
        for _ in range(2):
            victim.signal(signal.SIGSTOP)
            _use(other, 300)
            until(lambda: _has_failed_post(sidecar), "a POST that failed", 10)
            victim.signal(signal.SIGCONT)
            _use(victim, 100)
    lines = _explained(load.report, sidecar)
    assert lines
    assert {line["reason"] for line in lines.values()} == {"upstream_read_timeout"}
    assert repeated(three) == []
    # A GET waits for one attempt in vain and no longer.
    stories = [_story(line) for line in sidecar.exchanges()]
    assert max(len([why for _, why in story if why == "upstream_read_timeout"]) for story in stories) == 1


@pytest.mark.parametrize(
    ("mode", "option", "reason"),
    [
        ("reset", "", "connection_terminated"),
        ("garbage", "retry_on = error timeout invalid_header", "malformed_response"),
        ("slow/1.0", "attempt_timeout = 300ms", "upstream_read_timeout"),
        ("status/503", "retry_on = error timeout http_503", ""),
    ],
)
def test_trouble(live: Live, three: list[Server], mode: str, option: str, reason: str) -> None:
    """Whatever a server does in place of an answer: a GET is answered by another, a POST is done once."""
    sidecar = _start(live, three, option)
    victim, other = three[1:]
    with Load(live.port, RATE, 64) as load:
        _use(victim, USUAL)
        victim.tell(f"/mode/{mode}")
        _use(other, 200)
        # It is left alone after its first failure, and tried again now and then.
        until(lambda: _has_failed_post(sidecar), "a POST that failed", 10)
        victim.tell("/mode/well")
        _use(victim)
    lines = _explained(load.report, sidecar)
    assert lines
    assert {line.get("reason", "") for line in lines.values()} == {reason}
    assert {line["upstream"] for line in lines.values()} == {victim.address}
    assert repeated(three) == []


def test_slow(live: Live, three: list[Server]) -> None:
    """A server that is slow and in time fails nobody; with least_connections it gets less to do."""
    sidecar = _start(live, three, "balance = least_connections")
    with Load(live.port, RATE, 64) as load:
        _use(three[0])
        three[0].tell("/mode/slow/0.05")
        before = [server.size for server in three]
        _use(three[1], 300)
        grown = [server.size - size for server, size in zip(three, before, strict=True)]
    assert _explained(load.report, sidecar) == {}
    assert grown[0] < grown[1] / 2
    assert repeated(three, "") == []


def test_break_off(live: Live, three: list[Server]) -> None:
    """A body that ends too early cannot be taken back: the client's ends too, and the log says why."""
    sidecar = _start(live, three)
    victim, other = three[1:]
    with Load(live.port, RATE) as load:
        _use(victim)
        victim.tell("/mode/cut")
        _use(other, 100)
        victim.tell("/mode/well")
        _use(victim)
    print(load.report)
    assert {what for _, what in load.report.failures} <= {"closed", "ConnectionResetError"}
    lines = _lines(sidecar, {each for each, _ in load.report.failures})
    assert {(line["status"], line["reason"], line["upstream"]) for line in lines.values()} == {
        (200, "response_incomplete", victim.address)
    }
    assert repeated(three, "") == []


def test_story(live: Live, tmp_path: Path) -> None:
    """One line tells all attempts; a PUT is sent again with its body, a POST only if its client says so."""
    body = b"y" * 10_000
    with servers(tmp_path, "a", "b") as (bad, good):
        sidecar = live.start(
            f"[upstream app]\nserver.a = {bad.address} max_fails=0\nserver.b = {good.address}\n"
            "[route app]\nupstream = app\n"
        )
        bad.tell("/mode/reset")
        put = ask(live.port, "/put", "PUT", body)
        assert (put.status, put.body) == (200, b"b put\n" + body)
        # The bad one's turn is every other time, as in nginx; a retry is no turn.
        assert ask(live.port, "/get").status == 200
        assert ask(live.port, "/post", "POST", body).status == 502
        assert ask(live.port, "/head", "HEAD").status == 200
        assert ask(live.port, "/key", "POST", body, Idempotency_Key="7").body == b"b key\n" + body
        lines = sidecar.wait_exchanges(5)
    lost, found = (bad.address, "connection_terminated"), (good.address, "200")
    assert {line["path"]: _story(line) for line in lines} == {
        "/put": [lost, found],
        "/get": [found],
        "/post": [lost],
        "/head": [found],
        "/key": [lost, found],
    }
