"""Which HTTP is spoken with servers and whether over TLS: names, and what cannot or does not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.addresses import SERVER_ADDRESS
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.upstream.settings import UpstreamSettings
from sidecar.upstream.trust_settings import SERVER_NAME, TrustOptions

HERE = "[upstream app]\nserver.a = app.test:8001\n"


def upstream(directory: Path, text: str, here: str = HERE) -> UpstreamSettings:
    (directory / "a.ini").write_text(here + text)
    return load(directory, [UpstreamSettings], {}).named(UpstreamSettings)["app"]


@pytest.mark.parametrize(
    ("protocol", "is_secure", "is_multiplexed"),
    [("http", False, False), ("https", True, False), ("h2c", False, True), ("h2", True, True)],
)
def test_protocols(tmp_path: Path, protocol: str, is_secure: bool, is_multiplexed: bool) -> None:
    own = upstream(tmp_path, f"protocol = {protocol}\n")
    assert (own.is_secure, own.is_multiplexed) == (is_secure, is_multiplexed)
    assert own.tls_verify


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("App.Test:443", "app.test"),
        ("app.test.:443", "app.test"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("[2001:DB8::7]:443", "2001:db8::7"),
        ("srv:_https._tcp.app.test", "app.test"),
        ("unix:/run/app.sock", ""),
    ],
)
def test_the_name_that_a_certificate_is_for(server: str, name: str) -> None:
    address = SERVER_ADDRESS.parse(server)
    assert TrustOptions().server_name(address) == name
    assert TrustOptions(tls_server_name="own.test").server_name(address) == "own.test"


@pytest.mark.parametrize(
    ("text", "value"),
    [("App.Test", "app.test"), ("192.0.2.7", "192.0.2.7"), ("2001:DB8::0:7", "2001:db8::7")],
)
def test_a_server_name(text: str, value: str) -> None:
    assert SERVER_NAME.parse(text) == value
    assert SERVER_NAME.parse(SERVER_NAME.show(value)) == value


@pytest.mark.parametrize("text", ["app.test:443", "*.test", "-x.test", "a..b", "https://app.test", "a" * 64])
def test_no_server_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"write app\.example or an IP address alone"):
        SERVER_NAME.parse(text)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("protocol = h3\n", "protocol", "h3"),
        ("protocol = https\ntls_certificate = /a.pem\n", "tls_certificate", "add tls_key = FILE"),
        ("protocol = https\ntls_key = /a.pem\n", "tls_key", "add tls_certificate = FILE"),
        (
            "protocol = h2\nserver.b = unix:/run/b.sock\n",
            "server.b",
            "unix:/run/b.sock has no name to verify a certificate for: write tls_server_name = NAME",
        ),
        ("health_check = grpc\n", "health_check", "grpc needs HTTP/2: write protocol = h2c, or h2 with TLS"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, key: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        upstream(tmp_path, text)
    (mistake,) = caught.value.mistakes
    assert f"[upstream app] {key}: " in mistake
    assert message in mistake


@pytest.mark.parametrize("more", ["tls_verify = off\n", "tls_server_name = app.test\n"])
def test_a_socket_needs_no_name_when_there_is_one_or_nobody_looks(tmp_path: Path, more: str) -> None:
    upstream(tmp_path, f"protocol = https\nserver.b = unix:/run/b.sock\n{more}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("protocol = https\ntls_ca = /ca.pem\ntls_server_name = a.test\n", {}),
        ("protocol = h2\ntls_certificate = /c.pem\ntls_key = /k.pem\n", {}),
        ("tls_ca = /ca.pem\n", {"tls_ca": "does nothing with protocol = http: write protocol = https or h2"}),
        (
            "protocol = h2c\ntls_verify = off\n",
            {"tls_verify": "does nothing with protocol = h2c: write protocol = h2"},
        ),
        (
            "protocol = https\ntls_verify = off\ntls_ca = /ca.pem\n",
            {"tls_ca": "verifies nothing with tls_verify = off: remove one of them"},
        ),
    ],
)
def test_what_does_nothing(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    found = dict(upstream(tmp_path, text).idle())
    assert found.keys() == expected.keys()
    for key, start in expected.items():
        assert found[key].startswith(start)
