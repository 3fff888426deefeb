"""What `check` says about certificates: lines with their places, mistakes apart from doubts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import Configuration, load
from sidecar.net.certificate_check import examine
from sidecar.runtime import SystemClock
from sidecar.settings import SECTIONS
from tests.support.certificates import Authority, Files


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def configured(directory: Path, text: str) -> Configuration:
    (directory / "a.ini").write_text(text)
    return load(directory, SECTIONS, {})


def certificate(directory: Path, authority: Authority, section: str, *names: str) -> Files:
    issued = authority.issue(*names)
    issued.certificate += authority.pem
    return Files(directory / section, issued)


def test_sound_certificates_leave_nothing_to_say(tmp_path: Path, authority: Authority) -> None:
    files = certificate(tmp_path, authority, "site", "a.example")
    text = f"[listener public]\nbind = a:1\ntls = site\n[certificate site]\n{files.options}"
    examined = examine(configured(tmp_path, text), SystemClock())
    assert (examined.mistakes, examined.warnings) == ({}, [])
    assert list(examined.found) == ["site"]


def test_mistakes_have_their_places(tmp_path: Path, authority: Authority) -> None:
    files = certificate(tmp_path, authority, "site", "a.example")
    other = certificate(tmp_path, authority, "other", "a.example")
    text = (
        f"[listener public]\nbind = a:1\ntls = site\n[certificate site]\ncertificate = {files.certificate}\n"
    )
    examined = examine(configured(tmp_path, f"{text}key = {other.key}\n"), SystemClock())
    assert examined.mistakes == {
        "site": [
            f"{tmp_path}/a.ini:6: [certificate site] key: {other.key}: the key does not belong to the "
            "certificate"
        ]
    }


def test_a_certificate_that_nobody_names_is_a_doubt(tmp_path: Path, authority: Authority) -> None:
    files = certificate(tmp_path, authority, "site", "a.example")
    examined = examine(configured(tmp_path, f"[certificate site]\n{files.options}"), SystemClock())
    assert examined.warnings == [
        f"{tmp_path}/a.ini:1: [certificate site]: no listener names it: write tls = site in the one that is "
        "to use it"
    ]


def test_a_name_of_two_certificates_is_a_doubt(tmp_path: Path, authority: Authority) -> None:
    one = certificate(tmp_path, authority, "one", "a.example", "b.example")
    two = certificate(tmp_path, authority, "two", "c.example", "A.example")
    text = (
        "[listener public]\nbind = a:1\ntls = one, two\n"
        f"[certificate one]\n{one.options}[certificate two]\n{two.options}"
    )
    examined = examine(configured(tmp_path, text), SystemClock())
    assert examined.warnings == [
        f"{tmp_path}/a.ini:3: [listener public] tls: one and two are both for a.example: clients get one"
    ]


def test_options_that_do_nothing_are_doubts(tmp_path: Path, authority: Authority) -> None:
    files = certificate(tmp_path, authority, "site", "a.example")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    text = (
        "[listener public]\nbind = a:1\ntls = site\n"
        f"[certificate site]\n{files.options}client_ca = {tmp_path}/ca.pem\n"
    )
    examined = examine(configured(tmp_path, text), SystemClock())
    assert examined.warnings == [
        f"{tmp_path}/a.ini:7: [certificate site] client_ca: does nothing with verify_client = off: remove "
        "it, or ask for certificates"
    ]
