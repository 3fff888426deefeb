"""TLS of listeners and towards servers: which certificate, which session, whom to believe."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.net.channel import Channel
from sidecar.net.dial import dial, numeric_target
from sidecar.net.tls import ClientContext, Pair, ServerContext, Terminator, Tickets, TlsError
from sidecar.net.tls_channel import TlsChannel
from sidecar.runtime import FakeClock
from tests.support.programs import program
from tests.support.streams import TIMEOUT, ScriptedPeer, outcome, tcp_pair
from tests.support.tls import (
    ECDSA,
    RSA,
    Script,
    as_pair,
    authority,
    both,
    call,
    client_context,
    in_thread,
    pair,
    python_client,
    python_server,
    roots,
    server_context,
    terminator,
    tickets,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def der(one: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(one.certificate.decode().partition("-----END CERTIFICATE-----")[0] + _END)


_END = "-----END CERTIFICATE-----\n"


def refusal(server: Terminator, client: ClientContext, name: str = "localhost") -> Failure:
    """What the client is told when the handshake fails on its side."""
    with pytest.raises(Failure) as caught, both(server, client, name):
        pass
    return caught.value


# -- what a [certificate] is made of


def test_several_certificates_are_chosen_by_the_name_the_client_wants() -> None:
    contexts = {name: server_context(pair(name), identity=name.encode()) for name in ("a.test", "b.test")}
    names: list[str] = []

    def choose(name: str) -> ServerContext:
        names.append(name)
        return contexts.get(name, contexts["a.test"])

    listener = Terminator(choose, (b"http/1.1",))
    for name, expected in (("b.test", "b.test"), ("A.TEST", "a.test")):
        with both(listener, client_context(), name) as (client, server):
            assert client.peer_certificate == contexts[expected].leaves[0] == der(pair(expected))
            assert server.sni == expected
    with both(listener, ClientContext(verify=False), "other.test") as (client, _):
        assert client.peer_certificate == contexts["a.test"].leaves[0]
    with both(listener, ClientContext(verify=False), "127.0.0.1") as (_, server):
        assert server.sni == ""
    assert names == ["b.test", "a.test", "other.test", ""]


def test_a_client_that_is_asked_for_another_group_gets_one_choice() -> None:
    names: list[str] = []
    one = server_context()

    def choose(name: str) -> ServerContext:
        names.append(name)
        return one

    with _openssl_client(Terminator(choose, ()), "-groups", "P-521:P-256") as seen:
        assert "Server Temp Key: ECDH, " in seen.text
    assert names == ["localhost"]


def test_a_choice_that_fails_ends_the_handshake_and_is_told() -> None:
    def choose(name: str) -> ServerContext:
        raise LookupError(name)

    with ScriptedPeer(tcp=True, readable=True) as peer:
        peer.send(Script(peer).hello())
        with pytest.raises(Failure) as caught:
            Terminator(choose, ()).secure(peer.channel, TIMEOUT)
        assert caught.value.detail == "no certificate could be chosen: LookupError('localhost')"
        assert peer.read_all()[-1] == 80  # internal_error


@pytest.mark.parametrize("version", VERSIONS)
def test_one_name_has_certificates_of_both_kinds(version: ssl.TLSVersion) -> None:
    rsa, ecdsa = pair("localhost", key_type=RSA), pair("localhost", key_type=ECDSA)
    listener = terminator(server_context(ecdsa, rsa))
    shown = []
    for algorithms in ("ECDSA+SHA256", "rsa_pss_rsae_sha256"):
        with _openssl_client(listener, "-sigalgs", algorithms, *_up_to(version)) as channel:
            shown.append(channel.chosen_leaf)
    assert shown == ["ECDSA", "RSA"]


class _Seen:
    def __init__(self, channel: TlsChannel, text: str) -> None:
        self.channel = channel
        self.text = text
        self.chosen_leaf = "RSA" if "rsaEncryption" in text or "RSA-PSS" in text else "ECDSA"


def _up_to(version: ssl.TLSVersion) -> list[str]:
    return ["-tls1_2"] if version == ssl.TLSVersion.TLSv1_2 else ["-tls1_3"]


@contextlib.contextmanager
def _openssl_client(listener: Terminator, *arguments: str) -> Iterator[_Seen]:
    """A connection of `openssl s_client`; what it printed is known once our side said goodbye."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [
            program("openssl"),
            "s_client",
            "-connect",
            f"127.0.0.1:{port}",
            "-servername",
            "localhost",
        ]
        client = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        sock, _ = server.accept()
    with client:
        channel = listener.secure(Channel(sock.detach(), True), TIMEOUT)
        version = channel.version
        channel.send(b"bye\n", TIMEOUT)
        channel.close()
        text = client.communicate(timeout=TIMEOUT)[0].decode()
        seen = _Seen(channel, text)
        assert version in text
        yield seen


def test_openssl_sees_the_chain_the_group_and_the_suite() -> None:
    with _openssl_client(terminator(), "-groups", "P-384:P-256:X25519") as seen:
        assert "Server Temp Key: ECDH, secp384r1" in seen.text
        assert "Compression: NONE" in seen.text
        assert "Secure Renegotiation IS" in seen.text


@pytest.mark.parametrize(
    ("arguments", "is_served"),
    [
        (["-tls1_1"], False),
        (["-tls1_2", "-cipher", "AES128-SHA"], False),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], False),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], True),
        (["-tls1_2", "-groups", "P-521"], False),
        (["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], True),
    ],
    ids=["1.1", "RSA key exchange", "CBC", "ChaCha20", "P-521", "1.3"],
)
def test_the_profile_is_mozillas_intermediate(arguments: list[str], is_served: bool) -> None:
    if is_served:
        with _openssl_client(terminator(), *arguments) as seen:
            assert arguments[-1] in seen.text
        return
    with (
        pytest.raises(Failure) as caught,
        _openssl_client(terminator(), "-cipher", "ALL:@SECLEVEL=0", *arguments),
    ):
        pass
    assert caught.value.reason == "tls_handshake_failed"


def test_min_version_is_that_of_the_chosen_certificate() -> None:
    listener = Terminator(
        {
            "new.test": server_context(pair("new.test"), min_version="1.3"),
            "old.test": server_context(pair("old.test")),
        }.__getitem__,
        (),
    )
    for name, is_served in (("old.test", True), ("new.test", False)):
        one, two = tcp_pair()
        client = python_client(maximum_version=ssl.TLSVersion.TLSv1_2)
        asking = call(client, one, lambda sock: sock.version(), name)
        if is_served:
            listener.secure(Channel(two.detach(), True), TIMEOUT).close()
            assert outcome(asking) == "TLSv1.2"
            continue
        with pytest.raises(Failure) as caught:
            listener.secure(Channel(two.detach(), True), TIMEOUT)
        assert caught.value.detail == "unsupported protocol"
        with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
            outcome(asking)


def test_ciphers_are_those_of_the_chosen_certificate() -> None:
    listener = terminator(server_context(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))
    one, two = tcp_pair()
    asking = call(python_client(maximum_version=ssl.TLSVersion.TLSv1_2), one, lambda sock: sock.cipher())
    listener.secure(Channel(two.detach(), True), TIMEOUT).close()
    assert outcome(asking)[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [(["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["x", "http/1.1"], "http/1.1"), ([], None)],
)
def test_the_server_chooses_the_protocol(offer: list[str], agreed: str | None) -> None:
    one, two = tcp_pair()
    client = python_client(alpn=offer) if offer else python_client()
    asking = call(client, one, lambda sock: sock.selected_alpn_protocol())
    channel = terminator(server_context(), b"h2", b"http/1.1").secure(Channel(two.detach(), True), TIMEOUT)
    assert channel.alpn == (agreed or "").encode()
    channel.close()
    assert outcome(asking) == agreed


def test_a_client_that_offers_only_other_protocols_is_refused() -> None:
    failure = refusal(terminator(server_context(), b"h2", b"http/1.1"), client_context(alpn=(b"smtp", b"h")))
    assert failure.reason == "tls_handshake_failed"


# -- sessions


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed_across_contexts_with_the_same_keys(version: ssl.TLSVersion) -> None:
    keys = tickets()
    assert _resumed(version, server_context(tickets=keys), server_context(tickets=keys))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "other",
    [
        {"identity": b"other"},
        {"client_ca": "roots", "verify_client": "optional"},
        {"tickets": None},
    ],
    ids=["identity", "client certificates", "keys"],
)
def test_a_session_of_another_certificate_is_not_resumed(
    version: ssl.TLSVersion, other: dict[str, object]
) -> None:
    keys = tickets()
    options = {"tickets": keys, **other}
    if options.get("client_ca"):
        options["client_ca"] = roots()
    options["tickets"] = options["tickets"] or tickets()
    assert not _resumed(version, server_context(tickets=keys), server_context(**options))


def _resumed(version: ssl.TLSVersion, first: ServerContext, second: ServerContext) -> bool:
    """Whether a session that `first` gave is good for `second`; each has a listener of its own."""
    context = python_client(maximum_version=version)
    was_resumed, session = _visit(context, terminator(first), None)
    assert not was_resumed
    assert session is not None and session.has_ticket
    return _visit(context, terminator(second), session)[0]


def _visit(
    context: ssl.SSLContext, listener: Terminator, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """One connection that would resume `session`: (whether it did, its own session)."""
    one, two = tcp_pair()

    def ask() -> tuple[bool, ssl.SSLSession | None]:
        with context.wrap_socket(one, server_hostname="localhost", session=session) as secure:
            secure.recv(1)
            return bool(secure.session_reused), secure.session

    asking = in_thread(ask)
    channel = listener.secure(Channel(two.detach(), True), TIMEOUT)
    channel.send(b"x", TIMEOUT)
    is_resumed, own = outcome(asking)
    assert channel.is_resumed == is_resumed
    channel.close()
    return is_resumed, own


def test_ticket_keys_change_and_the_two_before_still_open() -> None:
    clock = FakeClock()
    one = _tickets(clock)
    names = []
    for _ in range(4):
        names.append(one.newest()[0])
        clock.advance(12 * 3600)
    clock.advance(-12 * 3600)
    assert len(set(names)) == 4
    found = [one.find(name) for name in names]
    assert found[0] is None
    assert [key is not None and key[2] for key in found[1:]] == [False, False, True]
    assert one.find(b"0" * 16) is None


def test_workers_that_began_alike_agree_on_the_keys_to_come() -> None:
    clock = FakeClock()
    one, two = _tickets(clock), _tickets(clock)
    clock.advance(100 * 3600)
    sealed = one.newest()
    assert two.find(sealed[0]) == (*sealed[1:], True)
    assert [len(part) for part in sealed] == [16, 32, 32]


def _tickets(clock: FakeClock) -> Tickets:
    return Tickets(lambda size: b"r" * size, clock.monotonic)


def test_a_ticket_of_an_older_key_is_taken_and_renewed() -> None:
    clock = FakeClock()
    listener, client_side = terminator(server_context(tickets=_tickets(clock))), client_context()
    seen = []
    for hours in (0, 13, 13, 40):
        clock.advance(hours * 3600)
        with both(listener, client_side) as (client, server):
            server.send(b"x", TIMEOUT)
            client.read(1, TIMEOUT)
            seen.append(server.is_resumed)
    assert seen == [False, True, True, False]


def test_connections_towards_a_server_resume_again_and_again() -> None:
    listener, client_side = terminator(), client_context()
    seen = []
    for _ in range(4):
        with both(listener, client_side) as (client, server):
            server.send(b"x", TIMEOUT)
            client.read(1, TIMEOUT)
            seen.append((client.is_resumed, client.verify_error, client.peer_certificate is not None))
    assert seen == [(False, "", True)] + [(True, "", True)] * 3


# -- clients' certificates


def _client_pair(ca: trustme.CA | None = None) -> Pair:
    return as_pair((ca or authority()).issue_cert("client@example.com"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["optional", "require"])
def test_a_clients_certificate_is_known(mode: str, version: ssl.TLSVersion) -> None:
    listener = terminator(server_context(client_ca=roots(), verify_client=mode))
    shown = _client_pair()
    one, two = tcp_pair()
    asking = call(python_client(maximum_version=version, load=shown), one, lambda sock: sock.recv(1))
    channel = listener.secure(Channel(two.detach(), True), TIMEOUT)
    channel.send(b"x", TIMEOUT)
    assert outcome(asking) == b"x"
    assert channel.peer_certificate == der(shown)
    assert channel.verify_error == ""
    channel.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_whoever_shows_a_certificate_is_asked_for_it_each_time(version: ssl.TLSVersion) -> None:
    listener = terminator(server_context(client_ca=roots(), verify_client="optional"))
    for shown, is_resumed in ((_client_pair(), False), (None, True)):
        context = python_client(maximum_version=version, **({"load": shown} if shown else {}))
        session = _visit(context, listener, None)[1]
        assert _visit(context, listener, session)[0] == is_resumed


def test_optional_serves_whoever_comes_and_knows_what_is_wrong() -> None:
    listener = terminator(server_context(client_ca=roots(), verify_client="optional"))
    with both(listener) as (_, server):
        assert server.peer_certificate is None
    stranger = _client_pair(trustme.CA())
    with both(listener, client_context(pair=stranger)) as (_, server):
        assert server.peer_certificate == der(stranger)
        assert server.verify_error == "unable to get local issuer certificate"


def test_require_refuses_in_the_handshake() -> None:
    listener = terminator(server_context(client_ca=roots(), verify_client="require"))
    for client, detail in (
        (client_context(), "peer did not return a certificate"),
        (
            client_context(pair=_client_pair(trustme.CA())),
            "certificate verify failed: unable to get local issuer certificate",
        ),
    ):
        failure = refusal(listener, client)
        assert (failure.reason, failure.detail) == ("tls_handshake_failed", detail)


def test_a_certificate_that_was_revoked_is_refused() -> None:
    good, bad = _client_pair(), _client_pair()
    listener = terminator(
        server_context(client_ca=roots(), client_crl=_revoking(bad), verify_client="require")
    )
    with both(listener, client_context(pair=good)) as (_, server):
        assert server.peer_certificate == der(good)
    detail = refusal(listener, client_context(pair=bad)).detail
    assert detail == "certificate verify failed: certificate revoked"


def _revoking(*revoked: Pair) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.load_pem_x509_certificate(roots())
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(now - datetime.timedelta(days=1)).next_update(
        now + datetime.timedelta(days=1)
    )
    for one in revoked:
        serial = x509.load_pem_x509_certificate(one.certificate).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    key = load_pem_private_key(authority().private_key_pem.bytes(), None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


# -- whom to believe


def test_a_server_nobody_vouches_for_is_refused() -> None:
    failure = _towards(python_server(), client_context(ca=trustme.CA().cert_pem.bytes()))
    assert (failure.reason, failure.status) == ("tls_verify", 502)
    assert failure.detail == "unable to get local issuer certificate"
    assert failure.repeatable


@pytest.mark.parametrize("name", ["other.test", "127.0.0.1", "::1"])
def test_a_certificate_for_another_name_is_refused(name: str) -> None:
    failure = _towards(python_server(), client_context(), name)
    assert failure.reason == "tls_verify"
    assert failure.detail.endswith(f"the certificate is not for {name}")


def test_a_certificate_that_has_expired_is_refused() -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    old = as_pair(authority().issue_cert("localhost", not_after=past))
    assert _towards(python_server(old), client_context()).detail == "certificate has expired"


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "a.wild.test", "LOCALHOST."])
def test_addresses_and_wildcards_are_matched(name: str) -> None:
    listener = terminator(server_context(pair("127.0.0.1", "::1", "*.wild.test", "localhost")))
    with both(listener, client_context(), name) as (client, _):
        assert client.verify_error == ""


def test_without_verification_any_certificate_will_do() -> None:
    with both(terminator(), ClientContext(verify=False), "other.test") as (client, _):
        assert client.peer_certificate is not None


def test_an_alert_a_protocol_error_an_end_and_silence_have_reasons_of_their_own() -> None:
    old = python_server(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert _towards(old, client_context(min_version="1.3")).reason == "tls_alert"
    for said, reason in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls_failed"), (b"", "tls_failed")):
        with ScriptedPeer(tcp=True) as peer:
            peer.send_all(said)
            with pytest.raises(Failure) as caught:
                client_context().connect(peer.channel, "localhost", TIMEOUT)
            assert (caught.value.reason, caught.value.repeatable) == (reason, True)
    with ScriptedPeer(tcp=True) as peer:
        with pytest.raises(Failure) as caught:
            client_context().connect(peer.channel, "localhost", 0.02)
        assert (caught.value.reason, caught.value.status) == ("tls_timeout", 504)


def test_a_chain_is_shown_whole_and_any_of_its_authorities_may_be_trusted() -> None:
    between = authority().create_child_ca()
    leaf = as_pair(between.issue_cert("localhost"))
    listener = terminator(server_context(leaf))
    for trusted in (roots(), between.cert_pem.bytes()):
        with both(listener, client_context(ca=trusted)) as (client, _):
            assert client.peer_certificate == der(leaf)
            assert client.peer_chain == (ssl.PEM_cert_to_DER_cert(between.cert_pem.bytes().decode()),)


@pytest.mark.parametrize("version", VERSIONS)
def test_openssls_own_server_is_asked_and_resumed(version: ssl.TLSVersion, tmp_path: Path) -> None:
    file = tmp_path / "pair.pem"
    file.write_bytes(pair("localhost").key + pair("localhost").certificate)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    server = subprocess.Popen(
        [program("openssl"), "s_server", "-accept", str(address[1]), "-cert", file, "-rev", *_up_to(version)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert server.stdout is not None
    try:
        assert any(b"ACCEPT" in line for line in server.stdout)
        context = client_context()
        for is_resumed in (False, True, True):
            channel = context.connect(
                dial([numeric_target(Address(*address))], TIMEOUT), "localhost", TIMEOUT
            )
            channel.send(b"abc\n", TIMEOUT)
            assert channel.read(9, TIMEOUT) == b"cba\n"
            assert channel.is_resumed == is_resumed
            channel.close()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_server_may_ask_for_a_certificate() -> None:
    context = python_server(verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(cadata=roots().decode())
    one, two = tcp_pair()
    answering = call(context, two, lambda sock: (sock.sendall(b"x"), sock.getpeercert(True))[1], None)
    shown = _client_pair()
    channel = client_context(pair=shown).connect(Channel(one.detach()), "localhost", TIMEOUT)
    assert channel.read(1, TIMEOUT) == b"x"
    assert outcome(answering) == der(shown)
    channel.close()


def test_the_protocol_is_agreed_on_with_a_server() -> None:
    one, two = tcp_pair()
    answering = call(python_server(alpn=["http/1.1"]), two, lambda sock: sock.selected_alpn_protocol(), None)
    channel = client_context(alpn=(b"h2", b"http/1.1")).connect(Channel(one.detach()), "localhost", TIMEOUT)
    assert channel.alpn == b"http/1.1"
    channel.close()
    assert outcome(answering) == "http/1.1"


def test_the_systems_roots_are_read_once_and_believe_no_stranger() -> None:
    one, other = ClientContext(), ClientContext()
    assert _towards(python_server(), one).reason == "tls_verify"
    assert _towards(python_server(), other).reason == "tls_verify"


def test_a_machine_without_roots_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(TlsError, match="no TLS roots") as caught:
        ClientContext()
    assert caught.value.option == "tls_ca"


def test_roots_come_from_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    file.write_bytes(roots())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with both(terminator(), ClientContext()) as (client, _):
        assert client.verify_error == ""


def test_a_name_that_cannot_be_one_is_refused_before_anything_is_sent() -> None:
    with ScriptedPeer(tcp=True) as peer:
        with pytest.raises(TlsError):
            client_context().connect(peer.channel, "x" * 300, TIMEOUT)
        assert peer.read_all() == b""


def _towards(server: ssl.SSLContext, client: ClientContext, name: str = "localhost") -> Failure:
    """How our handshake with a server of Python's fails."""
    one, two = tcp_pair()
    answering = call(server, two, lambda sock: None, None)
    with pytest.raises(Failure) as caught:
        client.connect(Channel(one.detach()), name, TIMEOUT)
    with contextlib.suppress(OSError):
        outcome(answering)
    two.close()
    return caught.value
