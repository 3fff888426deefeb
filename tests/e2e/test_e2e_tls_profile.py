"""The TLS that clients get is Mozilla's and has no known weakness, as sslyze finds on a running sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from sslyze import (
    CertificateInfoExtraArgument,
    RobotScanResultEnum,
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanResult,
    ServerScanStatusEnum,
    TlsResumptionSupportEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

from tests.support.certificates import Files
from tests.support.chain import PublicAuthority
from tests.support.live import Live

# One of the root stores that sslyze brings along holds a certificate that `cryptography` dislikes.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

#: What sslyze can look for, but for the fields of an answer: those are no matter of TLS.
_ALL: Final = set(ScanCommand) - {ScanCommand.HTTP_HEADERS}
_OLD: Final = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
_IN_1_3: Final = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
_IN_1_2: Final = {"AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"}
_CURVES: Final = {"X25519", "secp256r1", "secp384r1"}


class _Scan:
    """What sslyze found at a port."""

    def __init__(self, port: int, root: Path) -> None:
        trust = CertificateInfoExtraArgument(custom_ca_file=root)
        scanner = Scanner()
        scanner.queue_scans(
            [
                ServerScanRequest(
                    ServerNetworkLocation("localhost", port, "127.0.0.1"),
                    scan_commands=_ALL,
                    scan_commands_extra_arguments=ScanCommandsExtraArguments(certificate_info=trust),
                )
            ]
        )
        self.result: ServerScanResult
        (self.result,) = scanner.get_results()
        assert self.result.scan_status == ServerScanStatusEnum.COMPLETED, self.result.connectivity_error_trace

    def __getitem__(self, command: str) -> Any:
        attempt = getattr(self.result.scan_result, command)
        assert attempt.status == ScanCommandAttemptStatusEnum.COMPLETED, (command, attempt.error_trace)
        return attempt.result

    def ciphers(self, version: str) -> set[str]:
        """The suites that are accepted in a version."""
        accepted = self[f"{version}_cipher_suites"].accepted_cipher_suites
        return {one.cipher_suite.name for one in accepted}

    def comply(self, profile: str) -> None:
        """Raises with all that Mozilla's profile says otherwise."""
        wanted = MozillaTlsConfiguration.get(TlsConfigurationEnum(profile))
        check_server_against_tls_configuration(self.result, wanted)


def _scan(live: Live, authority: PublicAuthority, kinds: dict[str, int], options: str = "") -> _Scan:
    """Scan a sidecar with a certificate of each kind: its name, and the bits of an RSA key."""
    root = live.folder / "root.pem"
    root.write_bytes(authority.pem)
    made = [
        Files(live.folder / "tls", authority.issue("localhost", rsa_bits=bits), f"{kind}-")
        for kind, bits in kinds.items()
    ]
    certificates = ", ".join(str(one.certificate) for one in made)
    keys = ", ".join(str(one.key) for one in made)
    live.listen("tls = site")
    live.start(
        f"[certificate site]\ncertificate = {certificates}\nkey = {keys}\n{options}\n"
        "[route a]\nrespond = 200\n"
    )
    return _Scan(live.port, root)


@pytest.fixture(scope="module")
def authority() -> PublicAuthority:
    return PublicAuthority()


@pytest.mark.parametrize("kinds", [("ecdsa",), ("rsa",), ("ecdsa", "rsa")], ids="+".join)
def test_the_default_is_mozillas_intermediate_profile(
    kinds: tuple[str, ...], live: Live, authority: PublicAuthority
) -> None:
    """With an ECDSA certificate, an RSA one and both: its suites alone, and a chain up to the root."""
    bits = {"ecdsa": 0, "rsa": 2048}
    scan = _scan(live, authority, {kind: bits[kind] for kind in kinds})
    scan.comply("intermediate")
    assert all(not scan.ciphers(version) for version in _OLD)
    assert scan.ciphers("tls_1_2") == {
        f"TLS_ECDHE_{kind.upper()}_WITH_{name}" for kind in kinds for name in _IN_1_2
    }
    assert scan.ciphers("tls_1_3") == _IN_1_3
    assert {curve.name for curve in scan["elliptic_curves"].supported_curves} == _CURVES
    types = {"ecdsa": EllipticCurvePublicKey, "rsa": RSAPublicKey}
    deployments = scan["certificate_info"].certificate_deployments
    assert len(deployments) == len(kinds)
    for kind in kinds:
        assert any(
            isinstance(one.received_certificate_chain[0].public_key(), types[kind]) for one in deployments
        )
    for one in deployments:
        assert (len(one.received_certificate_chain), one.received_chain_has_valid_order) == (2, True)
        assert one.received_chain_contains_anchor_certificate is False
    _is_without_weakness(scan)
    resumption = scan["session_resumption"]
    assert resumption.tls_ticket_resumption_result == TlsResumptionSupportEnum.FULLY_SUPPORTED
    # Sessions live in tickets: there is no cache that workers would have to share.
    assert resumption.session_id_resumption_result == TlsResumptionSupportEnum.NOT_SUPPORTED


def test_with_version_1_3_alone_it_is_mozillas_modern_profile(live: Live, authority: PublicAuthority) -> None:
    scan = _scan(live, authority, {"ecdsa": 0}, "min_version = 1.3")
    scan.comply("modern")
    assert all(not scan.ciphers(version) for version in (*_OLD, "tls_1_2"))
    assert scan.ciphers("tls_1_3") == _IN_1_3
    _is_without_weakness(scan)


def test_a_list_of_ciphers_is_what_version_1_2_has(live: Live, authority: PublicAuthority) -> None:
    scan = _scan(live, authority, {"ecdsa": 0}, "ciphers = ECDHE-ECDSA-AES256-GCM-SHA384")
    assert scan.ciphers("tls_1_2") == {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}
    assert scan.ciphers("tls_1_3") == _IN_1_3


def _is_without_weakness(scan: _Scan) -> None:
    assert not scan["heartbleed"].is_vulnerable_to_heartbleed
    assert scan["robot"].robot_result == RobotScanResultEnum.NOT_VULNERABLE_RSA_NOT_SUPPORTED
    assert not scan["openssl_ccs_injection"].is_vulnerable_to_ccs_injection
    assert not scan["tls_compression"].supports_compression
    assert not scan["tls_1_3_early_data"].supports_early_data
    assert scan["tls_fallback_scsv"].supports_fallback_scsv
    assert scan["tls_extended_master_secret"].supports_ems_extension
    renegotiation = scan["session_renegotiation"]
    assert renegotiation.supports_secure_renegotiation
    assert not renegotiation.is_vulnerable_to_client_renegotiation_dos
