"""A reload comes soon, comes once, and harms nothing when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.reload import HUP, LONGEST_WAIT, QUIET, WATCH, Reloader, Result, later
from sidecar.runtime import FakeClock, Tasks


class Content:
    """What was read; its text is its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint


class Bench:
    """A Reloader whose time, files and generations belong to the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.content = "one"
        self.load_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.applied: list[tuple[float, str]] = []
        self.during: Callable[[], None] = lambda: None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.start = self.clock.now
        self.reloader = Reloader(self.load, self.apply, self.event, self.clock, self.call_later)
        self.reloader.fingerprint = "one"

    def load(self) -> Content:
        if self.load_error:
            raise self.load_error
        return Content(self.content)

    def apply(self, content: Content) -> None:
        self.during()
        if self.apply_error:
            raise self.apply_error
        self.applied.append((round(self.clock.now - self.start, 6), content.fingerprint))

    def event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        assert seconds >= 0
        self.calls.append((self.clock.now + seconds, function))

    def run_until(self, moment: float) -> None:
        """Move the clock to `moment`, in seconds since the start, through every call that is due."""
        while due := [call for call in self.calls if call[0] <= self.start + moment]:
            call = min(due, key=lambda one: one[0])
            self.calls.remove(call)
            self.clock.now = max(self.clock.now, call[0])
            call[1]()
        self.clock.now = self.start + moment

    def change(self, content: str, reason: str = WATCH) -> None:
        """One change and the reload it brings."""
        self.content = content
        self.reloader.request(reason)
        self.run_until(self.clock.now - self.start + 1)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_change_is_applied_when_it_has_been_quiet(bench: Bench) -> None:
    bench.content = "two"
    bench.reloader.request(WATCH)
    bench.run_until(QUIET - 0.001)
    assert not bench.applied
    bench.run_until(QUIET)
    assert bench.applied == [(QUIET, "two")]
    assert bench.events == [("reload_applied", {"reason": "inotify", "seconds": 0.0})]
    assert bench.reloader.last == Result("applied", "inotify", bench.clock.date)
    assert (bench.reloader.applied, bench.reloader.fingerprint) == (1, "two")


def test_a_burst_of_changes_is_one_reload_after_the_last(bench: Bench) -> None:
    bench.content = "two"
    for moment in (0.0, 0.06, 0.12):
        bench.run_until(moment)
        bench.reloader.request(WATCH)
    bench.run_until(1)
    assert bench.applied == [(0.12 + QUIET, "two")]


def test_changes_without_end_do_not_put_a_reload_off_for_ever(bench: Bench) -> None:
    bench.content = "two"
    for step in range(20):
        bench.run_until(step * 0.05)
        bench.reloader.request(WATCH)
    assert bench.applied == [(LONGEST_WAIT, "two")]


@given(st.lists(st.floats(0, 0.4), min_size=1, max_size=20))
def test_every_change_is_followed_by_a_reading_within_the_longest_wait(pauses: list[float]) -> None:
    bench = Bench()
    moment = 0.0
    for number, pause in enumerate(pauses):
        moment += pause
        bench.run_until(moment)
        bench.content = f"content {number}"
        bench.reloader.request(WATCH)
    bench.run_until(moment + LONGEST_WAIT)
    assert bench.applied[-1][1] == bench.content
    assert bench.applied[0][0] <= pauses[0] + LONGEST_WAIT + 1e-6
    assert not bench.calls


def test_reasons_of_one_reload_are_told_together(bench: Bench) -> None:
    bench.content = "two"
    for reason in (WATCH, HUP, WATCH):
        bench.reloader.request(reason)
    bench.run_until(1)
    assert bench.events[0][1]["reason"] == "inotify, HUP"


def test_a_request_during_a_reload_brings_one_more_afterwards(bench: Bench) -> None:
    running: list[str] = []

    def ask() -> None:
        assert not running
        running.append(bench.content)
        if bench.content == "two":
            bench.content = "three"
            bench.reloader.request(WATCH)
            bench.reloader.request(WATCH)
            # The reload takes long enough for its successor to be due.
            bench.run_until(1)
        running.pop()

    bench.during = ask
    bench.content = "two"
    bench.reloader.request(WATCH)
    bench.run_until(2)
    assert [content for _, content in bench.applied] == ["two", "three"]
    assert not bench.calls


def test_what_changes_back_and_forth_unchanged_is_silent_unless_asked_for(bench: Bench) -> None:
    bench.change("one")
    assert (bench.events, bench.applied, bench.reloader.last) == ([], [], None)
    bench.change("one", HUP)
    assert bench.events == [("reload_unchanged", {"reason": "HUP"})]
    assert bench.reloader.last is not None
    assert bench.reloader.last.outcome == "unchanged"


def test_all_mistakes_are_reported_in_one_event(bench: Bench) -> None:
    bench.load_error = ConfigurationError(["a.ini:1: wrong", "b.ini:2: wrong"])
    bench.change("two")
    assert bench.events == [
        ("reload_refused", {"reason": "inotify", "mistakes": ["a.ini:1: wrong", "b.ini:2: wrong"]})
    ]
    assert bench.reloader.last == Result(
        "refused", "inotify", bench.clock.date, ("a.ini:1: wrong", "b.ini:2: wrong")
    )
    assert (bench.reloader.refused, bench.reloader.applied, bench.reloader.fingerprint) == (1, 0, "one")


@pytest.mark.parametrize("where", ["load_error", "apply_error"])
def test_the_same_mistakes_are_reported_once_unless_asked_for(bench: Bench, where: str) -> None:
    setattr(bench, where, ConfigurationError(["wrong"]))
    bench.change("two")
    bench.change("two")
    assert bench.names == ["reload_refused"]
    bench.change("two", HUP)
    assert bench.names == ["reload_refused"] * 2
    assert bench.reloader.refused == 2


def test_other_mistakes_are_reported_again(bench: Bench) -> None:
    bench.load_error = ConfigurationError(["wrong"])
    bench.change("two")
    bench.load_error = ConfigurationError(["still wrong"])
    bench.change("three")
    bench.load_error = ConfigurationError(["wrong"])
    bench.change("two")
    assert bench.names == ["reload_refused"] * 3


def test_what_could_not_be_applied_is_tried_again(bench: Bench) -> None:
    bench.apply_error = ConfigurationError(["the port is in use"])
    bench.change("two")
    bench.apply_error = None
    bench.change("two")
    assert bench.names == ["reload_refused", "reload_applied"]


def test_taking_a_refused_change_back_is_told(bench: Bench) -> None:
    bench.load_error = ConfigurationError(["wrong"])
    bench.change("two")
    bench.load_error = None
    bench.change("one")
    bench.change("one")
    assert bench.names == ["reload_refused", "reload_unchanged"]
    bench.load_error = ConfigurationError(["wrong"])
    bench.change("two")
    assert bench.names[2:] == ["reload_refused"]


@pytest.mark.parametrize("where", ["load_error", "apply_error"])
def test_any_other_exception_is_refused_with_its_traceback(bench: Bench, where: str) -> None:
    setattr(bench, where, ZeroDivisionError("oops"))
    bench.change("two")
    name, fields = bench.events[0]
    assert (name, fields["mistakes"]) == ("reload_refused", ["ZeroDivisionError: oops"])
    assert isinstance(fields["exc_info"], ZeroDivisionError)
    assert bench.reloader.fingerprint == "one"
    setattr(bench, where, None)
    bench.change("two")
    assert bench.applied[0][1] == "two"


def test_a_reload_that_is_killed_does_not_block_the_next(bench: Bench) -> None:
    bench.during = lambda: (_ for _ in ()).throw(gevent.GreenletExit())
    bench.content = "two"
    bench.reloader.request(WATCH)
    with pytest.raises(gevent.GreenletExit):
        bench.run_until(1)
    bench.during = lambda: None
    bench.change("two")
    assert bench.names == ["reload_applied"]


def test_nothing_begins_after_stop(bench: Bench) -> None:
    bench.content = "two"
    bench.reloader.request(WATCH)
    bench.reloader.stop()
    bench.reloader.request(HUP)
    bench.run_until(1)
    assert (bench.applied, bench.events) == ([], [])


def test_later_calls_from_a_task() -> None:
    errors: list[BaseException] = []
    tasks = Tasks(lambda _, error: errors.append(error))
    done = gevent.event.Event()
    later(tasks)(0.0, done.set)
    assert done.wait(5)
    tasks.stop()
    assert not errors
