"""What the process says of itself to who asks: as Kubernetes probes it, and as small clients do."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.dns import DnsServer
from tests.support.heirs import Line
from tests.support.live import Live, Sidecar, free_port, tell, until
from tests.support.peers import Accepting, Stream, ask, request
from tests.support.programs import program

ADMIN: Final = "[sidecar]\nadmin = 127.0.0.1:0\n"
HELLO: Final = "[route hello]\npath = /hello\nrespond = 200 hello\n"
APP: Final = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"


def _port(sidecar: Sidecar, count: int = 1) -> int:
    """Where the process is asked, which the system chose."""
    bound = [
        event for event in sidecar.wait_event("listener_bound", count + 1) if event["listener"] == "admin"
    ]
    return int(bound[-1]["address"].rpartition(":")[2])


def _ready(where: int | str, query: str = "") -> tuple[int, list[str]]:
    answer = ask(where, f"/readyz{query}")
    return answer.status, answer.body.decode().splitlines()


def test_a_name_that_nobody_knows_yet_is_said_and_fails_nothing(live: Live) -> None:
    """The process is ready, and says what it cannot serve; when the name appears it does not any more."""
    with DnsServer() as dns, Accepting() as app:
        port = app.address.rpartition(":")[2]
        sidecar = live.start(
            f"{ADMIN}resolver = {dns.address}\n{APP.format(f'api.test:{port}')}{HELLO}",
        )
        admin = _port(sidecar)
        status, lines = _ready(admin)
        assert status == 200
        (said,) = [line for line in lines if not line.startswith("[+]")][:-1]
        assert said == f"[!]names not resolved yet: api.test:{port}: no such name (NXDOMAIN) (upstream app)"
        assert lines[-1] == "readyz check passed"
        assert ask(live.port, "/hello").body == b"hello"
        dns.set("api.test", "A", "127.0.0.1", ttl=60)
        until(lambda: _ready(admin) == (200, ["ok"]), "the name is known")


def test_stop_fails_readiness_at_once_and_requests_go_on(live: Live) -> None:
    """So that Kubernetes stops sending before the process stops serving; it lives until its end."""
    sidecar = live.start(f"{ADMIN}drain_delay = 60s\n{HELLO}")
    admin = _port(sidecar)
    assert _ready(admin) == (200, ["ok"])
    with Stream.connect(admin) as kept:
        assert kept.ask("GET", "/readyz").status == 200
        sidecar.signal(signal.SIGTERM)
        sidecar.wait_event("draining")
        answer = kept.ask("GET", "/readyz")
        assert (answer.status, answer.body.splitlines()[0]) == (503, b"[-]draining")
    for _ in range(3):
        assert ask(live.port, "/hello").body == b"hello"
        assert _ready(admin)[0] == 503
        assert ask(admin, "/livez").body == b"ok"


def test_it_is_asked_until_what_is_in_flight_is_done(live: Live) -> None:
    """The public listener is gone, a response is on its way, and the process still answers; then it ends."""
    with Accepting() as app:
        sidecar = live.start(ADMIN + APP.format(app.address))
        admin = _port(sidecar)
        with Stream.connect(live.port) as slow, Stream.connect(admin) as kept:
            slow.send(request("GET", "/slow"))
            with app.accept() as server:
                server.read_message()
                sidecar.signal(signal.SIGTERM)
                sidecar.wait_event("listener_closed")
                assert kept.ask("GET", "/livez").body == b"ok"
                assert _ready(admin)[0] == 503
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                assert slow.read_message().body == b"ok"
            # The probe's connection keeps nothing alive.
            assert sidecar.wait_exit() == 0
            assert kept.is_ended()
    assert [event["listener"] for event in sidecar.events("listener_closed")] == ["public", "admin"]
    assert [line["path"] for line in sidecar.exchanges()] == ["/slow"]


def test_a_process_full_of_clients_is_still_asked(live: Live) -> None:
    sidecar = live.start(f"{ADMIN}max_connections = 2\n{HELLO}")
    admin = _port(sidecar)
    with Stream.connect(live.port) as one, Stream.connect(live.port) as other:
        assert one.ask("GET", "/hello").status == other.ask("GET", "/hello").status == 200
        sidecar.wait_event("accept_paused")
        assert [_ready(admin)[0] for _ in range(5)] == [200] * 5


def test_a_reload_that_is_refused_is_said_until_it_is_mended(live: Live) -> None:
    sidecar = live.start(ADMIN + HELLO)
    admin = _port(sidecar)
    live.conf.write("20-bad.ini", "[upstream bad]\nserver.a = nowhere\n")
    sidecar.wait_event("reload_refused")
    status, lines = _ready(admin)
    assert status == 200
    (said,) = [line for line in lines if line.startswith("[!]")]
    assert said.startswith(
        f"[!]reload refused: {live.conf.path}/20-bad.ini:2: [upstream bad] server.a: 'nowhere'"
    )
    live.conf.remove("20-bad.ini")
    until(lambda: _ready(admin) == (200, ["ok"]), "the mistake is gone")


def test_servers_that_fail_their_checks_are_said(live: Live) -> None:
    port = free_port()
    health = "health_check = tcp\nhealth_interval = 100ms\nhealth_timeout = 100ms\nhealth_fall = 1\n"
    sidecar = live.start(
        f"{ADMIN}[upstream app]\nserver.a = 127.0.0.1:{port}\n{health}[route a]\nupstream = app\n"
    )
    admin = _port(sidecar)
    line = f"[!]upstreams without a usable server: app (127.0.0.1:{port} has not passed its checks)"
    until(lambda: line in _ready(admin)[1], "the check has failed")
    assert _ready(admin)[0] == 200


def test_a_reload_switches_it_on_and_off(live: Live) -> None:
    sidecar = live.start(HELLO)
    port = free_port()
    live.conf.write("20-admin.ini", f"[sidecar]\nadmin = 127.0.0.1:{port}\n")
    sidecar.wait_event("reload_applied")
    assert _ready(port) == (200, ["ok"])
    live.conf.write("20-admin.ini", "[sidecar]\nadmin = off\n")
    sidecar.wait_event("reload_applied", 2)
    with pytest.raises(ConnectionRefusedError):
        _ready(port)


def test_an_upgrade_hands_it_on(live: Live) -> None:
    """Nobody who asks meanwhile meets a closed door or hears that the process drains."""
    live.listen()
    port = free_port()
    live.conf.write("10-test.ini", f"[sidecar]\nadmin = 127.0.0.1:{port}\n{HELLO}")
    line = Line(live)
    first = line.serving()
    answers = [_ready(port)]
    heir = line.upgrade()
    assert heir != first
    while not line.events("stopped"):
        answers.append(_ready(port))
    assert set(map(str, answers)) == {str((200, ["ok"]))}
    assert _ready(port) == (200, ["ok"])


def test_a_socket_file_is_asked_and_goes_with_the_process(live: Live) -> None:
    path = live.folder / "admin.sock"
    sidecar = live.start(f"[sidecar]\nadmin = unix:{path}\n{HELLO}")
    assert _ready(str(path)) == (200, ["ok"])
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait_exit() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("ask_with", "end"),
    [
        (b"GET /readyz HTTP/1.0\r\n\r\n", b"\r\n\r\nok"),
        (b"HEAD /readyz HTTP/1.0\r\n\r\n", b"\r\n\r\n"),
        (
            b"GET /livez HTTP/1.1\r\nHost: 10.1.2.3:9901\r\nUser-Agent: kube-probe/1.34\r\n"
            b"Connection: close\r\n\r\n",
            b"\r\n\r\nok",
        ),
        (
            b"GET /readyz HTTP/1.0\r\nHost: localhost\r\nUser-Agent: Wget\r\nConnection: close\r\n\r\n",
            b"\r\n\r\nok",
        ),
    ],
)
def test_small_clients_get_a_whole_answer_and_its_end(live: Live, ask_with: bytes, end: bytes) -> None:
    """HTTP/1.0 without a Host, as busybox and load balancers ask, and what the kubelet sends."""
    admin = _port(live.start(ADMIN + HELLO))
    with Stream.connect(admin) as stream:
        stream.send(ask_with)
        answer = stream.read_all()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(end)


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_curl_asks_in_its_ways(live: Live, version: str) -> None:
    admin = _port(live.start(ADMIN + HELLO))
    curl = [program("curl"), "-sS", "--max-time", "10", version]
    asked = [*curl, "-f", f"http://127.0.0.1:{admin}/readyz", "-H", "Accept: application/json"]
    done = subprocess.run(asked, capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert (told["status"], {one["status"] for one in told["checks"]}) == ("ok", {"ok"})
    other = subprocess.run(
        [*curl, "-w", "%{http_code}", "-o", "/dev/null", f"http://127.0.0.1:{admin}/other"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert other.stdout == b"404"


def test_routes_and_the_access_log_know_nothing_of_it(live: Live) -> None:
    sidecar = live.start(f"{ADMIN}[route all]\npath_prefix = /\nrespond = 200 mine\n")
    admin = _port(sidecar)
    assert ask(live.port, "/readyz").body == b"mine"
    assert ask(admin, "/").status == 404
    assert ask(admin, "/readyz", "POST", b"x").status == 405
    assert ask(live.port, "/last").body == b"mine"
    assert [line["path"] for line in sidecar.wait_exchanges(2)] == ["/readyz", "/last"]


def test_check_refuses_an_address_that_a_listener_has(tmp_path: Path) -> None:
    file = tmp_path / "a.ini"
    file.write_text("[sidecar]\nadmin = 127.0.0.1:8080\n[listener public]\nbind = 0.0.0.0:8080\n" + HELLO)
    done = tell("check", "--conf", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"{file}:2: [sidecar] admin: 127.0.0.1:8080 cannot be bound beside 0.0.0.0:8080"
    )
