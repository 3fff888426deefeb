"""Things to do at a time: in their order, a few at once, and nothing of what is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import gevent
import pytest
from gevent.event import Event

from sidecar.net.agenda import Agenda
from sidecar.runtime import SystemClock, Tasks
from tests.support.streams import TIMEOUT, now, settle, wait_until


class Diary:
    """An agenda that does two things at once, and what was done."""

    def __init__(self) -> None:
        self.died: list[str] = []
        self.tasks = Tasks(lambda _, error: self.died.append(str(error)))
        self.agenda = Agenda("test", self.tasks, SystemClock(), 2)
        self.done: list[str] = []
        self.go = Event()

    def write(self, text: str) -> None:
        self.done.append(text)

    def linger(self, text: str) -> None:
        self.done.append(text)
        self.go.wait(TIMEOUT)

    def is_over(self) -> bool:
        return len(self.tasks._group) == 0


@pytest.fixture
def diary(no_leaks: None) -> Iterator[Diary]:
    diary = Diary()
    yield diary
    diary.tasks.stop()


def test_things_are_done_in_the_order_of_their_times(diary: Diary) -> None:
    for text, seconds in (("c", 0.03), ("a", 0.01), ("b", 0.02)):
        diary.agenda.plan(seconds, partial(diary.write, text))
    begin = now()
    wait_until(lambda: diary.done == ["a", "b", "c"])
    assert now() - begin > 0.02
    wait_until(diary.is_over)


def test_what_is_due_first_need_not_be_planned_first(diary: Diary) -> None:
    late = diary.agenda.plan(TIMEOUT, lambda: diary.write("late"))
    settle()
    diary.agenda.plan(0.0, lambda: diary.write("soon"))
    wait_until(lambda: diary.done == ["soon"])
    late.cancel()
    wait_until(diary.is_over)


def test_more_than_can_be_done_at_once_wait_in_their_order(diary: Diary) -> None:
    for text in "abcde":
        diary.agenda.plan(0.0, partial(diary.linger, text))
    settle()
    assert diary.done == ["a", "b"]
    diary.go.set()
    wait_until(diary.is_over)
    assert diary.done == ["a", "b", "c", "d", "e"]


def test_what_fails_is_reported_and_makes_room(diary: Diary) -> None:
    def fail() -> None:
        raise RuntimeError("mine")

    for _ in range(5):
        diary.agenda.plan(0.0, fail)
    diary.agenda.plan(0.0, lambda: diary.write("after"))
    wait_until(diary.is_over)
    assert diary.died == ["mine"] * 5
    assert diary.done == ["after"]


def test_what_is_cancelled_is_not_done_and_keeps_nothing(diary: Diary) -> None:
    plans = [diary.agenda.plan(TIMEOUT, lambda: diary.write("no")) for _ in range(100)]
    kept = diary.agenda.plan(0.02, lambda: diary.write("kept"))
    settle()
    for plan in plans:
        plan.cancel()
        plan.cancel()
    settle()
    assert len(diary.agenda._due) == 1
    wait_until(diary.is_over)
    kept.cancel()
    assert diary.done == ["kept"]


def test_what_runs_is_stopped_and_makes_room(diary: Diary) -> None:
    plans = [diary.agenda.plan(0.0, partial(diary.linger, text)) for text in "ab"]
    settle()
    diary.agenda.plan(0.0, lambda: diary.write("after"))
    settle()
    assert diary.done == ["a", "b"]
    plans[0].cancel()
    wait_until(lambda: diary.done[-1] == "after")
    plans[1].cancel()
    wait_until(diary.is_over)


def test_what_is_stopped_before_it_begins_makes_room_too(diary: Diary) -> None:
    plans = [diary.agenda.plan(0.0, lambda: diary.write("no")) for _ in range(2)]
    while plans[1].task is None:
        gevent.sleep(0)
    for plan in plans:
        plan.cancel()
    diary.agenda.plan(0.0, lambda: diary.write("after"))
    wait_until(diary.is_over)
    assert diary.done[-1] == "after"


def test_a_thing_may_plan_the_next(diary: Diary) -> None:
    def again() -> None:
        diary.write("x")
        if len(diary.done) < 5:
            diary.agenda.plan(0.001, again)

    diary.agenda.plan(0.0, again)
    wait_until(diary.is_over)
    assert len(diary.done) == 5
    diary.agenda.plan(0.0, lambda: diary.write("y"))
    wait_until(lambda: diary.done[-1] == "y")
