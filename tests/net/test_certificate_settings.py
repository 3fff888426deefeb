"""Certificate sections: what must be written, what is refused, and what does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.net.certificate_settings import CertificateSettings

PAIR = "certificate = a.pem\nkey = a.key\n"


def certificate(directory: Path, text: str) -> CertificateSettings:
    (directory / "a.ini").write_text(f"[certificate site]\n{text}")
    return load(directory, [CertificateSettings], {}).named(CertificateSettings)["site"]


def test_a_certificate_and_its_key_are_enough(tmp_path: Path) -> None:
    settings = certificate(tmp_path, PAIR)
    assert settings == CertificateSettings(certificate=("a.pem",), key=("a.key",))
    assert (settings.verify_client, settings.min_version, settings.ciphers) == ("off", "1.2", "")
    assert settings.files == ("a.pem", "a.key")


def test_several_kinds_of_keys_and_what_clients_are_verified_by(tmp_path: Path) -> None:
    settings = certificate(
        tmp_path,
        "certificate = a.pem, b.pem\nkey = a.key, b.key\nverify_client = require\nclient_ca = ca.pem\n"
        "client_crl = crl.pem\nmin_version = 1.3\n",
    )
    assert settings.files == ("a.pem", "b.pem", "a.key", "b.key", "ca.pem", "crl.pem")
    assert list(settings.idle()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key = a.key\n", "1: [certificate site] certificate: is required: Files (PEM) with a certificate"),
        ("certificate = a.pem\n", "1: [certificate site] key: is required: Files (PEM) with the private"),
        (
            "certificate = a.pem, b.pem\nkey = a.key\n",
            "3: [certificate site] key: 1 file for 2 certificates: write one for each",
        ),
        (
            "certificate = a.pem\nkey = a.key, b.key\n",
            "3: [certificate site] key: 2 files for 1 certificate: write one for each",
        ),
        (
            "certificate = a.pem, a.pem\nkey = a.key, b.key\n",
            "2: [certificate site] certificate: a file is listed twice: keep one",
        ),
        (
            f"{PAIR}verify_client = require\n",
            "4: [certificate site] verify_client: require needs authorities to verify by: add client_ca",
        ),
        (
            f"{PAIR}verify_client = on\n",
            "4: [certificate site] verify_client: 'on' is not one of off, optional",
        ),
        (
            f"{PAIR}min_version = 1.0\n",
            "4: [certificate site] min_version: '1.0' is broken and retired (RFC 8996): write 1.2 or 1.3",
        ),
        (
            f"{PAIR}min_version = TLSv1.1\n",
            "4: [certificate site] min_version: 'TLSv1.1' is broken and retired (RFC 8996)",
        ),
        (f"{PAIR}min_version = 2\n", "4: [certificate site] min_version: '2' is not one of 1.2, 1.3"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        certificate(tmp_path, text)
    (mistake,) = error.value.mistakes
    assert mistake.startswith(f"{tmp_path}/a.ini:{message}")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("client_ca = ca.pem\nclient_crl = crl.pem\n", ["client_ca", "client_crl"]),
        ("min_version = 1.3\nciphers = ECDHE+AESGCM\n", ["ciphers"]),
        ("ciphers = ECDHE+AESGCM\n", []),
    ],
)
def test_what_does_nothing_is_known(tmp_path: Path, text: str, keys: list[str]) -> None:
    assert [key for key, _ in certificate(tmp_path, PAIR + text).idle()] == keys
