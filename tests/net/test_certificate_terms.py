"""How long certificates and lists are good: steps towards the end, and what `check` doubts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sidecar.net.certificate_files import Material, look
from sidecar.net.certificate_settings import CertificateSettings
from sidecar.net.certificate_terms import doubts, list_step, step
from sidecar.wire.certificate import Certificate, parse, pem_blocks
from sidecar.wire.revocation import RevocationList
from tests.support.certificates import Authority, Files, Issued, bare, revoking, utc

DAY = 86_400
NOW = time.time()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def leaf_of(issued: Issued) -> Certificate:
    return parse(pem_blocks(issued.certificate)[0])


def told(tmp_path: Path, issued: Issued, now: float = NOW, mode: int = 0o600, **options: str) -> list[str]:
    files = Files(tmp_path, issued)
    files.key.chmod(mode)
    settings = CertificateSettings(certificate=(str(files.certificate),), key=(str(files.key),), **options)
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


# Lists of the revoked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifetime", "left", "reached"),
    [(7, 1.1, None), (7, 1, 1), (7, 0, 0), (7, -1, 0), (1, 0.9, None), (1, 0.3, 1), (1, 0, 0)],
)
def test_a_list_is_told_on_its_last_day(lifetime: float, left: float, reached: int | None) -> None:
    one = RevocationList("CN=x", int(NOW + (left - lifetime) * DAY), NOW + left * DAY, "")
    assert list_step(one, NOW) == reached


def test_a_list_without_an_end_is_never_told() -> None:
    assert list_step(RevocationList("CN=x", 0, float("inf"), ""), NOW) is None


@pytest.mark.parametrize(
    ("begins", "ends", "text"),
    [
        (-7, 2, ""),
        (-7, 0.5, "expires in less than a day, then clients are refused: renew it"),
        (-7, -2, "expired 2 days ago, so clients are refused: renew it"),
        (2.1, 9, "is not valid yet: in 2 days, until then clients are refused"),
    ],
)
@pytest.mark.parametrize("verify", ["optional", "require", "off"])
def test_a_list_that_refuses_all_clients_is_a_doubt(
    tmp_path: Path, authority: Authority, begins: float, ends: float, text: str, verify: str
) -> None:
    issued = authority.issue("a.example", not_after=utc(NOW + 60 * DAY))
    issued.certificate += authority.pem
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    ca.write_bytes(authority.pem)
    crl.write_bytes(revoking("Clients", NOW + begins * DAY, NOW + ends * DAY))
    options = {"verify_client": verify, "client_ca": str(ca), "client_crl": str(crl)}
    expected = [f"client_crl: the list of CN=Clients {text}"] if text and verify != "off" else []
    assert told(tmp_path, issued, **options) == expected


def test_of_one_authority_the_list_that_is_good_longest_counts(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("a.example", not_after=utc(NOW + 60 * DAY))
    issued.certificate += authority.pem
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    ca.write_bytes(authority.pem)
    lists = [("a", -1), ("a", 5), ("a", -2), ("b", -1)]
    crl.write_bytes(b"".join(revoking(name, NOW - 9 * DAY, NOW + days * DAY) for name, days in lists))
    (text,) = told(tmp_path, issued, verify_client="require", client_ca=str(ca), client_crl=str(crl))
    assert text.startswith("client_crl: the list of CN=b expired ")
