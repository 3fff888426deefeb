"""Clocks, and tasks that belong to the process."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent.event import Event

from sidecar.runtime import FakeClock, SystemClock, Tasks
from tests.support.streams import outcome, settle


def test_the_clocks_of_the_machine_are_the_machines() -> None:
    clock = SystemClock()
    before, date = time.monotonic(), time.time()
    assert before <= clock.monotonic() <= time.monotonic()
    assert date <= clock.time() <= time.time()


def test_a_fake_clock_moves_when_told() -> None:
    clock = FakeClock(10.0, 1000.0)
    assert (clock.monotonic(), clock.time()) == (10.0, 1000.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (12.5, 1002.5)


class Reports:
    """What died, and of what."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, error: BaseException) -> None:
        self.seen.append((name, error))


def test_a_task_runs_with_its_arguments() -> None:
    reports = Reports()
    seen: list[int] = []
    outcome(Tasks(reports).spawn("add", lambda a, b: seen.append(a + b), 1, 2))
    assert seen == [3]
    assert reports.seen == []


def test_a_task_that_dies_is_reported_by_name_and_printed_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    reports = Reports()

    def die() -> None:
        raise ValueError("on purpose")

    outcome(Tasks(reports).spawn("probe", die))
    assert [(name, str(error)) for name, error in reports.seen] == [("probe", "on purpose")]
    assert capsys.readouterr().err == ""


def test_one_that_dies_does_not_take_the_others_along() -> None:
    tasks = Tasks(Reports())
    go = Event()
    waiting = tasks.spawn("waits", go.wait)
    tasks.spawn("dies", lambda: 1 / 0)
    settle()
    assert not waiting.dead
    go.set()
    outcome(waiting)


def test_stopping_ends_what_runs_and_waits_for_its_end() -> None:
    reports = Reports()
    ended: list[str] = []
    tasks = Tasks(reports)

    def run() -> None:
        try:
            Event().wait()
        finally:
            gevent.sleep(0)
            ended.append("clean")

    tasks.spawn("one", run)
    tasks.spawn("two", run)
    settle()
    tasks.stop()
    assert ended == ["clean", "clean"]
    assert reports.seen == []


def test_stopping_with_nothing_running_is_nothing() -> None:
    Tasks(Reports()).stop()
