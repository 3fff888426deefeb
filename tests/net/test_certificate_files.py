"""Reading the files of a certificate: what is whole is taken, what is not is told with advice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sidecar.net.tls import Tickets

from sidecar.net.certificate_files import (
    Flaw,
    Found,
    Loaded,
    Maker,
    Material,
    doubts,
    look,
    names,
    step,
)
from sidecar.net.certificate_settings import CertificateSettings
from sidecar.wire.certificate import Certificate, parse, pem_blocks
from tests.support.certificates import Authority, Files, Issued, bare, encrypted, utc

DAY = 86_400
NOW = time.time()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("a.example", "*.b.example")


def settings_of(files: Files, **options: Any) -> CertificateSettings:
    return CertificateSettings(certificate=(str(files.certificate),), key=(str(files.key),), **options)


def made(settings: CertificateSettings) -> Loaded | tuple[Flaw, ...]:
    found = look(settings)
    assert found is not None
    return Maker("site", settings, Tickets(os.urandom, lambda: NOW)).make(found)


def flaws_of(settings: CertificateSettings) -> list[tuple[str, str]]:
    """(option, message without the directory) of each flaw."""
    flaws = made(settings)
    assert not isinstance(flaws, Loaded)
    return [(flaw.key, str(flaw).replace(f"{Path(flaw.file).parent}/", "")) for flaw in flaws]


def leaf_of(issued: Issued) -> Certificate:
    return parse(pem_blocks(issued.certificate)[0])


def test_a_whole_pair_is_taken(tmp_path: Path, issued: Issued) -> None:
    loaded = made(settings_of(Files(tmp_path, issued)))
    assert isinstance(loaded, Loaded)
    assert loaded.names == ("a.example", "*.b.example")
    assert loaded.not_after == leaf_of(issued).not_after
    assert [leaf.serial for leaf in loaded.leaves] == [issued.serial]


def test_pairs_of_two_kinds_are_one_context(tmp_path: Path, authority: Authority, issued: Issued) -> None:
    one = Files(tmp_path, issued)
    two = Files(tmp_path, authority.issue("a.example", rsa=True), "rsa-")
    settings = CertificateSettings(
        certificate=(str(one.certificate), str(two.certificate)), key=(str(one.key), str(two.key))
    )
    loaded = made(settings)
    assert isinstance(loaded, Loaded)
    assert len(loaded.leaves) == 2
    assert loaded.names == ("a.example", "*.b.example")


def test_the_same_files_are_not_news(tmp_path: Path, issued: Issued) -> None:
    files = Files(tmp_path, issued)
    settings = settings_of(files)
    found = look(settings)
    assert isinstance(found, Found)
    assert look(settings, found.mark) is None
    files.rename(issued)
    assert look(settings, found.mark) is None
    files.key.write_bytes(files.key.read_bytes() + b"\n")
    assert look(settings, found.mark) is not None


def test_what_is_secret_is_not_shown(tmp_path: Path, issued: Issued) -> None:
    secret = issued.key.decode().splitlines()[1]
    found = look(settings_of(Files(tmp_path, issued)))
    assert found is not None
    assert found.material is not None
    assert secret not in repr(found)
    assert secret not in repr(found.material)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.key.unlink(), ("key", "key.pem: does not exist: name a file that does")),
        (lambda files: files.key.write_bytes(b" \n"), ("key", "key.pem: is empty: write it anew")),
        (
            lambda files: (files.key.unlink(), files.key.mkdir()),
            ("key", "key.pem: is a directory: name a file (PEM)"),
        ),
        (
            lambda files: (files.key.unlink(), os.mkfifo(files.key)),
            ("key", "key.pem: is no file: name a file (PEM)"),
        ),
        (
            lambda files: (files.key.unlink(), files.key.symlink_to(files.key)),
            ("key", "key.pem: cannot be read: Too many levels of symbolic links"),
        ),
        (
            lambda files: files.certificate.write_bytes(b"hello"),
            ("certificate", "cert.pem: holds no certificate (PEM): it needs -----BEGIN CERTIFICATE-----"),
        ),
        (
            lambda files: files.certificate.write_bytes(files.key.read_bytes()),
            ("certificate", "cert.pem: holds a private key and no certificate: exchange certificate and key"),
        ),
        (
            lambda files: files.certificate.write_bytes(pem_blocks(files.certificate.read_bytes())[0]),
            ("certificate", "cert.pem: is DER: convert it with `openssl x509 -inform DER`"),
        ),
        (
            lambda files: files.certificate.write_bytes(
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            ),
            ("certificate", "cert.pem: its certificate 1 is broken: "),
        ),
        (
            lambda files: files.certificate.write_bytes(files.certificate.read_bytes()[:300]),
            ("certificate", "cert.pem: certificate 1 of the file has no END line"),
        ),
        (
            lambda files: files.key.write_bytes(encrypted(files.key.read_bytes())),
            ("key", "key.pem: the key is encrypted"),
        ),
        (
            lambda files: files.key.write_bytes(bare("other").key),
            ("key", "key.pem: the key does not belong to the certificate"),
        ),
        (lambda files: files.key.write_bytes(b"hello"), ("key", "key.pem: no key is in it")),
        (
            lambda files: files.certificate.write_bytes(Authority().pem + files.certificate.read_bytes()),
            ("certificate", "cert.pem: the key belongs to certificate 2 of the file"),
        ),
    ],
)
def test_flaws(
    tmp_path: Path, issued: Issued, spoil: Callable[[Files], Any], message: tuple[str, str]
) -> None:
    files = Files(tmp_path, issued)
    spoil(files)
    ((key, text),) = flaws_of(settings_of(files))
    assert (key, text[: len(message[1])]) == message


def test_all_flaws_are_told_at_once(tmp_path: Path, issued: Issued) -> None:
    files = Files(tmp_path, issued)
    files.key.unlink()
    files.certificate.write_bytes(b"x")
    settings = settings_of(files, client_ca=str(tmp_path / "none"), verify_client="require")
    assert [key for key, _ in flaws_of(settings)] == ["key", "client_ca", "certificate"]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"ciphers": "nonsense"}, "ciphers"),
        ({"client_ca": "ca.pem", "verify_client": "require"}, "client_ca"),
    ],
)
def test_values_that_openssl_refuses_are_blamed(
    tmp_path: Path, issued: Issued, options: dict[str, str], key: str
) -> None:
    files = Files(tmp_path, issued)
    if "client_ca" in options:
        options = {**options, "client_ca": str(tmp_path / "ca.pem")}
        (tmp_path / "ca.pem").write_bytes(b"no authority")
    ((blamed, _),) = flaws_of(settings_of(files, **options))
    assert blamed == key


def test_a_list_of_revoked_certificates_must_be_one(
    tmp_path: Path, authority: Authority, issued: Issued
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "crl.pem").write_bytes(b"no list")
    settings = settings_of(
        Files(tmp_path, issued),
        client_ca=str(tmp_path / "ca.pem"),
        client_crl=str(tmp_path / "crl.pem"),
        verify_client="optional",
    )
    ((key, text),) = flaws_of(settings)
    assert key == "client_crl"
    assert text.startswith("crl.pem: ")


def test_the_common_name_counts_when_there_is_no_alternative_name(authority: Authority) -> None:
    assert names(leaf_of(bare("Old.Example"))) == ("old.example",)
    assert names(leaf_of(authority.issue("192.0.2.7", common_name="x.example"))) == ()


# Doubts ----------------------------------------------------------------------------------------------------


def told(tmp_path: Path, issued: Issued, now: float = NOW, mode: int = 0o600) -> list[str]:
    files = Files(tmp_path, issued)
    files.key.chmod(mode)
    settings = settings_of(files)
    found = look(settings)
    assert found is not None
    assert isinstance(found.material, Material)
    return [f"{flaw.key}: {flaw.text}" for flaw in doubts(settings, found.material, now)]


def test_what_is_fine_leaves_no_doubt(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("a.example", not_after=utc(NOW + 60 * DAY))
    issued.certificate += authority.pem
    assert told(tmp_path, issued) == []


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (-2, "certificate: expired 1 day ago: renew it"),
        (0.5, "certificate: expires in less than a day: renew it"),
        (13.5, "certificate: expires in 13 days: renew it"),
        (14.5, ""),
    ],
)
def test_the_end_of_a_certificate_is_told_before_it_comes(
    tmp_path: Path, authority: Authority, days: float, text: str
) -> None:
    issued = authority.issue(
        "a.example", not_before=utc(NOW - 80 * DAY), not_after=utc(NOW + days * DAY + 60)
    )
    issued.certificate += authority.pem
    assert told(tmp_path, issued) == ([text] if text else [])


def test_a_certificate_that_is_not_valid_yet_is_a_doubt(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("a.example", not_before=utc(NOW + 2 * DAY + 60), not_after=utc(NOW + 90 * DAY))
    issued.certificate += authority.pem
    assert told(tmp_path, issued) == ["certificate: is not valid yet: in 2 days"]


def test_a_key_for_everybody_is_a_doubt(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("a.example", not_after=utc(NOW + 60 * DAY))
    issued.certificate += authority.pem
    assert told(tmp_path, issued, mode=0o644) == ["key: may be read by everybody on this machine: chmod o-r"]


def test_a_certificate_without_a_server_name_is_a_doubt(tmp_path: Path) -> None:
    assert told(tmp_path, bare("old.example")) == [
        "certificate: names no server (it has no subjectAltName for one): clients refuse it"
    ]


def test_a_chain_that_ends_early_or_has_a_stranger_in_it_is_a_doubt(
    tmp_path: Path, authority: Authority
) -> None:
    issued = authority.issue("a.example", not_after=utc(NOW + 60 * DAY))
    (text,) = told(tmp_path, issued)
    assert text.startswith("certificate: holds no chain: unless clients know ")
    issued.certificate += Authority().pem
    assert told(tmp_path, issued) == [
        "certificate: its certificate 2 has not issued number 1: put them in order"
    ]


@pytest.mark.parametrize(
    ("lifetime", "left", "reached"),
    [
        (90, 15, None),
        (90, 14, 14),
        (90, 7.1, 14),
        (90, 7, 7),
        (90, 0.5, 1),
        (90, 0, 0),
        (90, -5, 0),
        (7, 6, None),
        (7, 2, None),
        (7, 0.9, 1),
        (1, 0.9, None),
        (1, -0.1, 0),
    ],
)
def test_a_short_life_has_fewer_steps(
    authority: Authority, lifetime: float, left: float, reached: int | None
) -> None:
    leaf = leaf_of(authority.issue("a.example"))
    leaf = leaf._replace(
        not_after=int(NOW) + round(left * DAY), not_before=int(NOW) + round((left - lifetime) * DAY)
    )
    assert step(leaf, int(NOW)) == reached
