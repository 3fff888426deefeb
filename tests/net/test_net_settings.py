"""Listener sections: bounds, defaults and what only the options together show."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.addresses import Address
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.net.https import Hsts
from sidecar.net.settings import ListenerSettings


def listener(directory: Path, text: str) -> ListenerSettings:
    (directory / "a.ini").write_text(f"[listener public]\n{text}")
    return load(directory, [ListenerSettings], {}).named(ListenerSettings)["public"]


def test_only_bind_must_be_given(tmp_path: Path) -> None:
    settings = listener(tmp_path, "bind = 0.0.0.0:8080, [::]:8080\n  unix:/run/a.sock\n")
    assert settings == ListenerSettings(
        bind=(Address("0.0.0.0", 8080), Address("::", 8080), Address(path="/run/a.sock"))
    )
    assert (settings.header_timeout, settings.body_timeout, settings.write_timeout) == (15.0, 60.0, 60.0)
    assert (settings.idle_timeout, settings.proxy_protocol, settings.trusted_proxies) == (75.0, "off", ())
    assert (settings.protocol, settings.tls, settings.http2) == ("http", (), True)
    assert (settings.max_header_size, settings.max_headers, settings.max_target_size) == (32768, 100, 8192)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: [listener public] bind: is required: Addresses to listen on: "),
        ("bind = a:1, a:1\n", "2: [listener public] bind: a:1 is listed twice: keep one"),
        ("bind = unix:/a, unix:/a\n", "2: [listener public] bind: unix:/a is listed twice: keep one"),
        ("bind = fd:web, fd:web\n", "2: [listener public] bind: fd:web is listed twice: keep one"),
        ("bind = a:1\nmax_headers = 0\n", "3: [listener public] max_headers: 0 is not between 1 and 1000"),
        (
            "bind = a:1\nmax_header_size = 2m\n",
            "3: [listener public] max_header_size: '2m' is not between 1k and 1m",
        ),
        (
            "bind = a:1\nmax_header_size = 4k\n",
            "1: [listener public] max_target_size: is larger than max_header_size",
        ),
        ("bind = a:1\nprotocol = udp\n", "3: [listener public] protocol: 'udp' is not one of http, tcp"),
        ("bind = a:1\nidle_timeout = off\n", "3: [listener public] idle_timeout: 'off' is not a duration"),
        ("bind = a:1\ntls = a, a\n", "3: [listener public] tls: a certificate is listed twice: keep one"),
        ("bind = a:1\nhttps_redirect = 0\n", "3: [listener public] https_redirect: '0' is not a port"),
        ("bind = a:1\ntls = a\nhsts = 1\n", "4: [listener public] hsts: '1' is not an age: write off"),
        ("bind = a:1\nhttp2 = maybe\n", "3: [listener public] http2: 'maybe' is neither on nor off"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        listener(tmp_path, text)
    (mistake,) = error.value.mistakes
    assert mistake.startswith(f"{tmp_path}/a.ini:{message}")


def test_port_0_may_be_listed_twice(tmp_path: Path) -> None:
    assert len(listener(tmp_path, "bind = a:0, a:0\n").bind) == 2


def test_what_is_about_https_is_off(tmp_path: Path) -> None:
    settings = listener(tmp_path, "bind = a:1\n")
    assert (settings.https_redirect, settings.hsts, settings.client_certificate_header) == (0, None, "off")
    settings = listener(tmp_path, "bind = a:1\ntls = a\nhsts = 1y\nclient_certificate_header = client-cert\n")
    assert (settings.hsts, settings.client_certificate_header) == (Hsts(31_536_000), "client-cert")


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("https_redirect = on\n", []),
        ("tls = a\nhsts = 1y\nclient_certificate_header = client-cert\n", []),
        ("tls = a\nhttps_redirect = on\n", ["https_redirect"]),
        ("hsts = 1y\nclient_certificate_header = client-cert\n", ["hsts", "client_certificate_header"]),
    ],
)
def test_what_does_nothing_with_tls_or_without(tmp_path: Path, text: str, idle: list[str]) -> None:
    assert [key for key, _ in listener(tmp_path, f"bind = a:1\n{text}").idle()] == idle
