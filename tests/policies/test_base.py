from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.policies.base import Policy, wrap


class Counting(Policy):
    """Forwards as often as it is told."""

    def __init__(self, times: int) -> None:
        self.times = times

    @classmethod
    def of(cls, settings: Any) -> Counting | None:
        return cls(1) if settings else None

    def handle(self, request: Request, forward: Any) -> Response:
        answers = [forward(request) for _ in range(self.times)]
        if not answers:
            raise Failure("no_route")
        return answers[-1]


@pytest.mark.parametrize("times", [1, 3])
def test_a_policy_decides_how_often_it_forwards(times: int) -> None:
    seen: list[object] = []

    def forward(request: Any) -> Any:
        seen.append(request)
        return len(seen)

    asked: Any = object()
    assert wrap(Counting(times), forward)(asked) == times  # type: ignore[comparison-overlap]
    assert seen == [asked] * times


def test_a_policy_may_answer_without_forwarding() -> None:
    asked: Any = object()
    with pytest.raises(Failure, match="no_route"):
        wrap(Counting(0), lambda request: pytest.fail("forwarded"))(asked)


def test_off_means_absent() -> None:
    assert Counting.of(None) is None
    assert isinstance(Counting.of("on"), Counting)
