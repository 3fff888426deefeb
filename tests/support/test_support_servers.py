"""The tools of the end-to-end tests do what they say."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.support import upstream as steps
from tests.support.servers import (
    Ended,
    ScriptedUpstream,
    ask,
    client,
    closed_port,
    connect,
    free_port,
    raw_exchange,
    start_sidecar,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_without_a_script_every_request_is_answered() -> None:
    with ScriptedUpstream() as upstream, client(upstream.address) as stream:
        for _ in range(2):
            stream.send(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
            assert stream.read_answer().status == 200
    assert upstream.received == [b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi" * 2]


def test_each_connection_plays_its_script_and_the_last_one_serves_the_rest() -> None:
    with ScriptedUpstream([steps.read_head, b"first"], [steps.read(3), b"next"]) as upstream:
        assert [raw_exchange(upstream.address, GET) for _ in range(3)] == [b"first", b"next", b"next"]


def test_a_script_waits_for_the_test_and_tells_it() -> None:
    go, come = threading.Event(), threading.Event()
    with (
        ScriptedUpstream([steps.tell(come), steps.wait(go), b"x"]) as upstream,
        client(upstream.address) as one,
    ):
        assert come.wait(5)
        go.set()
        assert one.read(1) == b"x"


@pytest.mark.parametrize("last", [steps.close, steps.reset])
def test_the_end_of_a_connection_is_seen(last: steps.Step) -> None:
    with ScriptedUpstream([steps.read_head, last]) as upstream, client(upstream.address) as stream:
        stream.send(GET)
        with pytest.raises(Ended):
            stream.read(1)


def test_a_step_that_fails_fails_the_test() -> None:
    def fail(_: object) -> None:
        raise AssertionError("no")

    with pytest.raises(AssertionError, match="no"), ScriptedUpstream([fail]) as upstream:
        raw_exchange(upstream.address, b"")


def test_answers_of_every_framing() -> None:
    script = [
        steps.read_head,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + steps.respond(b"length", "404 Not Found", "A: 1", "a: 2"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: r\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    ]
    with ScriptedUpstream(script) as upstream, client(upstream.address) as stream:
        stream.send(GET)
        answers = [stream.read_answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [103, 404, 200, 304, 200]
    assert [answer.body for answer in answers] == [b"", b"length", b"abc", b"", b"until the end"]
    assert answers[1].header("a") == "1, 2"
    assert answers[1].header("b") is None


def test_half_closed_and_unix(tmp_path: Path) -> None:
    with ScriptedUpstream([steps.read_all, b"all"], address=f"unix:{tmp_path}/u") as upstream:
        assert raw_exchange(upstream.address, b"a", b"b", end=True) == b"all"
        assert upstream.await_connections(1).received == b"ab"


def test_ports_nobody_listens_on() -> None:
    with closed_port() as address, pytest.raises(ConnectionRefusedError):
        connect(address)
    assert 0 < free_port() < 65536


FAKE = """
import json, signal, sys
from pathlib import Path
conf = Path(sys.argv[sys.argv.index("--conf") + 1])
def tell(**fields):
    print(json.dumps(fields), file=sys.stderr, flush=True)
text = (conf / "test.ini").read_text()
if text == "wrong":
    sys.exit("test.ini: wrong")
signal.signal(signal.SIGTERM, lambda *_: (tell(event="stopped"), sys.exit(int(text))))
tell(event="listener_bound", listener="public", address="127.0.0.1:1")
tell(event="started")
print(json.dumps({"status": 200, "path": "/"}), flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setenv("SIDECAR_COMMAND", f"{sys.executable} {tmp_path}/fake.py")


@pytest.mark.usefixtures("fake")
def test_a_sidecar_is_started_watched_and_ended() -> None:
    with start_sidecar("0") as sidecar:
        assert sidecar.address("public") == "127.0.0.1:1"
        assert sidecar.access(status=200)["path"] == "/"
        sidecar.write("b.ini", "x")
        assert (sidecar.conf / "b.ini").read_text() == "x"
    assert sidecar.events("stopped")
    assert not sidecar.conf.exists()


@pytest.mark.usefixtures("fake")
def test_a_sidecar_that_fails_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="wrong"):
        start_sidecar("wrong")
    with pytest.raises(AssertionError, match="exit status 3"), start_sidecar("3"):
        pass


def test_ask_uses_a_connection_of_its_own() -> None:
    with ScriptedUpstream() as upstream:
        assert ask(upstream.address, GET).status == 200
