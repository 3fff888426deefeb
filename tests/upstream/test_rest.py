"""How long connections may rest: learned, never beyond what the configuration allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.rest import Rest

SECONDS = st.floats(0.001, 1000.0)


def test_nothing_known_means_what_the_configuration_says():
    assert Rest(60.0).limit == 60.0


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        (b"timeout=5", 4.5),
        (b"timeout=5, max=1000", 4.5),
        (b"max=100, Timeout = 10", 9.0),
        (b'timeout="15"', 13.5),
        (b"timeout=100", 60.0),
        (b"timeout=0", 0.05),
        (b"max=100", 60.0),
        (b"timeout=x", 60.0),
        (b"mytimeout=5", 60.0),
        (b"", 60.0),
    ],
)
def test_the_servers_word_is_taken_a_little_early(field: bytes, limit: float):
    rest = Rest(60.0)
    rest.told(field)
    assert rest.limit == pytest.approx(limit)


def test_one_connection_that_was_closed_may_be_a_restart():
    rest = Rest(60.0)
    rest.closed(1.0)
    assert rest.limit == 60.0


def test_two_that_were_closed_after_the_same_time_show_the_servers_limit():
    rest = Rest(60.0)
    rest.closed(1.0)
    rest.closed(1.02)
    assert rest.limit == pytest.approx(0.9)


def test_a_restart_that_closes_connections_of_all_ages_teaches_no_limit():
    rest = Rest(60.0)
    for seconds in (0.3, 7.0, 1.9, 20.0, 3.5):
        rest.closed(seconds)
    assert rest.limit == 60.0


def test_a_short_rest_is_harmless_and_a_long_one_is_not_before_it_was_survived():
    rest = Rest(60.0)
    assert rest.is_safe(0.1)
    assert not rest.is_safe(1.0)
    rest.survived(5.0)
    assert rest.is_safe(1.0)
    assert rest.is_safe(4.5)
    assert not rest.is_safe(4.9)


def test_what_was_survived_is_forgotten_when_the_server_closes_sooner():
    rest = Rest(60.0)
    rest.survived(5.0)
    rest.closed(1.0)
    assert not rest.is_safe(0.95)
    assert rest.is_safe(0.5)


def test_a_server_that_closes_at_once_makes_even_short_rests_unsafe():
    rest = Rest(60.0)
    rest.closed(0.1)
    assert not rest.is_safe(0.1)


@pytest.mark.parametrize(("longest", "limit"), [(30.0, 30.0), (90.0, 90.0)])
def test_another_configuration_counts_where_nothing_was_learned(longest: float, limit: float):
    rest = Rest(60.0)
    rest.allow(longest)
    assert rest.limit == limit


def test_what_was_learned_outlives_another_configuration():
    rest = Rest(60.0)
    rest.told(b"timeout=5")
    rest.allow(90.0)
    assert rest.limit == pytest.approx(4.5)
    rest.allow(2.0)
    assert rest.limit == 2.0


@given(st.lists(st.tuples(st.sampled_from(["closed", "survived", "allow"]), SECONDS)), SECONDS)
def test_the_limit_never_exceeds_the_configuration_and_what_closed_is_never_safe(
    steps: list[tuple[str, float]], after: float
):
    rest = Rest(60.0)
    for name, seconds in steps:
        getattr(rest, name)(max(seconds, 0.05))
        assert 0.0 < rest.limit <= max(rest.longest, 0.05)
    rest.closed(after)
    assert not rest.is_safe(after)
