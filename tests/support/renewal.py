"""What renewals take from outside, done by the test: plans for later, and watches of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.net.agenda import Plan


class FakeAgenda:
    """What is planned, for the test to do."""

    def __init__(self) -> None:
        self.plans: list[tuple[float, Callable[[], None]]] = []

    def plan(self, seconds: float, do: Callable[[], None]) -> Any:
        """As that of an Agenda."""
        plan = (seconds, do)
        self.plans.append(plan)
        return _FakePlan(self, plan)

    def seconds(self) -> list[float]:
        """When something is due."""
        return sorted(round(seconds, 3) for seconds, _ in self.plans)

    def do(self, seconds: float) -> None:
        """What is due in so many seconds."""
        (plan,) = [plan for plan in self.plans if plan[0] == seconds]
        self.plans.remove(plan)
        plan[1]()


class _FakePlan(Plan):
    def __init__(self, agenda: FakeAgenda, plan: Any) -> None:
        self._fake = agenda
        self._made = plan

    def cancel(self) -> None:
        if self._made in self._fake.plans:
            self._fake.plans.remove(self._made)


class FakeWatch:
    """Stands for a watch; `changed()` is its news."""

    def __init__(self, files: Sequence[str], changed: Callable[[], None]) -> None:
        self.files = list(files)
        self.changed = changed
        self.is_running = False

    def start(self) -> None:
        """It runs."""
        self.is_running = True

    def stop(self) -> None:
        """It runs no more."""
        self.is_running = False


class Watches:
    """Makes them, and keeps all in order."""

    def __init__(self) -> None:
        self.all: list[FakeWatch] = []

    def follow(self, files: Sequence[str], changed: Callable[[], None]) -> FakeWatch:
        """As the application has it."""
        self.all.append(FakeWatch(files, changed))
        return self.all[-1]
