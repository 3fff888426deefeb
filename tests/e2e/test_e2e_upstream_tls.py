"""TLS and HTTP/2 towards servers: a real nginx and nghttpd, certificates of all kinds, renewals, ends."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.certificates import Authority, Files, replace
from tests.support.differential_proxies import nginx
from tests.support.live import Live, Sidecar, free_port, tell, until
from tests.support.peers import Stream, ask
from tests.support.programs import program

#: Bytes of the large file.
LARGE: Final = 3_000_000
#: Renewals of what an upstream believes servers by, under load.
RENEWALS: Final = 30


class Servers:
    """An nginx with servers over TLS, each on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.stranger = Authority(), Authority()
        self.ca = folder / "ca.pem"
        replace(self.ca, self.authority.pem)
        self.www = folder / "www"
        self.www.mkdir()
        self.large = os.urandom(LARGE)
        (self.www / "large").write_bytes(self.large)
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        issue = self.authority.issue
        client = f"ssl_client_certificate {self.ca}; ssl_verify_client on;"
        self.ports: dict[str, int] = {}
        self._blocks: list[str] = []
        self._add("good", issue("app.test", "127.0.0.1"))
        self._add("rsa", issue("app.test", "127.0.0.1", rsa=True))
        self._add("wrong", issue("other.test"))
        self._add("expired", issue("app.test", "127.0.0.1", not_after=past))
        self._add("stranger", self.stranger.issue("app.test", "127.0.0.1"))
        self._add("careful", issue("app.test", "127.0.0.1"), client)
        self._add("http2", issue("app.test", "127.0.0.1"), "http2 on;")
        self.client = Files(folder, issue("me@test"), "client-")

    def _add(self, name: str, issued: Any, more: str = "") -> None:
        files = Files(self.folder, issued, f"{name}-")
        self.ports[name] = port = free_port()
        self._blocks.append(
            f"server {{ listen 127.0.0.1:{port} ssl; {more} root {self.www};"
            f" ssl_certificate {files.certificate}; ssl_certificate_key {files.key};"
            ' location = /tls { return 200 "$ssl_server_name|$ssl_protocol|$server_protocol"; } }'
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with nginx(" ".join(self._blocks), self.ports["good"], self.folder):
            yield

    def upstream(self, name: str, server: str, *lines: str) -> str:
        """An upstream and its route, chosen by the host NAME.test."""
        own = {"tls_ca": f"{self.ca}", "protocol": "https"}
        own |= {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        options = "".join(f"{key} = {value}\n" for key, value in own.items())
        return (
            f"[upstream {name}]\nserver.a = 127.0.0.1:{self.ports[server]}\n{options}"
            f"[route {name}]\nhost = {name}.test\nupstream = {name}\n"
        )


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Servers]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    made = Servers(folder)
    with made.running():
        yield made


def get(live: Live, name: str, path: str = "/tls") -> tuple[int, dict[str, str], bytes]:
    """(status, fields, body) of the upstream of that name."""
    answer = ask(live.port, path, Host=f"{name}.test")
    return answer.status, answer.fields, answer.body


def test_a_server_is_verified_and_asked_for_by_name(live: Live, there: Servers) -> None:
    live.start(
        there.upstream("address", "good")
        + there.upstream("named", "good", "tls_server_name = app.test")
        + there.upstream("rsa", "rsa")
    )
    assert get(live, "address")[2].startswith(b"|TLSv1.")
    assert get(live, "named")[2].startswith(b"app.test|TLSv1.")
    assert get(live, "rsa")[0] == 200


@pytest.mark.parametrize("name", ["wrong", "expired", "stranger"])
def test_a_certificate_that_is_not_good_is_its_own_failure(live: Live, there: Servers, name: str) -> None:
    sidecar = live.start(
        there.upstream("bad", name) + there.upstream("careless", name, "tls_ca =", "tls_verify = off")
    )
    status, fields, _ = get(live, "bad")
    assert status == 502
    assert fields["proxy-status"] == 'sidecar; error=tls_certificate_error; details="tls_verify"'
    (line,) = sidecar.wait_exchanges(1)
    assert (line["reason"], line["attempts"][0]["reason"]) == ("tls_verify", "tls_verify")
    assert get(live, "careless")[0] == 200


def test_another_server_is_asked_when_one_cannot_be_trusted(live: Live, there: Servers) -> None:
    text = there.upstream("app", "wrong").replace(
        "\ntls_ca", f"\nserver.b = 127.0.0.1:{there.ports['good']}\ntls_ca", 1
    )
    sidecar = live.start(text)
    assert [get(live, "app")[0] for _ in range(4)] == [200] * 4
    lines = sidecar.wait_exchanges(4)
    assert any(attempt.get("reason") == "tls_verify" for line in lines for attempt in line["attempts"])


def test_a_server_that_wants_a_certificate_gets_it(live: Live, there: Servers) -> None:
    pair = (f"tls_certificate = {there.client.certificate}", f"tls_key = {there.client.key}")
    live.start(there.upstream("bare", "careful") + there.upstream("known", "careful", *pair))
    assert get(live, "bare")[0] == 400
    assert get(live, "known")[0] == 200


def test_bodies_and_kept_connections_over_tls(live: Live, there: Servers) -> None:
    sidecar = live.start(there.upstream("app", "good") + there.upstream("two", "http2", "protocol = h2"))
    for name in ("app", "two"):
        for _ in range(3):
            status, _, body = get(live, name, "/large")
            assert (status, hashlib.sha256(body).digest()) == (200, hashlib.sha256(there.large).digest())
    lines = sidecar.wait_exchanges(6)
    assert [line["attempts"][0]["reused"] for line in lines] == [False, True, True] * 2


def test_http_2_is_chosen_by_alpn_and_one_that_has_none_is_told(live: Live, there: Servers) -> None:
    sidecar = live.start(
        there.upstream("two", "http2", "protocol = h2") + there.upstream("none", "good", "protocol = h2")
    )
    assert get(live, "two")[2].endswith(b"|HTTP/2.0")
    status, fields, _ = get(live, "none")
    assert (status, "http_protocol_error" in fields["proxy-status"]) == (502, True)
    lines = sidecar.wait_exchanges(2)
    assert lines[1]["reason"] == "not_http2"


def test_a_probe_says_what_is_wrong_with_a_certificate(live: Live, there: Servers) -> None:
    live.listen()
    names = ("good", "wrong", "expired", "stranger")
    live.conf.write("10.ini", "".join(there.upstream(name, name) for name in names))
    done = tell("check", "--probe", "--conf", str(live.conf.path))
    lines = [line for line in done.stdout.splitlines() if line.startswith("upstream ")]
    assert done.returncode == 1
    assert ": ok, " in lines[0]
    assert "tls_verify: IP address mismatch" in lines[1]
    assert "tls_verify: certificate has expired" in lines[2]
    assert "tls_verify: unable to get local issuer" in lines[3]


def test_checks_speak_tls(live: Live, there: Servers) -> None:
    checks = (
        "health_check = GET /tls",
        "health_interval = 200ms",
        "health_timeout = 200ms",
        "health_fall = 1",
    )
    sidecar = live.start(
        there.upstream("good", "good", *checks)
        + there.upstream("two", "http2", "protocol = h2", *checks)
        + there.upstream("wrong", "wrong", *checks)
        + there.upstream("tcp", "wrong", "health_check = tcp", *checks[1:])
    )
    down = sidecar.wait_event("server_down", 2)
    assert sorted((event["upstream"], event["reason"]) for event in down) == [
        ("tcp", "tls_verify"),
        ("wrong", "tls_verify"),
    ]
    assert get(live, "good")[0] == get(live, "two")[0] == 200


def test_nobody_looks_at_certificates_only_with_a_warning(live: Live, there: Servers) -> None:
    live.listen()
    live.conf.write("10.ini", there.upstream("app", "good", "tls_ca =", "tls_verify = off"))
    done = tell("check", "--conf", str(live.conf.path))
    assert done.returncode == 0
    assert "[upstream app] tls_verify: whoever stands on the way" in done.stdout + done.stderr


def test_missing_files_are_mistakes(live: Live, there: Servers) -> None:
    live.listen()
    live.conf.write("10.ini", there.upstream("app", "good", "tls_ca = /missing/ca.pem"))
    done = tell("check", "--conf", str(live.conf.path))
    assert done.returncode == 1
    assert "[upstream app] tls_ca: /missing/ca.pem: does not exist" in done.stdout + done.stderr


def test_renewed_authorities_count_at_once(live: Live, there: Servers) -> None:
    sidecar = live.start(there.upstream("app", "good"))
    assert get(live, "app")[0] == 200
    replace(there.ca, there.stranger.pem)
    sidecar.wait_event("upstream_tls_renewed")
    # Connections that were made before are not taken again.
    assert get(live, "app")[0] == 502
    there.ca.write_bytes(b"junk")
    refused = sidecar.wait_event("upstream_tls_refused", timeout=10)
    assert refused[0]["file"] == str(there.ca)
    replace(there.ca, there.authority.pem)
    sidecar.wait_event("upstream_tls_renewed", 2)
    assert get(live, "app")[0] == 200


def test_renewals_under_load_lose_nothing(live: Live, there: Servers) -> None:
    both = there.authority.pem + there.stranger.pem
    sidecar = live.start(there.upstream("app", "good") + there.upstream("two", "http2", "protocol = h2"))
    load = [
        subprocess.Popen(
            [program("h2load", "nghttp2-client"), "-D", "4", "-c", "4", "-m", "4"]
            + ["-H", f":authority: {name}.test", f"http://127.0.0.1:{live.port}/tls"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("app", "two")
    ]
    try:
        for at in range(RENEWALS):
            before = len(sidecar.events("upstream_tls_renewed"))
            replace(there.ca, both if at % 2 == 0 else there.authority.pem)
            sidecar.wait_event("upstream_tls_renewed", before + 2)
    finally:
        said = [one.communicate(timeout=60)[0] for one in load]
    for text in said:
        assert " 0 failed, 0 errored, 0 timeout" in text, text
        assert ", 0 3xx, 0 4xx, 0 5xx" in text, text


# -- nghttpd: HTTP/2 with prior knowledge


@contextlib.contextmanager
def nghttpd(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [program("nghttpd", "nghttp2-server"), "--no-tls", "-d", str(folder), *options, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _listens(port), "nghttpd listens")
        yield process
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), Stream.connect(port):
        return True
    return False


def h2c(*ports: int, more: str = "") -> str:
    servers = "".join(f"server.s{at} = 127.0.0.1:{port}\n" for at, port in enumerate(ports))
    return f"[upstream app]\nprotocol = h2c\n{servers}{more}[route app]\nupstream = app\n"


def connections(port: int) -> int:
    """How many connections stand to a port of this machine."""
    wanted = f":{port:04X}"
    return sum(
        columns[2].endswith(wanted) and columns[3] == "01"
        for columns in (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    )


def load(port: int, count: int, clients: int) -> str:
    done = subprocess.run(
        [program("h2load", "nghttp2-client"), "-n", str(count), "-c", str(clients), "-m", "10"]
        + [f"http://127.0.0.1:{port}/large"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("limit", [1, 100])
def test_many_at_once_over_as_few_connections_as_the_server_allows(
    live: Live, tmp_path: Path, limit: int
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    port = free_port()
    with nghttpd(tmp_path, port, "-m", str(limit)):
        live.start(h2c(port))
        said = load(live.port, 500, 5)
        assert "500 succeeded, 0 failed" in said, said
        assert 1 <= connections(port) <= (2 if limit == 100 else 64)


def test_a_server_that_is_killed_under_load_costs_no_get(live: Live, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1000)
    one, two = free_port(), free_port()
    with nghttpd(tmp_path, one) as first, nghttpd(tmp_path, two):
        sidecar = live.start(h2c(one, two))
        loading = subprocess.Popen(
            [program("h2load", "nghttp2-client"), "-n", "20000", "-c", "4", "-m", "4"]
            + [f"http://127.0.0.1:{live.port}/large"],
            stdout=subprocess.PIPE,
            text=True,
        )
        sidecar.wait_exchanges(500)
        first.send_signal(signal.SIGKILL)
        said = loading.communicate(timeout=60)[0]
    assert "20000 succeeded, 0 failed" in said, said


def test_a_reload_keeps_connections_and_an_end_closes_them(live: Live, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    port = free_port()
    with nghttpd(tmp_path, port):
        sidecar = live.start(h2c(port))
        assert ask(live.port, "/a").status == 200
        live.conf.write("10-test.ini", h2c(port, more="read_timeout = 7s\n"))
        sidecar.wait_event("reload_applied")
        assert ask(live.port, "/a").status == 200
        assert [line["attempts"][0]["reused"] for line in sidecar.wait_exchanges(2)] == [False, True]
        live.conf.write("10-test.ini", h2c(port, more="keepalive_timeout = 100ms\n"))
        sidecar.wait_event("reload_applied", 2)
        until(lambda: not connections(port), "the connection left")
        assert ask(live.port, "/a").status == 200
        sidecar.stop()
        until(lambda: not connections(port), "nothing is left")


def descriptors(sidecar: Sidecar) -> int:
    return len(os.listdir(f"/proc/{sidecar.pid}/fd"))


def test_clients_that_leave_cost_their_streams_alone(live: Live, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 5_000_000)
    port = free_port()
    with nghttpd(tmp_path, port):
        sidecar = live.start(h2c(port))
        assert ask(live.port, "/large").status == 200
        before = descriptors(sidecar)
        for _ in range(100):
            with Stream.connect(live.port) as stream:
                stream.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
                stream.read(1000)
        until(lambda: descriptors(sidecar) <= before, "their descriptors are given back")
        assert ask(live.port, "/large").status == 200
        assert connections(port) == 1
        last = sidecar.wait_exchanges(102)[-1]
        assert last["attempts"][0]["reused"]
