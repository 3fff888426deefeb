"""Copies of requests for a shadow: they arrive whole, and whatever the shadow does, nobody notices."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.fleet import Load, Server, servers
from tests.support.live import Live, Sidecar, until
from tests.support.peers import Answering, Message, Stream, ask, response

CONFIG: Final = """
[upstream app]
server.a = {app}
[upstream shadow]
server.s = {shadow}
{options}
[route app]
upstream = app
mirror = shadow {share}
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Server]]:
    with servers(tmp_path, "app", "shadow") as started:
        yield started


def _start(live: Live, app: str, shadow: str, share: str = "", options: str = "") -> Sidecar:
    return live.start(CONFIG.format(app=app, shadow=shadow, share=share, options=options))


def test_copies_are_whole(live: Live) -> None:
    """Method, target, fields and body are those of the original; the answer that counts is the original's."""
    seen: list[Message] = []

    def keep(message: Message) -> bytes:
        seen.append(message)
        return response(b"the shadow's", "500 No")

    def serve(message: Message) -> bytes:
        seen.append(message)
        return response(b"the app's " + message.body)

    with Answering(serve) as app, Answering(keep) as shadow:
        sidecar = _start(live, app.address, shadow.address)
        with Stream.connect(live.port) as client:
            answer = client.ask("POST", "/a?b=c", b"x" * 9_000, X_Field="one")
            assert (answer.status, answer.body) == (200, b"the app's " + b"x" * 9_000)
            until(lambda: len(seen) == 2, "the copy")
            assert client.ask("GET", "/get").status == 200
            until(lambda: len(seen) == 4, "the other copy")
        one, other = sorted(seen, key=lambda message: message.start)[2:]
        assert one == other
        assert (one.start, one.body, one.fields["x-field"]) == ("POST /a?b=c HTTP/1.1", b"x" * 9_000, "one")
        lines = sidecar.wait_exchanges(2)
    assert [line["upstream"] for line in lines] == [app.address] * 2


def test_share(live: Live, pair: list[Server]) -> None:
    """Every fourth, and the large ones are not copied."""
    app, shadow = pair
    _start(live, app.address, shadow.address, "25%")
    with Stream.connect(live.port) as client:
        for number in range(40):
            assert client.ask("GET", f"/{number}").status == 200
        until(lambda: len(shadow.executed()) >= 10, "the copies")
        # More than is kept of a body.
        for _ in range(8):
            assert client.ask("POST", "/large", b"z" * 100_000).status == 200
        for _ in range(4):
            assert client.ask("GET", "/last").status == 200
        until(lambda: "last" in shadow.executed(), "a copy after the large ones")
    assert shadow.executed() == [str(number) for number in range(3, 40, 4)] + ["last"]


def _silent(shadow: Server) -> None:
    shadow.tell("/mode/silent")


def _garbage(shadow: Server) -> None:
    shadow.tell("/mode/garbage")


def _cut(shadow: Server) -> None:
    shadow.tell("/mode/cut")


def _frozen(shadow: Server) -> None:
    shadow.signal(signal.SIGSTOP)


@pytest.mark.alone
@pytest.mark.parametrize("trouble", [_silent, _garbage, _cut, _frozen, Server.kill])
def test_shadow_in_trouble(live: Live, pair: list[Server], trouble: Callable[[Server], None]) -> None:
    """Under load no request fails or waits for it; when the shadow is well again it gets copies again."""
    app, shadow = pair
    sidecar = _start(live, app.address, shadow.address, "", "read_timeout = 2s")
    with Load(live.port, 1000, 16) as load:
        until(lambda: shadow.size > 10 * 100, "copies")
        trouble(shadow)
        before = app.size
        until(lambda: app.size > before + 10 * 300, "some time of it")
        shadow.kill()
        shadow.start()
        before = shadow.size
        until(lambda: shadow.size > before + 10 * 100, "copies again", 10)
    print(load.report)
    assert load.report.failures == []
    assert load.report.max_ms < 1000
    assert len(app.executed()) == load.report.sent
    assert sidecar.complaints() == []
    assert sidecar.events("task_died") == []
    assert ask(live.port, "/after").status == 200
