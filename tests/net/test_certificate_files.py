"""Reading the files of a certificate: what is whole is taken, what is not is told with advice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.net.certificate_files import (
    Flawed,
    Found,
    Loaded,
    Maker,
    look,
    names,
)
from sidecar.net.certificate_settings import CertificateSettings
from sidecar.net.tls import Tickets
from sidecar.wire.certificate import Certificate, parse, pem_blocks
from tests.support.certificates import Authority, Files, Issued, bare, encrypted

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


def made(settings: CertificateSettings) -> Loaded | Flawed:
    found = look(settings)
    assert found is not None
    return Maker("site", settings, Tickets(os.urandom, lambda: NOW)).make(found)


def flaws_of(settings: CertificateSettings) -> list[tuple[str, str]]:
    """(option, message without the directory) of each flaw."""
    flawed = made(settings)
    assert isinstance(flawed, Flawed)
    return [(flaw.key, str(flaw).replace(f"{Path(flaw.file).parent}/", "")) for flaw in flawed.flaws]


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
