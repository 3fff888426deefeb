"""Whom an upstream believes: contexts made of files, renewed with them, kept while those are no good."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.kept import Kept
from sidecar.net.certificate_files import Flawed
from sidecar.net.renewal import GRACE
from sidecar.runtime import FakeClock, Random, Tasks, World
from sidecar.upstream.settings import UpstreamSettings
from sidecar.upstream.trust import Made, Trust, examine, make
from sidecar.upstream.trust_settings import TrustOptions
from tests.support.certificates import Authority, Files, encrypted, replace
from tests.support.renewal import FakeAgenda


class Process:
    """A world that notes events, and what is planned in it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.clock = FakeClock()
        self.agenda = FakeAgenda()
        self.tasks = Tasks(lambda _, error: self.events.append(("task_died", {"error": error})))
        self.world = World(self.tasks, self.clock, Random(1), self._event)

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Place:
    """The files of one upstream."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.pem)
        self.own = Files(folder, self.authority.issue("me.test"), "client-")

    def options(self, **changes: Any) -> TrustOptions:
        given = {
            "protocol": "https",
            "tls_ca": str(self.ca),
            "tls_certificate": str(self.own.certificate),
            "tls_key": str(self.own.key),
        }
        return TrustOptions(**(given | changes))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.tasks.stop()


def trusted(place: Place, process: Process, **changes: Any) -> Trust:
    options = place.options(**changes)
    made = make(options)
    assert isinstance(made, Made)
    return Trust("app", options, made, process.world, process.agenda)  # type: ignore[arg-type]


def flaw(options: TrustOptions) -> tuple[str, str]:
    found = make(options)
    assert isinstance(found, Flawed)
    return found.flaw.key, str(found.flaw)


# -- making


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"protocol": "h2"},
        {"tls_ca": ""},
        {"tls_verify": False, "tls_ca": ""},
        {"tls_certificate": "", "tls_key": ""},
    ],
)
def test_a_context_is_made_of_what_is_given(place: Place, changes: dict[str, Any]) -> None:
    assert isinstance(make(place.options(**changes)), Made)


def test_files_that_were_seen_make_nothing_new(place: Place) -> None:
    made = make(place.options())
    assert isinstance(made, Made)
    assert make(place.options(), made.mark) is None
    replace(place.ca, Authority().pem)
    assert isinstance(make(place.options(), made.mark), Made)


def test_what_is_wrong_with_files(place: Place, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    assert flaw(place.options(tls_ca=missing)) == (
        "tls_ca",
        f"{missing}: does not exist: name a file that does",
    )
    place.ca.write_bytes(b"junk")
    key, text = flaw(place.options())
    assert (key, text.startswith(f"{place.ca}: ")) == ("tls_ca", True)


def test_a_key_of_another_certificate(place: Place) -> None:
    replace(place.own.key, place.authority.issue("me.test").key)
    assert flaw(place.options())[0] == "tls_key"


def test_a_key_behind_a_password(place: Place) -> None:
    replace(place.own.key, encrypted(place.own.key.read_bytes()))
    key, text = flaw(place.options())
    assert (key, str(place.own.key) in text) == ("tls_key", True)


# -- renewal


def test_new_files_are_taken_into_use_and_told(place: Place, process: Process) -> None:
    one = trusted(place, process)
    renewed: list[Any] = []
    one.renewed = lambda: renewed.append(one.context)
    before = one.context
    one.look()
    assert (one.context, renewed) == (before, [])
    replace(place.ca, Authority().pem)
    one.look()
    assert renewed == [one.context] != [before]
    assert process.events == [("upstream_tls_renewed", {"upstream": "app"})]


def test_files_that_are_no_good_are_told_and_the_old_ones_stay(place: Place, process: Process) -> None:
    one = trusted(place, process)
    before = one.context
    place.ca.write_bytes(b"junk")
    one.look()
    assert process.events == []
    process.clock.advance(GRACE)
    process.agenda.do(GRACE)
    ((name, fields),) = process.events
    assert (name, fields["upstream"], fields["file"]) == ("upstream_tls_refused", "app", str(place.ca))
    assert one.context is before


def test_one_that_is_closed_takes_nothing(place: Place, process: Process) -> None:
    one = trusted(place, process)
    one.close()
    replace(place.ca, Authority().pem)
    one.look()
    assert process.events == []


def test_the_files_of_a_trust(place: Place, process: Process) -> None:
    assert trusted(place, process).files == (str(place.ca), str(place.own.certificate), str(place.own.key))
    assert trusted(place, process, tls_ca="", tls_certificate="", tls_key="").files == ()


# -- configurations


def configured(folder: Path, text: str) -> Any:
    (folder / "a.ini").write_text(text)
    return load(folder, [UpstreamSettings], {})


def test_each_upstream_with_tls_is_examined(place: Place, process: Process, tmp_path: Path) -> None:
    conf = configured(
        tmp_path,
        f"[defaults upstream]\ntls_ca = {place.ca}\n"
        "[upstream good]\nserver.a = a.test:1\nprotocol = https\n"
        "[upstream bad]\nserver.a = a.test:1\nprotocol = h2\ntls_ca = /missing.pem\n"
        "[upstream off]\nserver.a = a.test:1\nprotocol = h2\ntls_verify = off\n"
        "[upstream plain]\nserver.a = a.test:1\n",
    )
    examined = examine(conf)
    assert sorted(examined.made) == ["good", "off"]
    (lines,) = examined.mistakes.values()
    assert lines[0].endswith("[upstream bad] tls_ca: /missing.pem: does not exist: name a file that does")
    (warning,) = examined.warnings
    assert "[upstream off] tls_verify: " in warning


def test_one_that_serves_goes_on_whatever_its_files_say(
    place: Place, process: Process, tmp_path: Path
) -> None:
    conf = configured(
        tmp_path, f"[upstream app]\nserver.a = a.test:1\nprotocol = https\ntls_ca = {place.ca}\n"
    )
    kept = Kept()

    def claimed() -> dict[str, Trust]:
        kept.begin()
        found = examine(conf).claim(conf.named(UpstreamSettings), kept, process.world)
        kept.sweep()
        return found

    before = claimed()["app"]
    place.ca.write_bytes(b"junk")
    assert claimed()["app"] is before
    kept.begin()
    kept.sweep()
    with pytest.raises(ConfigurationError, match="tls_ca"):
        claimed()


def test_who_does_not_use_it_does_not_load_tls() -> None:
    """The modules of TLS and HTTP/2 take memory."""
    code = "import sys, sidecar.app, sidecar.probing; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "sidecar.upstreams" in loaded
    wanted = {"sidecar.net.tls", "sidecar.net.h2", "sidecar.upstream.trust", "sidecar.upstream.multiplexed"}
    assert not wanted & loaded
