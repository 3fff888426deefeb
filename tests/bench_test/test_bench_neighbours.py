"""Every neighbour speaks what a row does with the same certificate, and says what it was built without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.certificate import NAME, Certificate
from tests.bench.neighbours import PROXIES, Caddy, Haproxy, Sidecar
from tests.bench.nginx import Nginx
from tests.bench.proxy import Place, Proxy
from tests.bench.rows import PLAIN, Wire

CERTIFICATE = Certificate(Path("/c/ca.pem"), Path("/c/site.pem"), Path("/c/site.key"), Path("/c/site.both"))
BOTH = Wire(tls=True, http2=True, upstream_tls=True)


@pytest.fixture(autouse=True)
def executables(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are installed, as far as their configuration is concerned."""
    monkeypatch.setattr(Proxy, "executable", lambda self: f"/bin/{self.name}")
    monkeypatch.setattr(Proxy, "told", lambda self, option: "nginx version: nginx/1.25.1")


def written(proxy: Proxy, folder: Path, wire: Wire) -> str:
    """All that a proxy writes for a wire."""
    proxy.launch(Place(folder, 1001, 1002, CERTIFICATE, wire))
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_the_certificate_and_the_authority_are_where_the_wire_asks_for_them(proxy: Proxy, tmp_path: Path):
    text = written(proxy, tmp_path, BOTH)
    assert "/c/site." in text
    assert "/c/ca.pem" in text
    assert NAME in text


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_without_tls_there_is_none(proxy: Proxy, tmp_path: Path):
    text = written(proxy, tmp_path, PLAIN)
    assert "/c/" not in text
    assert "http2" not in text
    assert "h2" not in text


def test_sidecar_has_one_certificate_and_verifies_its_upstream(tmp_path: Path):
    text = written(Sidecar(), tmp_path, BOTH)
    assert "bind = 127.0.0.1:1001\ntls = site\nhttp2 = on\n" in text
    assert "[certificate site]\ncertificate = /c/site.pem\nkey = /c/site.key\n" in text
    assert "protocol = https\ntls_ca = /c/ca.pem\ntls_server_name = localhost\n" in text


@pytest.mark.parametrize(
    ("version", "told"),
    [("1.22.1", "listen 127.0.0.1:1001 ssl http2 backlog=4096;"), ("1.25.1", "http2 on;")],
)
def test_nginx_is_told_of_http_2_in_the_way_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, told: str
):
    monkeypatch.setattr(Proxy, "told", lambda self, option: f"nginx version: nginx/{version}")
    text = written(Nginx(), tmp_path, BOTH)
    assert told in text
    assert text.count("http2") == 1
    assert "keepalive_requests" in text


def test_haproxy_knows_http_2_without_tls_beforehand(tmp_path: Path):
    assert "backlog 4096 proto h2\n" in written(Haproxy(), tmp_path, Wire(http2=True))


@pytest.mark.parametrize(
    ("wire", "told"), [(PLAIN, "h1"), (Wire(http2=True), "h1 h2c"), (Wire(tls=True, http2=True), "h1 h2")]
)
def test_caddy_speaks_what_the_row_does(tmp_path: Path, wire: Wire, told: str):
    assert f"protocols {told}\n" in written(Caddy(), tmp_path, wire)


def test_a_build_without_what_the_row_speaks_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Proxy, "told", lambda self, option: "--with-http_ssl_module -OPENSSL")
    assert Nginx().unable(PLAIN) is None
    assert Nginx().unable(Wire(tls=True)) is None
    assert Nginx().unable(BOTH) == "it was built without http_v2_module"
    assert Haproxy().unable(Wire(http2=True)) is None
    assert Haproxy().unable(Wire(upstream_tls=True)) == "it was built without OpenSSL"
    assert Sidecar().unable(BOTH) is None
