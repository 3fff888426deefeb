"""The retry budget: the bound at every moment, exact shares, the option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.config.kinds import percent
from sidecar.config.schema import options
from sidecar.upstream.budget import Budget, BudgetOptions


def most_retries(share: int, requests: int) -> int:
    """How many retries begin while `requests` are in progress."""
    budget = Budget(share)
    count = 0
    while count <= 2 * requests + 10 and budget.take(requests):
        count += 1
    return count


@pytest.mark.parametrize(
    ("share", "requests", "most"),
    [
        (20, 0, 3),
        (20, 19, 3),
        (20, 20, 4),
        (20, 100, 20),
        (29, 100, 29),  # 0.29 * 100 is 28.999…
        (7, 100, 7),
        (0, 1000, 3),
        (100, 50, 50),
    ],
)
def test_retries_in_progress_are_a_share_of_the_requests_and_at_least_three(
    share: int, requests: int, most: int
) -> None:
    assert most_retries(share, requests) == most


def test_off_has_no_bound() -> None:
    budget = Budget(-1)
    assert all(budget.take() for _ in range(1000))
    assert budget.refused == 0


def test_a_retry_that_ended_makes_room_for_another() -> None:
    budget = Budget(0)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    budget.give_back()
    assert [budget.take() for _ in range(2)] == [True, False]
    assert (budget.retries, budget.refused) == (3, 2)


class BudgetMachine(RuleBasedStateMachine):
    """Requests and retries begin and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(20)
        self.requests = 0
        self.retries = 0

    @rule(count=st.integers(1, 40))
    def begin(self, count: int) -> None:
        self.requests += count

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.requests -= data.draw(st.integers(1, self.requests))

    @rule()
    def take(self) -> None:
        bound = max(3, self.requests * 20 // 100)
        taken = self.budget.take(self.requests)
        assert taken == (self.retries + 1 <= bound)
        self.retries += taken

    @precondition(lambda self: self.retries)
    @rule()
    def give_back(self) -> None:
        self.budget.give_back()
        self.retries -= 1

    @invariant()
    def counts_are_right(self) -> None:
        assert self.budget.retries == self.retries


TestBudgetMachine = BudgetMachine.TestCase


def test_more_ends_than_beginnings_do_not_count_below_zero() -> None:
    budget = Budget(20)
    budget.give_back()
    assert budget.retries == 0


@given(st.integers(0, 100))
def test_a_share_is_shown_as_it_is_read(value: int) -> None:
    kind = percent(0, 100)
    assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize(("text", "value"), [("off", -1), ("0%", 0), ("20%", 20), ("100%", 100)])
def test_the_option_is_a_share_or_off(text: str, value: int) -> None:
    kind = options(BudgetOptions)["retry_budget"].kind  # type: ignore[arg-type]
    assert kind.parse(text) == value
    assert kind.show(value) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "'20' is not a share: write whole percent, like 20%, or off"),
        ("0.2", "'0.2' is not a share: write whole percent, like 20%, or off"),
        ("-1%", "'-1%' is not a share: write whole percent, like 20%, or off"),
        ("\u0662%", "'\u0662%' is not a share: write whole percent, like 20%, or off"),
        ("101%", "101% is not between 0% and 100%, or off"),
    ],
)
def test_what_is_no_share_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        options(BudgetOptions)["retry_budget"].kind.parse(text)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_fifth_is_the_default() -> None:
    assert BudgetOptions().retry_budget == 20


def taken(budget: Budget, requests: int = 0) -> int:
    """How many retries begin now, one beside the other."""
    count = 0
    while count < 5000 and budget.take(requests):
        count += 1
    return count


def test_requests_without_a_retry_save_for_the_moment_when_a_server_dies() -> None:
    budget = Budget(20)
    budget.earn(99)
    # 19 of 99 requests, and the three that are always allowed cost savings too.
    assert taken(budget) == 19
    assert budget.refused == 1
    for _ in range(19):
        budget.give_back()
    # Nothing is left but what a quiet upstream may do.
    assert taken(budget) == 3


def test_savings_have_a_bound_and_add_up() -> None:
    budget = Budget(10)
    budget.earn(10_000_000)
    assert taken(budget) == 1000
    few = Budget(10)
    for _ in range(50):
        few.earn(1)
    assert taken(few) == 5


def test_in_a_long_trouble_the_share_is_had_once() -> None:
    budget = Budget(20)
    begun = 0
    for _ in range(1000):
        budget.earn(10)
        while budget.take(100):
            begun += 1
            budget.give_back()
            if begun % 2 == 0:
                break
    # Two of each ten; what is taken within the share of those in progress is not saved beside it.
    assert begun == 2000
    assert taken(budget, 100) == 20


@pytest.mark.parametrize("share", [0, -1])
def test_nothing_is_saved_without_a_share(share: int) -> None:
    budget = Budget(share)
    budget.earn(1000)
    assert taken(budget) == (3 if share == 0 else 5000)
