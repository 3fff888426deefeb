"""Shares of requests for several upstreams: exact over every hundred, and spread within it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.upstream.split import Split
from sidecar.wire.head import ResponseHead
from tests.support.upstreams import request_of

GET = request_of()


def named(name: str) -> Any:
    def end(request: Request) -> Response:
        return Response(ResponseHead.make(200, []), None, name)

    return end


def order(parts: list[int], count: int) -> str:
    split = Split([(named("abcdefghij"[at]), part) for at, part in enumerate(parts)])
    return "".join(split(GET).reason for _ in range(count))


def test_nine_of_every_ten() -> None:
    assert order([90, 10], 20) == "aaaaabaaaaaaaaabaaaa"


@pytest.mark.parametrize(
    ("parts", "start"), [([50, 50], "abababab"), ([50, 25, 25], "abcaabca"), ([100], "aaaa")]
)
def test_turns_are_spread(parts: list[int], start: str) -> None:
    assert order(parts, len(start)) == start


@given(st.lists(st.integers(1, 99), min_size=1, max_size=6).map(sorted), st.integers(0, 3))
def test_shares_are_exact_over_every_hundred(cuts: list[int], rounds: int) -> None:
    bounds = [0, *dict.fromkeys(cuts), 100]
    parts = [high - low for low, high in zip(bounds, bounds[1:], strict=False)]
    seen = order(parts, 100 * (rounds + 1))
    for at in range(rounds + 1):
        counted = Counter(seen[100 * at : 100 * at + 100])
        assert [counted["abcdefghij"[number]] for number in range(len(parts))] == parts


@given(st.integers(1, 99))
def test_no_share_is_ever_more_than_one_request_off(part: int) -> None:
    seen = order([part, 100 - part], 200)
    for count in range(1, 201):
        assert abs(seen[:count].count("a") - count * part / 100) < 1


def test_a_failure_of_an_upstream_is_the_answer_and_costs_its_turn() -> None:
    def fails(request: Request) -> Response:
        raise Failure("no_server")

    split = Split([(fails, 50), (named("b"), 50)])
    for _ in range(2):
        with pytest.raises(Failure):
            split(GET)
        assert split(GET).reason == "b"
