"""Hosts that are served over TLS with a certificate for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import load
from sidecar.routing.coverage import uncovered
from sidecar.settings import SECTIONS

BASE = """\
[listener public]
bind = 127.0.0.1:8443
tls = site, other
[listener private]
bind = 127.0.0.1:9443
tls = inner
[listener plain]
bind = 127.0.0.1:8080
[certificate site]
certificate = site.pem
key = site.pem
[certificate other]
certificate = other.pem
key = other.pem
[certificate inner]
certificate = inner.pem
key = inner.pem
"""
NAMES = {"site": ("shop.example", "*.shop.example"), "other": ("a.other.example",), "inner": ("inner",)}


def told(directory: Path, options: str, names: dict[str, tuple[str, ...]] | None = None) -> list[str]:
    (directory / "a.ini").write_text(f"{BASE}[route shop]\nrespond = 200\n{options}\n")
    configuration = load(directory, SECTIONS, {})
    lines = uncovered(configuration, NAMES if names is None else names)
    return [line.removeprefix(f"{directory}/a.ini:") for line in lines]


@pytest.mark.parametrize(
    "host",
    [
        "shop.example",
        "WWW.shop.example",
        "a.other.example",
        "*.shop.example",
        "*.other.example",
        "~.*[.]third[.]example",
        "192.0.2.7",
        "[2001:db8::7]",
    ],
)
def test_a_host_that_some_certificate_of_the_listener_is_for(tmp_path: Path, host: str) -> None:
    assert told(tmp_path, f"listener = public\nhost = {host}") == []


@pytest.mark.parametrize(
    "host", ["shops.example", "a.b.shop.example", "other.example", "inner", "*.third.example", "localhost"]
)
def test_a_host_that_none_is_for(tmp_path: Path, host: str) -> None:
    (line,) = told(tmp_path, f"listener = public\nhost = shop.example, {host}")
    assert line == (
        f"21: [route shop] host: no certificate of [listener public] is for {host}, and clients that "
        "check refuse another: add one to its tls, or name the listeners that the route is for"
    )


def test_a_route_of_all_listeners_is_looked_at_on_each_that_has_tls(tmp_path: Path) -> None:
    (line,) = told(tmp_path, "host = third.example")
    assert "no certificate of [listener public] and [listener private] is for third.example" in line
    (line,) = told(tmp_path, "host = shop.example")
    assert "no certificate of [listener private] is for shop.example" in line


def test_a_listener_without_tls_needs_no_certificate(tmp_path: Path) -> None:
    assert told(tmp_path, "listener = plain\nhost = third.example") == []


def test_nothing_is_said_where_the_names_of_a_certificate_are_not_known(tmp_path: Path) -> None:
    known = {"other": ("a.other.example",)}
    assert told(tmp_path, "listener = public\nhost = third.example", known) == []


def test_a_route_for_any_host_is_for_those_of_the_certificates(tmp_path: Path) -> None:
    assert told(tmp_path, "path = /") == []
