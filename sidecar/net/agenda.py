"""Things to do at a time, a few at once.

What waits is a place in a heap: a greenlet for each would be 20 KB. Law: whatever is planned runs once, or is
cancelled; what is cancelled is stopped if it runs, and forgotten.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from ..runtime import Clock, Tasks


class Plan:
    """One thing to do."""

    __slots__ = ("_agenda", "do", "task")

    def __init__(self, agenda: Agenda, do: Callable[[], None]) -> None:
        self._agenda = agenda
        self.do: Callable[[], None] | None = do  # None: it is cancelled
        self.task: Any = None  # the greenlet, from the moment when it is due

    def cancel(self) -> None:
        """Do not do it, or stop it. Does not wait; of no effect when it is done."""
        if self.task is not None:
            self.task.kill(block=False)
        elif self.do is not None:
            self.do = None
            self._agenda.forget_one()


class Agenda:
    """What is planned. It needs a task of its own only while there is something."""

    def __init__(self, name: str, tasks: Tasks, clock: Clock, at_once: int) -> None:
        """`name`: of the tasks; `at_once`: how many things are done at one time."""
        self._name, self._tasks, self._clock, self._at_once = name, tasks, clock, at_once
        self._due: list[tuple[float, int, Plan]] = []
        self._number = 0  # of the last plan: what is due at one time keeps its order
        self._void = 0  # places of plans that are cancelled
        self._running = 0
        self._is_kept = False
        self._changed = Event()

    def plan(self, seconds: float, do: Callable[[], None]) -> Plan:
        """Do this so many seconds from now, or as soon as others are done."""
        plan = Plan(self, do)
        self._number += 1
        heapq.heappush(self._due, (self._clock.monotonic() + seconds, self._number, plan))
        self._changed.set()
        if not self._is_kept:
            self._is_kept = True
            self._tasks.spawn(self._name, self._keep)
        return plan

    def forget_one(self) -> None:
        """A plan was cancelled before its time."""
        self._void += 1
        self._changed.set()

    def _keep(self) -> None:
        try:
            while self._due or self._running:
                self._changed.clear()
                self._changed.wait(self._begin())
        finally:
            self._is_kept = False

    def _begin(self) -> float | None:
        """Begin what is due. Seconds until more is; None: that takes a change; 0: nothing is left."""
        if self._void > len(self._due) // 2:
            self._due = [one for one in self._due if one[2].do is not None]
            heapq.heapify(self._due)
            self._void = 0
        while self._due and self._running < self._at_once:
            when, _, plan = self._due[0]
            if plan.do is None:
                self._void -= 1
            else:
                seconds = when - self._clock.monotonic()
                if seconds > 0:
                    return seconds
                self._running += 1
                plan.task = self._tasks.spawn(self._name, plan.do)
                # Not at the end of the task itself: one that is killed before it begins has no end.
                plan.task.rawlink(self._end)
            heapq.heappop(self._due)
        return None if self._due or self._running else 0.0

    def _end(self, _task: object) -> None:
        self._running -= 1
        self._changed.set()
