"""Certificates that serve: the choice by name, renewals that are whole or wait, and the end that is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from sidecar.certificates import EXPIRY_EVERY, NONE, Around, Certificate, Refused, Store
from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.kept import Kept
from sidecar.net.certificate_check import examine
from sidecar.net.certificate_choice import Choice
from sidecar.net.certificate_files import look
from sidecar.net.certificate_settings import CertificateSettings
from sidecar.net.renewal import GRACE
from sidecar.net.tls import Tickets
from sidecar.observe.metrics import Page
from sidecar.runtime import FakeClock, Random, Tasks, World
from sidecar.settings import SECTIONS
from tests.support.certificates import Authority, Files, Issued, Secret, revoking, utc
from tests.support.metrics import read
from tests.support.renewal import FakeAgenda, Watches

DAY = 86_400


class Bench:
    """What a certificate needs, and what it told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.agenda = FakeAgenda()
        tasks = Tasks(lambda task, error: self._event("task_died", task=task, exc_info=error))
        self.world = World(tasks, self.clock, Random(1), self._event)
        tickets = Tickets(os.urandom, self.clock.time)
        self.around = Around(self.world, tickets, self.agenda)  # type: ignore[arg-type]
        self.authority = Authority()

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def issue(self, *names: str, days: float = 60, lifetime: float = 90, **options: Any) -> Issued:
        """One that ends in so many days of the fake clock."""
        end = self.clock.date + days * DAY
        dates = {"not_before": utc(end - lifetime * DAY), "not_after": utc(end)}
        return self.authority.issue(*names, **{**dates, **options})

    def certificate(self, files: Files | Secret, name: str = "site", **options: Any) -> Certificate:
        settings = CertificateSettings(
            certificate=(str(files.certificate),), key=(str(files.key),), **options
        )
        found = look(settings)
        assert found is not None
        certificate = Certificate(name, settings, found, self.around)
        certificate.serve()
        return certificate

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Renewal ---------------------------------------------------------------------------------------------------


def test_a_renewal_may_be_for_other_names(bench: Bench, tmp_path: Path) -> None:
    files = Files(tmp_path / "two", bench.issue("old.example"))
    one = bench.certificate(Files(tmp_path / "one", bench.issue("one.example")))
    two = bench.certificate(files)
    choice = Choice([one, two])
    two.subscribe(choice.renew)
    assert choice("old.example") is two.context
    files.rename(bench.issue("new.example"))
    two.look()
    assert choice("new.example") is two.context
    assert choice("old.example") is one.context
    two.unsubscribe(choice.renew)
    two.unsubscribe(choice.renew)
    files.rename(bench.issue("newest.example"))
    two.look()
    assert choice("newest.example") is one.context


def test_a_renewed_pair_is_in_use_and_told(bench: Bench, tmp_path: Path) -> None:
    files = Files(tmp_path, bench.issue("a.example"))
    certificate = bench.certificate(files)
    before = certificate.context
    certificate.look()
    assert certificate.context is before
    issued = bench.issue("a.example", "b.example", days=80)
    files.rename(issued)
    certificate.look()
    assert certificate.context is not before
    assert certificate.seconds_left() == 80 * DAY
    fields = {
        "certificate": "site",
        "serial": issued.serial,
        "not_after": "2024-02-02T22:13:20.000Z",
        "names": ["a.example", "b.example"],
    }
    assert bench.take() == [("certificate_renewed", fields)]
    certificate.look()
    assert bench.take() == []


def test_a_secret_is_renewed_in_one_step(bench: Bench, tmp_path: Path) -> None:
    secret = Secret(tmp_path, bench.issue("a.example"))
    certificate = bench.certificate(secret)
    issued = bench.issue("a.example")
    secret.swap(issued)
    certificate.look()
    ((name, fields),) = bench.take()
    assert (name, fields["serial"]) == ("certificate_renewed", issued.serial)


def test_a_refusal_is_told_and_what_serves_goes_on(bench: Bench, tmp_path: Path) -> None:
    files = Files(tmp_path, bench.issue("a.example"))
    certificate = bench.certificate(files)
    before = certificate.context
    files.key.write_bytes(b"no key")
    certificate.look()
    assert bench.take() == []
    bench.clock.advance(GRACE)
    bench.agenda.do(GRACE)
    ((name, fields),) = bench.take()
    assert name == "certificate_refused"
    assert (fields["certificate"], fields["file"]) == ("site", str(files.key))
    assert fields["error"].startswith("no key is in it")
    assert certificate.context is before


def test_other_authorities_for_clients_are_a_renewal(bench: Bench, tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(bench.authority.pem)
    files = Files(tmp_path, bench.issue("a.example"))
    certificate = bench.certificate(files, client_ca=str(authorities), verify_client="require")
    before = certificate.context
    authorities.write_bytes(Authority().pem)
    certificate.look()
    assert certificate.context is not before
    assert [name for name, _ in bench.take()] == ["certificate_renewed"]


def test_files_that_cannot_serve_make_no_certificate(bench: Bench, tmp_path: Path) -> None:
    files = Files(tmp_path, bench.issue("a.example"))
    files.key.write_bytes(b"no key")
    with pytest.raises(Refused) as caught:
        bench.certificate(files)
    assert [flaw.key for flaw in caught.value.flaws] == ["key"]


# The end ---------------------------------------------------------------------------------------------------


def test_each_step_towards_the_end_is_told_once(bench: Bench, tmp_path: Path) -> None:
    files = Files(tmp_path, bench.issue("a.example", days=15.5))
    certificate = bench.certificate(files)
    certificate.serve()
    assert bench.agenda.seconds() == [EXPIRY_EVERY]
    told = []
    for _ in range(20 * 24):
        bench.clock.advance(EXPIRY_EVERY)
        bench.agenda.do(EXPIRY_EVERY)
        told += [fields["days"] for _, fields in bench.take()]
    assert told == [14, 7, 3, 1, 0]


def test_the_end_is_told_at_the_start_and_forgotten_with_a_renewal(bench: Bench, tmp_path: Path) -> None:
    issued = bench.issue("a.example", days=5)
    files = Files(tmp_path, issued)
    certificate = bench.certificate(files)
    fields = {
        "certificate": "site",
        "about": "certificate",
        "days": 5,
        "not_after": "2023-11-19T22:13:20.000Z",
        "serial": issued.serial,
    }
    assert bench.take() == [("certificate_expires", fields)]
    files.rename(bench.issue("a.example", days=2))
    certificate.look()
    assert [name for name, _ in bench.take()] == ["certificate_renewed", "certificate_expires"]
    files.certificate.write_bytes(files.certificate.read_bytes() + b"\n")
    certificate.look()
    assert [name for name, _ in bench.take()] == ["certificate_renewed"]
    assert bench.agenda.seconds() == [EXPIRY_EVERY]


def test_one_that_is_closed_looks_at_no_date(bench: Bench, tmp_path: Path) -> None:
    certificate = bench.certificate(Files(tmp_path, bench.issue("a.example")))
    certificate.close()
    assert bench.agenda.plans == []


def test_the_end_of_a_list_of_revoked_ones_is_told_until_there_is_another(
    bench: Bench, tmp_path: Path
) -> None:
    authorities, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    authorities.write_bytes(bench.authority.pem)
    now = bench.clock.date
    crl.write_bytes(revoking("Clients", now - 6 * DAY, now + 1.5 * DAY))
    files = Files(tmp_path, bench.issue("a.example"))
    options = {"client_ca": str(authorities), "client_crl": str(crl), "verify_client": "require"}
    certificate = bench.certificate(files, **options)
    told = []
    for _ in range(48):
        bench.clock.advance(EXPIRY_EVERY)
        bench.agenda.do(EXPIRY_EVERY)
        told += bench.take()
    fields = {
        "certificate": "site",
        "about": "client_crl",
        "issuer": "CN=Clients",
        "not_after": "2023-11-16T10:13:20.000Z",
    }
    assert told == [("certificate_expires", {**fields, "days": days}) for days in (1, 0)]
    page = Page()
    certificate.add_to(page)
    assert read(page) == {
        ("sidecar_certificate_expiry_timestamp_seconds", "site", str(files.certificate)): now + 60 * DAY,
        ("sidecar_certificate_crl_expiry_timestamp_seconds", "site", "CN=Clients"): now + 1.5 * DAY,
        ("sidecar_certificate_refused_total", "site"): 0,
        ("sidecar_certificate_renewed_total", "site"): 0,
    }
    crl.write_bytes(revoking("Clients", now, now + 9 * DAY))
    certificate.look()
    assert [name for name, _ in bench.take()] == ["certificate_renewed"]


# The store -------------------------------------------------------------------------------------------------


class Stored:
    """A store and the generations that it serves."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench = bench
        self.directory = directory
        watches = Watches()
        self.watches = watches.all
        self.kept = Kept()
        self.store = Store(bench.world, watches.follow)

    def load(self, text: str) -> Configuration:
        (self.directory / "a.ini").write_text(text)
        return load(self.directory, SECTIONS, {})

    def apply(self, text: str) -> None:
        configuration = self.load(text)
        self.kept.begin()
        try:
            examined = examine(configuration, self.bench.clock, self.store.known)
            built = self.store.build(configuration, examined, self.kept)
        except ConfigurationError:
            self.kept.abandon()
            raise
        self.store.serve(built)
        self.kept.sweep()

    def end(self) -> None:
        self.store.close()
        self.kept.begin()
        self.kept.sweep()
        self.bench.world.tasks.stop()


@pytest.fixture
def stored(bench: Bench, tmp_path: Path) -> Iterator[Stored]:
    stored = Stored(bench, tmp_path)
    yield stored
    stored.end()


LISTENER = "[listener public]\nbind = 127.0.0.1:0\ntls = site\n"


def test_files_are_watched_while_they_are_used(stored: Stored) -> None:
    files = Files(stored.directory / "tls", stored.bench.issue("a.example"))
    text = f"{LISTENER}[certificate site]\n{files.options}"
    stored.apply(text)
    (watch,) = stored.watches
    assert watch.is_running
    assert watch.files == [str(files.certificate), str(files.key)]
    stored.apply(f"{text}[route a]\nrespond = 200\n")
    assert stored.watches == [watch]
    issued = stored.bench.issue("a.example", days=70)
    files.rename(issued)
    watch.changed()
    assert [fields["serial"] for _, fields in stored.bench.take()] == [issued.serial]
    assert stored.store.seconds_left() == {"site": 70 * DAY}
    other = Files(stored.directory / "other", stored.bench.issue("a.example"))
    stored.apply(f"{LISTENER}[certificate site]\n{other.options}")
    assert (watch.is_running, [one.is_running for one in stored.watches]) == (False, [False, True])
    stored.kept.begin()
    stored.store.serve(stored.store.build(stored.load(""), NONE, stored.kept))
    assert (stored.watches[-1].is_running, stored.store.seconds_left()) == (False, {})


def test_a_reload_goes_on_with_what_serves_while_its_files_are_broken(stored: Stored) -> None:
    files = Files(stored.directory / "tls", stored.bench.issue("a.example", days=70))
    text = f"{LISTENER}[certificate site]\n{files.options}"
    stored.apply(text)
    files.key.unlink()
    stored.apply(f"{text}[route a]\nrespond = 200\n")
    assert stored.store.seconds_left() == {"site": 70 * DAY}


def test_a_certificate_that_is_new_and_broken_is_a_mistake(stored: Stored) -> None:
    files = Files(stored.directory / "tls", stored.bench.issue("a.example"))
    text = f"{LISTENER}[certificate site]\n{files.options}"
    stored.apply(text)
    shutil.rmtree(stored.directory / "tls")
    with pytest.raises(ConfigurationError) as caught:
        stored.apply(f"{text}min_version = 1.3\n")
    assert [line.partition("[")[2] for line in caught.value.mistakes] == [
        f"certificate site] certificate: {files.certificate}: does not exist: name a file that does",
        f"certificate site] key: {files.key}: does not exist: name a file that does",
    ]
    assert list(stored.store.seconds_left()) == ["site"]


def test_a_renewal_while_a_generation_is_built_is_not_lost(stored: Stored) -> None:
    files = Files(stored.directory / "tls", stored.bench.issue("a.example"))
    text = f"{LISTENER}[certificate site]\n{files.options}"
    stored.apply(text)
    configuration = stored.load(f"{text}[route a]\nrespond = 200\n")
    stored.kept.begin()
    built = stored.store.build(configuration, NONE, stored.kept)
    choice = built.choice(("site",))
    files.rename(stored.bench.issue("b.example"))
    stored.store.look()
    stored.store.serve(built)
    stored.kept.sweep()
    renewed = choice("b.example")
    assert choice("") is renewed
    files.rename(stored.bench.issue("c.example"))
    gevent.spawn(stored.store.look).join()
    assert choice("c.example") is not renewed
