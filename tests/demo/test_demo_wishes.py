"""A query is understood or refused with advice; nothing in it goes beyond its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.demo.wishes import MAX_SECONDS, MAX_SIZE, Refused, Wishes, read_query


@pytest.mark.parametrize(
    ("query", "wishes"),
    [
        ("", Wishes()),
        ("a=1&a=2&b", Wishes()),
        ("status=503&size=10", Wishes(status=503, size=10)),
        ("delay=1.5&drip=60", Wishes(delay=1.5, drip=60.0)),
        ("chunked=1&trailers=1", Wishes(chunked=True, trailers=True)),
        ("close=1&chunked=0", Wishes(close=True)),
        (f"size={MAX_SIZE}", Wishes(size=MAX_SIZE)),
        ("st%61tus=404", Wishes(status=404)),
    ],
)
def test_what_is_asked_for(query: str, wishes: Wishes) -> None:
    assert read_query(query, is_http_1_1=True) == wishes


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("status=199", "status='199': write a whole number from 200 to 599"),
        ("status=", "status='': write a whole number from 200 to 599"),
        (f"size={MAX_SIZE + 1}", f"size='{MAX_SIZE + 1}': write a whole number from 0 to {MAX_SIZE}"),
        ("size=%D9%A1", "size='١': write a whole number from 0 to 1073741824"),
        ("delay=61", "delay='61': write seconds from 0 to 60, like 1.5"),
        ("drip=nan", "drip='nan': write seconds from 0 to 60, like 1.5"),
        ("close=yes", "close='yes': write 1 or 0"),
        ("size=1&size=2", "size is given twice"),
        ("close=1&chunked=1", "close does not go with chunked or trailers: a body ends in one way"),
        ("&".join("a" * 65), "more than 64 parameters in the query"),
    ],
)
def test_what_is_refused(query: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_query(query, is_http_1_1=True)
    assert (refused.value.status, refused.value.text) == (400, text)


@pytest.mark.parametrize("query", ["chunked=1", "trailers=1"])
def test_chunks_are_not_for_http_1_0(query: str) -> None:
    with pytest.raises(Refused):
        read_query(query, is_http_1_1=False)


@given(st.dictionaries(st.sampled_from(["status", "size", "delay", "drip", "close"]), st.text(max_size=12)))
def test_every_answer_is_bounded(given_values: dict[str, str]) -> None:
    try:
        wishes = read_query("&".join(f"{name}={text}" for name, text in given_values.items()), True)
    except Refused:
        return
    assert 200 <= wishes.status <= 599
    assert -1 <= wishes.size <= MAX_SIZE
    assert 0 <= wishes.delay <= MAX_SECONDS
    assert 0 <= wishes.drip <= MAX_SECONDS
