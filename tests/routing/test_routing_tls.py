"""Conditions about TLS as they are written: what is a mistake, what is normalised, where they never match."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.net.tls_info import FACTS
from sidecar.routing.check import build, check
from sidecar.routing.settings import RouteSettings
from sidecar.routing.tls import ABOUT_CLIENTS, NAMES, mistake, normal
from sidecar.routing.values import WANTED
from sidecar.settings import SECTIONS

BASE = """\
[certificate plain]
certificate = a.pem
key = a.key
[certificate mutual]
certificate = b.pem
key = b.key
client_ca = ca.pem
verify_client = optional
[listener http]
bind = 127.0.0.1:80
[listener https]
bind = 127.0.0.1:443
tls = plain
[listener clients]
bind = 127.0.0.1:8443
tls = plain, mutual
"""


def conf(directory: Path, text: str, base: str = BASE) -> Configuration:
    (directory / "0.ini").write_text(base)
    (directory / "a.ini").write_text(text)
    return load(directory, SECTIONS, {})


def test_routes_are_chosen_by_what_connections_know() -> None:
    assert set(NAMES) <= set(FACTS)
    assert {"version", "sni"} == set(NAMES) - ABOUT_CLIENTS


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("client_serial", "0a:Bc", "0ABC"),
        ("client_fingerprint", "AA:" * 31 + "AA", "aa" * 32),
        ("client_dns", "App.Example", "app.example"),
        ("client_subject", "CN=Me", "CN=Me"),
        ("client_dns", "~^App", "~^App"),
    ],
)
def test_a_value_is_read_as_connections_have_it(name: str, text: str, expected: str) -> None:
    wanted = WANTED.parse(text)
    assert normal(name, wanted).text == expected
    assert mistake(name, wanted) is None


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("client_dn", "x", "routes cannot be chosen by tls.client_dn: did you mean tls.client_dns?"),
        ("cipher", "x", "routes cannot be chosen by tls.cipher: did you mean tls."),
        ("version", "1.3", "'1.3' is no version that is spoken: write TLSv1.2 or TLSv1.3"),
        ("client_verify", "failed", "'failed' is no verdict: write none, success or ~^failed"),
        ("client_serial", "abc", "'abc' is no serial number: write it in hexadecimal digits, two a byte"),
        ("client_fingerprint", "ab", "'ab' is no SHA-256: write its 64 hexadecimal digits"),
        ("client_spiffe", "example.org", "'example.org' is no SPIFFE ID: write spiffe://DOMAIN/PATH"),
        ("client_subject", "CN=J\u00fcrgen", "has characters that certificates are not shown with"),
    ],
)
def test_a_mistake_says_what_would_be_right(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        conf(tmp_path, f"[route a]\nrespond = 200\ntls.{name} = {text}\n")
    (line,) = caught.value.mistakes
    assert line.startswith(f"{tmp_path}/a.ini:3: [route a] tls.{name}: ")
    assert sentence in line


def test_a_condition_counts_as_any_other(tmp_path: Path) -> None:
    text = "[route a]\nrespond = 200\n[route b]\nrespond = 200\ntls.client_dns = x\n"
    routes = build(conf(tmp_path, text))["clients"].entries
    assert [(entry.route.name, entry.rank.conditions) for entry in routes] == [("b", 1), ("a", 0)]


def test_two_routes_that_a_client_may_meet_are_told_with_an_example(tmp_path: Path) -> None:
    text = (
        "[route a]\nlistener = clients\nrespond = 200\ntls.client_dns = a.example\n"
        "[route b]\nlistener = clients\nrespond = 200\ntls.sni = b.example\n"
    )
    mistakes, _ = check(conf(tmp_path, text))
    assert (
        "for GET http://example.org/ with tls.client_dns = a.example with tls.sni = b.example" in mistakes[0]
    )


@pytest.mark.parametrize(
    ("listener", "key", "why"),
    [
        ("", "client_dns", ""),
        ("clients", "client_dns", ""),
        ("https", "sni", ""),
        ("http, https", "sni", ""),
        ("http", "sni", "no listener of the route has TLS: add tls = CERTIFICATE to one"),
        ("http", "client_dns", "no listener of the route has TLS: add tls = CERTIFICATE to one"),
        ("https", "client_dns", "no client is asked for a certificate: add verify_client to one of tls"),
        ("https", "client_verify", "no client is asked for a certificate: add verify_client to one of tls"),
    ],
)
def test_a_condition_that_never_matches_is_a_warning(
    listener: str, key: str, why: str, tmp_path: Path
) -> None:
    value = "success" if key == "client_verify" else "a"
    text = f"[route a]\nlistener = {listener}\nrespond = 200\ntls.{key} = {value}\n"
    mistakes, warnings = check(conf(tmp_path, text))
    line = f"{tmp_path}/a.ini:4: [route a] tls.{key}: never matches, {why}"
    assert (mistakes, warnings) == ([], [line] if why else [])


def test_connections_have_such_conditions_where_tls_ends(tmp_path: Path) -> None:
    base = "[listener tcp]\nbind = 127.0.0.1:1\nprotocol = tcp\n[upstream app]\nserver.a = 127.0.0.1:2\n"
    text = (
        "[route a]\nlistener = tcp\nupstream = app\ntls.client_dns = a\n"
        "[route b]\nlistener = tcp\nupstream = app\ntls.version = TLSv1.3\n"
    )
    mistakes, warnings = check(conf(tmp_path, text, base))
    assert "for a connection with tls.client_dns = a with tls.version = TLSv1.3:" in mistakes[0]
    assert f"{tmp_path}/a.ini:4: [route a] tls.client_dns: never matches, no listener" in warnings[0]
    (tmp_path / "1.ini").write_text(f"{BASE}[listener tcp]\ntls = mutual\n[route b]\npriority = 1\n")
    assert check(load(tmp_path, SECTIONS, {})) == ([], [])


def test_a_key_is_a_condition_of_the_section(tmp_path: Path) -> None:
    routes = conf(tmp_path, "[route a]\nrespond = 200\ntls.client_spiffe = ~^spiffe://a/\n").named(
        RouteSettings
    )
    assert str(routes["a"].tls["client_spiffe"]) == "~^spiffe://a/"


def test_what_a_listener_cannot_do_is_a_mistake_unless_it_may_be_for_others(tmp_path: Path) -> None:
    mistakes, _ = check(conf(tmp_path, "[listener http]\nhsts = 1y\n[listener https]\nhttps_redirect = on\n"))
    assert mistakes == [
        f"{tmp_path}/a.ini:2: [listener http] hsts: means nothing in plain HTTP (RFC 6797): write it where "
        "tls is, or add tls",
        f"{tmp_path}/a.ini:4: [listener https] https_redirect: is for plain HTTP and this listener has tls: "
        "write it in the other one",
    ]
    assert check(conf(tmp_path, "[defaults listener]\nhsts = 1y\nhttps_redirect = on\n")) == ([], [])
