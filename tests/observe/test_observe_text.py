"""A stranger's text is bounded, valid and quiet."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.text import fit, quoted, shown, time_text

ANY_TEXT = st.one_of(st.binary(max_size=60), st.text(st.characters(), max_size=60))


@given(ANY_TEXT, st.integers(1, 40))
def test_a_fitted_text_is_valid_and_within_its_limit(text: str | bytes, limit: int) -> None:
    fitted = fit(text, limit)
    assert len(fitted) <= limit
    fitted.encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_valid_text_that_fits_stays_as_it_is(text: str) -> None:
    assert fit(text, 40) == fit(text.encode(), 40) == text


def test_a_text_that_was_cut_ends_with_a_mark() -> None:
    assert fit("abcdef", 4) == "abc…"
    assert fit(b"abcdef", 4) == "abc…"


def test_bytes_that_are_no_text_are_spelled_out() -> None:
    assert fit(b"a\xff", 10) == "a\\xff"
    assert fit("a\udcff", 10) == "a\\udcff"


def test_a_cut_never_tears_a_character() -> None:
    assert fit("\U0001f600" * 9, 4) == fit(("\U0001f600" * 9).encode(), 4) == "\U0001f600" * 3 + "…"


@given(st.text(st.characters(), max_size=40))
def test_what_is_shown_is_one_printable_word_or_a_json_string(text: str) -> None:
    word = shown(fit(text, 60))
    assert word.isprintable()
    assert json.loads(word) == fit(text, 60) if word.startswith('"') else word == text and " " not in word


def test_a_plain_word_is_shown_as_it_is() -> None:
    assert shown("/päth?a=b") == "/päth?a=b"


def test_no_text_is_shown_as_quotes() -> None:
    assert shown("") == quoted("") == '""'


def test_times_are_utc_with_milliseconds() -> None:
    assert time_text(1_709_208_000.25) == "2024-02-29T12:00:00.250Z"
