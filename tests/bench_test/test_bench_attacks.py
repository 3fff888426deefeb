"""What the table of attacks is made of."""

from __future__ import annotations

import pytest

from tests.bench.attacks import percentiles, rules


def test_a_hiccup_in_one_turn_of_three_is_not_seen():
    steady = [(float(turn) + at / 200, 0.001) for turn in range(3) for at in range(100)]
    hiccup = [(at, 0.5 if 1.0 <= at < 1.1 else took) for at, took in steady]
    turns = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    assert percentiles(hiccup, turns) == (0.001, 0.001)
    assert percentiles(hiccup, turns[1:2]) == (0.001, 0.5)


def test_a_turn_in_which_nobody_could_ask_counts_as_long_as_it_is():
    assert percentiles([(0.5, 0.001)], [(1.0, 1.5)]) == (0.5, 0.5)


def test_what_was_asked_between_turns_is_left_out():
    assert percentiles([(0.0, 0.001), (0.7, 9.0)], [(0.0, 0.5)]) == (0.001, 0.001)


@pytest.mark.parametrize("noise", ["", "Traceback\n", '{"event":"started"}\n'])
def test_the_rules_are_those_that_the_output_names(noise: str):
    event = '{"event":"http2_refused","rule":"%s"}\n'
    assert rules(noise + event % "ping_flood" + event % "empty_frames" * 2) == ["empty_frames", "ping_flood"]
