"""One line of a log, put together in place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.line import Line


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)))))
def test_texts_stand_one_behind_another(texts: list[str]) -> None:
    line = Line()
    for text in texts:
        line.text(text)
    assert line.take() == "".join(texts).encode()


def test_a_lone_surrogate_is_refused_and_leaves_the_line_as_it_was() -> None:
    line = Line()
    line.text("a")
    with pytest.raises(UnicodeEncodeError):
        line.text("\udcff")
    assert line.take() == b"a"


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_number_is_written_as_python_writes_it(number: int) -> None:
    line = Line()
    line.number(number)
    assert line.take() == str(number).encode()


@given(st.floats(0, 1e9))
def test_milliseconds_have_three_decimals_and_are_cut_off(seconds: float) -> None:
    line = Line()
    line.millis(seconds)
    micros = int(seconds * 1e6)
    assert line.take() == f"{micros // 1000}.{micros % 1000:03d}".encode()


@given(st.binary(max_size=40))
def test_plain_bytes_are_a_json_string_or_nothing(data: bytes) -> None:
    line = Line()
    taken = line.plain(data, 30)
    written = line.take()
    assert taken == (len(data) <= 30 and all(32 <= byte <= 126 and byte not in b'"\\' for byte in data))
    assert json.loads(written) == data.decode("ascii") if taken else written == b""


def test_a_line_can_be_taken_again_and_again() -> None:
    line = Line()
    assert line.take() == b""
    for _ in range(3):
        line.text("x" * 10_000)
        assert line.take() == b"x" * 10_000
        line.text("y")
        assert line.take() == b"y"
