"""Renewals: what is whole is taken, half of it waits for the other half, and what is no good is told once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
import pytest

from sidecar.net import renewal as module
from sidecar.net.certificate_files import Flaw, Flawed
from sidecar.net.renewal import GRACE, FileWatch, Renewed
from sidecar.runtime import FakeClock
from tests.support.renewal import FakeAgenda, Watches

FLAW = Flaw("key", "key.pem", "is empty")


class Made(NamedTuple):
    mark: bytes


class Thing(Renewed[Made]):
    """Made of a file that the test writes: nothing whole begins with `!`."""

    def __init__(self, *files: str) -> None:
        self.clock = FakeClock()
        self.agenda = FakeAgenda()
        super().__init__(Made(b"first"), self.clock, self.agenda)  # type: ignore[arg-type]
        self.file = b"first"
        self.told: list[object] = []
        self.looks = 0
        self._files = files

    @property
    def files(self) -> tuple[str, ...]:
        return self._files

    @property
    def mark(self) -> bytes:
        """Of what is in use."""
        return self._made.mark

    def _read(self, seen: bytes) -> Made | Flawed | None:
        self.looks += 1
        if self.file == seen:
            return None
        return Flawed(self.file, (FLAW,)) if self.file.startswith(b"!") else Made(self.file)

    def _take(self, made: Made) -> None:
        assert made is self._made
        self.told.append(made.mark)

    def _refuse(self, flaw: Flaw) -> None:
        self.told.append(flaw)

    def see(self, file: bytes) -> list[object]:
        """What is told when the file says this."""
        self.file = file
        self.look()
        return self.take()

    def wait(self) -> list[object]:
        """What is told when the grace is over."""
        self.clock.advance(GRACE)
        self.agenda.do(GRACE)
        return self.take()

    def take(self) -> list[object]:
        taken, self.told = self.told, []
        return taken


@pytest.fixture
def thing() -> Thing:
    return Thing()


def test_what_is_new_and_whole_is_in_use_and_told(thing: Thing) -> None:
    assert thing.see(b"first") == []
    assert thing.see(b"second") == [b"second"]
    assert thing.see(b"second") == []
    assert (thing.mark, thing.agenda.plans) == (b"second", [])


def test_half_a_renewal_waits_for_the_other_half(thing: Thing) -> None:
    assert thing.see(b"!half") == []
    thing.clock.advance(GRACE / 2)
    assert thing.see(b"!half") == []
    assert (thing.mark, thing.agenda.seconds()) == (b"first", [GRACE])
    assert thing.see(b"whole") == [b"whole"]
    assert thing.wait() == []


def test_a_refusal_is_told_once_after_a_moment(thing: Thing) -> None:
    assert thing.see(b"!bad") == []
    assert thing.wait() == [FLAW]
    for _ in range(3):
        thing.clock.advance(GRACE)
        assert thing.see(b"!bad") == []
    assert thing.mark == b"first"
    assert thing.agenda.plans == []


def test_something_else_that_is_wrong_is_other_news_when_it_lasts(thing: Thing) -> None:
    thing.see(b"!bad")
    assert thing.wait() == [FLAW]
    assert thing.see(b"!worse") == []
    assert thing.wait() == [FLAW]


def test_the_grace_begins_anew_with_what_is_new(thing: Thing) -> None:
    thing.see(b"!one")
    thing.clock.advance(GRACE / 2)
    thing.see(b"!two")
    thing.clock.advance(GRACE / 2)
    thing.agenda.do(GRACE)
    assert thing.take() == []
    thing.clock.advance(GRACE / 2)
    thing.agenda.do(GRACE / 2)
    assert thing.take() == [FLAW]


@pytest.mark.parametrize("back", [b"first", b"second"])
def test_after_what_is_good_the_same_failure_is_told_again(thing: Thing, back: bytes) -> None:
    thing.see(b"!bad")
    assert thing.wait() == [FLAW]
    thing.see(back)
    thing.take()
    assert thing.see(b"!bad") == []
    assert thing.wait() == [FLAW]


def test_one_that_is_closed_looks_no_more_by_itself(thing: Thing) -> None:
    thing.see(b"!bad")
    thing.close()
    assert thing.agenda.plans == []
    thing.close()


@pytest.mark.parametrize("file", [b"!bad", b"good"])
def test_one_that_is_closed_meanwhile_takes_tells_and_plans_nothing(
    thing: Thing, monkeypatch: pytest.MonkeyPatch, file: bytes
) -> None:
    in_thread = module.in_thread

    def close_meanwhile(*args: Any) -> Any:
        result = in_thread(*args)
        thing.close()
        return result

    monkeypatch.setattr(module, "in_thread", close_meanwhile)
    assert thing.see(file) == []
    assert (thing.mark, thing.agenda.plans) == (b"first", [])


# Watching --------------------------------------------------------------------------------------------------


def test_the_files_of_those_that_count_are_watched() -> None:
    watches = Watches()
    watch = FileWatch(watches.follow)
    watch.serve([])
    one, two = Thing("b", "a"), Thing("c", "a")
    watch.serve([one, two])
    watch.serve([two, one])
    (first,) = watches.all
    assert (first.is_running, first.files) == (True, ["a", "b", "c"])
    one.file = b"second"
    first.changed()
    assert (one.take(), two.take()) == ([b"second"], [])
    watch.serve([one])
    assert [each.is_running for each in watches.all] == [False, True]
    watch.serve([])
    assert [each.is_running for each in watches.all] == [False, False]


def test_one_that_is_closed_watches_nothing() -> None:
    watches = Watches()
    watch = FileWatch(watches.follow)
    one = Thing("a")
    watch.serve([one])
    watch.close()
    assert not watches.all[0].is_running
    watch.look()
    assert one.looks == 0


def test_news_while_one_looks_bring_one_more_look(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = FileWatch(Watches().follow)
    one = Thing("a")
    watch.serve([one])
    go = gevent.event.Event()

    def wait_first(function: Callable[..., Any], *args: Any) -> Any:
        go.wait()
        return function(*args)

    monkeypatch.setattr(module, "in_thread", wait_first)
    asking = [gevent.spawn(watch.look) for _ in range(5)]
    gevent.idle()
    go.set()
    gevent.joinall(asking, timeout=10, raise_error=True)
    assert one.looks == 2
