"""The process's section, and the list of all sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.addresses import Address
from sidecar.config.manual import manual
from sidecar.config.merge import load
from sidecar.config.schema import Section, options
from sidecar.errors import ConfigurationError
from sidecar.settings import SECTIONS, SidecarSettings


def sidecar(directory: Path, text: str) -> SidecarSettings:
    (directory / "a.ini").write_text(f"[sidecar]\n{text}")
    return load(directory, SECTIONS, {}).only(SidecarSettings)


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, SECTIONS, {}).only(SidecarSettings)
    assert (settings.drain_delay, settings.drain_timeout, settings.max_connections) == (0.0, 30.0, 10_000)
    assert (settings.access_log, settings.log_format, settings.log_level) == ("stdout", "auto", "info")


@pytest.mark.parametrize("target", ["stdout", "stderr", "off", "/var/log/access.log", "./access.log"])
def test_the_access_log_goes_to_a_stream_or_a_path(tmp_path: Path, target: str) -> None:
    assert sidecar(tmp_path, f"access_log = {target}\n").access_log == target


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("off", None),
        ("127.0.0.1:9901", Address("127.0.0.1", 9901)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
    ],
)
def test_the_process_is_asked_about_itself_at_one_address_or_nowhere(
    tmp_path: Path, text: str, address: Address | None
) -> None:
    assert sidecar(tmp_path, f"admin = {text}\n").admin == address
    assert options(SidecarSettings)["admin"].kind.show(address) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "access_log = stdot\n",
            "access_log: 'stdot' is neither stdout, stderr, off nor a path: write one of them",
        ),
        ("log_format = xml\n", "log_format: 'xml' is not one of json, console, auto"),
        ("max_connections = 0\n", "max_connections: 0 is not between 1 and 1000000"),
        ("drain_timeout = off\n", "drain_timeout: 'off' is not a duration"),
        ("workers = 2\n", "workers: is not a known option"),
        ("admin = on\n", "admin: 'on' has no port: write host:port, [v6]:port or unix:/path, or off"),
        (
            "admin = fd:web\n",
            "admin: fd:web is for listeners alone: write host:port or unix:/path, or off",
        ),
        ("resolver = ns.example\n", "resolver: "),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        sidecar(tmp_path, text)
    (mistake,) = error.value.mistakes
    assert mistake.startswith(f"{tmp_path}/a.ini:2: [sidecar] {message}")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.KIND)
def test_every_option_has_a_sentence_and_a_default_that_reads_back(section: type[Section]) -> None:
    assert section.DOC.endswith(".")
    for option in options(section).values():
        assert option.doc[0].isupper() or not option.doc[0].isalpha(), option.key
        assert option.doc.endswith("."), option.key
        shown = "" if option.is_required or option.is_family else option.kind.show(option.default)
        assert not shown or option.kind.parse(shown) == option.default, option.key


def test_the_manual_has_every_section() -> None:
    text = manual(SECTIONS)
    for kind in ("[sidecar]", "[listener NAME]", "[certificate NAME]", "[upstream NAME]", "[route NAME]"):
        assert f"\n## {kind}\n" in text
