"""Certificates that serve: the choice by name, renewals that are whole or wait, and the end that is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest

from sidecar import certificates as module
from sidecar.certificates import EXPIRY_EVERY, GRACE, NONE, Around, Certificate, Refused, Store
from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.kept import Kept
from sidecar.net.agenda import Plan
from sidecar.net.certificate_check import examine
from sidecar.net.certificate_choice import Choice
from sidecar.net.certificate_files import look
from sidecar.net.certificate_settings import CertificateSettings
from sidecar.net.tls import Tickets
from sidecar.runtime import FakeClock, Random, Tasks, World
from sidecar.settings import SECTIONS
from tests.support.certificates import Authority, Files, Issued, Secret, utc

DAY = 86_400


class FakeAgenda:
    """What is planned, for the test to do."""

    def __init__(self) -> None:
        self.plans: list[tuple[float, Callable[[], None]]] = []

    def plan(self, seconds: float, do: Callable[[], None]) -> Any:
        plan = (seconds, do)
        self.plans.append(plan)
        return FakePlan(self, plan)

    def seconds(self) -> list[float]:
        return sorted(round(seconds, 3) for seconds, _ in self.plans)

    def do(self, seconds: float) -> None:
        """What is due in so many seconds."""
        (plan,) = [plan for plan in self.plans if plan[0] == seconds]
        self.plans.remove(plan)
        plan[1]()


class FakePlan(Plan):
    def __init__(self, agenda: FakeAgenda, plan: Any) -> None:
        self._fake = agenda
        self._made = plan

    def cancel(self) -> None:
        if self._made in self._fake.plans:
            self._fake.plans.remove(self._made)


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


def test_half_a_renewal_waits_for_the_other_half(bench: Bench, tmp_path: Path) -> None:
    files = Files(tmp_path, bench.issue("a.example"))
    certificate = bench.certificate(files)
    before, issued = certificate.context, bench.issue("a.example")
    files.certificate.write_bytes(issued.certificate)
    certificate.look()
    certificate.look()
    bench.clock.advance(GRACE / 2)
    certificate.look()
    assert (certificate.context, bench.take()) == (before, [])
    files.key.write_bytes(issued.key)
    certificate.look()
    assert certificate.context is not before
    assert [name for name, _ in bench.take()] == ["certificate_renewed"]
    bench.agenda.do(GRACE)
    assert bench.take() == []
    assert bench.agenda.seconds() == [EXPIRY_EVERY]


def test_a_refusal_is_told_once_after_a_moment(bench: Bench, tmp_path: Path) -> None:
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
    for _ in range(3):
        bench.clock.advance(GRACE)
        certificate.look()
    assert bench.take() == []
    assert certificate.context is before
    # Something else that is wrong is another piece of news, when it lasts.
    files.key.unlink()
    certificate.look()
    assert bench.take() == []
    bench.clock.advance(GRACE)
    bench.agenda.do(GRACE)
    assert [(name, fields["error"]) for name, fields in bench.take()] == [
        ("certificate_refused", "does not exist: name a file that does")
    ]


def test_what_comes_back_as_it_was_is_no_news_and_may_fail_again(bench: Bench, tmp_path: Path) -> None:
    issued = bench.issue("a.example")
    files = Files(tmp_path, issued)
    certificate = bench.certificate(files)

    def fail() -> list[str]:
        files.key.write_bytes(b"no key")
        certificate.look()
        bench.clock.advance(GRACE)
        bench.agenda.do(GRACE)
        return [name for name, _ in bench.take()]

    assert fail() == ["certificate_refused"]
    files.rename(issued)
    certificate.look()
    assert bench.take() == []
    assert fail() == ["certificate_refused"]


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


def test_one_that_is_closed_meanwhile_says_and_plans_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path, bench.issue("a.example"))
    certificate = bench.certificate(files)
    in_thread = module._in_thread

    def close_meanwhile(*args: Any) -> Any:
        result = in_thread(*args)
        certificate.close()
        return result

    monkeypatch.setattr(module, "_in_thread", close_meanwhile)
    files.key.unlink()
    certificate.look()
    assert (bench.take(), bench.agenda.plans) == ([], [])


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


# The store -------------------------------------------------------------------------------------------------


class FakeWatch:
    def __init__(self, files: Sequence[str], changed: Callable[[], None]) -> None:
        self.files = list(files)
        self.changed = changed
        self.is_running = False

    def start(self) -> None:
        self.is_running = True

    def stop(self) -> None:
        self.is_running = False


class Stored:
    """A store and the generations that it serves."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench = bench
        self.directory = directory
        self.watches: list[FakeWatch] = []
        self.kept = Kept()
        self.store = Store(bench.world, self._follow)

    def _follow(self, files: Sequence[str], changed: Callable[[], None]) -> FakeWatch:
        self.watches.append(FakeWatch(files, changed))
        return self.watches[-1]

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


def test_one_look_is_good_for_all_who_asked_before_it(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(stored.directory / "tls", stored.bench.issue("a.example"))
    stored.apply(f"{LISTENER}[certificate site]\n{files.options}")
    looks = []

    def look(_: object) -> None:
        looks.append(len(looks))
        gevent.idle()

    monkeypatch.setattr(module.Certificates, "look", look)
    gevent.joinall([gevent.spawn(stored.store.look) for _ in range(10)])
    assert looks == [0, 1]
    stored.store.look()
    assert looks == [0, 1, 2]
