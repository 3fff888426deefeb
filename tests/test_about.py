"""What the program tells of itself and of the machine."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path

import pytest

from sidecar import __version__, about, cli


def test_it_tells_what_it_is_made_of():
    facts = about.about()
    assert facts["version"] == __version__
    assert facts["openssl"] == ssl.OPENSSL_VERSION
    assert facts["command"].endswith("-m sidecar")
    assert facts["unpacked_in"] is None


def test_it_tells_the_name_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(about, "_RESOLVER", file)
    file.write_text(
        "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver\noptions rotate\nnameserver ::1\n"
    )
    assert about.about()["name_servers"] == ["192.0.2.1", "::1"]


@pytest.mark.parametrize("content", [None, "", "search example.org\n"])
def test_without_name_servers_the_c_library_asks_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
):
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(about, "_RESOLVER", file)
    if content is not None:
        file.write_text(content)
    assert about.about()["name_servers"] == ["127.0.0.1"]


def test_it_tells_the_time_zone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        assert about.about()["time_zone"] == "CET +0100"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_it_counts_the_roots_that_would_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "roots.pem"
    file.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    facts = about.about()
    assert (facts["tls_roots"], facts["tls_root_certificates"]) == (str(file), 0)


def test_the_text_has_a_line_for_each_fact():
    text = about.as_text({"one": "x", "another": None, "list": ["a", "b"], "empty": [], "number": 3})
    assert text.splitlines() == ["one:     x", "another: -", "list:    a, b", "empty:   -", "number:  3"]


def test_the_command_writes_text_or_json(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["about"]) == 0
    assert f"version:               {__version__}\n" in capsys.readouterr().out
    assert cli.main(["about", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__
