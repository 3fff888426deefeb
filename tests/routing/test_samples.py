from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.routing.regex import Regex
from sidecar.routing.samples import literal_start, paths, samples


@pytest.mark.parametrize(
    "pattern",
    [
        r"^/u/(?P<id>[0-9]+)$",
        r"^/(a|bc)d?e*f+g{2,3}$",
        r"^[^/]+\.(?:png|jpg)$",
        r"(?i)^/A[b-d]$",
        r"^\d\D\w\W\s\S$",
        r"^[\d_-]+.x$",
        r"^[^\x2f]*?y$",
        "^é[öü]$",
        "",
        "[[:a]x",
        "^(?i:ab)c$",
    ],
)
def test_samples_are_matched(pattern: str) -> None:
    regex = Regex(pattern)
    assert samples(regex)
    assert all(regex.test(text) for text in samples(regex))


@pytest.mark.parametrize("pattern", [r"^\pL$", r"a\z", "a$b", r"^[^\s\S]$", r"\bx\B"])
def test_what_cannot_be_sampled_has_no_samples(pattern: str) -> None:
    assert samples(Regex(pattern)) == ()


def test_samples_differ_where_the_pattern_lets_them() -> None:
    assert set(samples(Regex("^(a|b|c)$"))) == {"a", "b", "c"}


def test_samples_are_short() -> None:
    assert max(map(len, samples(Regex("^a{900}")))) if samples(Regex("^a{900}")) else True
    assert all(len(text) <= 200 for text in samples(Regex("x{150}y{150}|z")))


def test_paths_begin_with_a_slash() -> None:
    assert paths(Regex("foo")) == ("/foo",)
    assert paths(Regex("^foo")) == ()
    assert "/u/1" in paths(Regex("^/u/[0-9]$"))


@pytest.mark.parametrize(
    ("pattern", "start"),
    [
        ("^/u/[0-9]+$", "/u/"),
        (r"\A/u", "/u"),
        ("^/ab?", "/a"),
        ("/u", ""),
        ("(?i)^/u", ""),
        ("^(?i:a)", ""),
        ("^a|b", ""),
        (r"^\pL", ""),
        ("", ""),
    ],
)
def test_what_all_matches_begin_with(pattern: str, start: str) -> None:
    assert literal_start(Regex(pattern)) == start


@given(st.lists(st.sampled_from(["a", "/", "[b-f]", ".", "x*", "(y|z)", r"\d+", "^", "$"]), max_size=6))
def test_any_sample_is_matched(parts: list[str]) -> None:
    regex = Regex("".join(parts).replace("**", "*"))
    assert all(regex.test(text) and text.startswith(literal_start(regex)) for text in samples(regex))
