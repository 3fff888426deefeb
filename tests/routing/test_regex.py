from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.routing.regex import Regex


def groups(pattern: str, text: str) -> list[str | None]:
    regex = Regex(pattern)
    found = regex.search(text)
    assert found is not None
    return [found.group(number) for number in range(regex.groups + 1)]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^/u/(?P<id>[0-9]+)$", "/u/77", True),
        (r"^/u/[0-9]+$", "/u/77\n", False),
        (r"b", "abc", True),
        (r"^b", "abc", False),
        (r"(?i)^/A$", "/a", True),
        (r"^/.$", "/é", True),
        (r"^/[é]$", "/é", True),
        (r"^/\w$", "/é", False),
        (r"^/admin/.*$", "/admin/a\nb", True),
        (r"^/admin/.*$", "/admin/\udcff", True),
        (r"^/.$", "/\udcff", True),
        (r"^/..$", "/\udcff", False),
        (r"", "", True),
    ],
)
def test_matching(pattern: str, text: str, expected: bool) -> None:
    assert Regex(pattern).test(text) is expected
    assert (Regex(pattern).search(text) is not None) is expected


def test_groups_keep_what_the_client_sent() -> None:
    assert groups("^/(é*)/(.+)/(x)?(.*)$", "/éé/\udcff\udce9ü/b") == [
        "/éé/\udcff\udce9ü/b",
        "éé",
        "\udcff\udce9ü",
        None,
        "b",
    ]
    assert groups("b(c)", "abcd") == ["bc", "c"]


def test_named_groups() -> None:
    regex = Regex("^/(?P<a>x)?(y)(?P<b>.)$")
    assert regex.names == {"a": 1, "b": 3}
    assert regex.named("/y\udcff") == {"a": "", "b": "\udcff"}
    assert regex.named("/") == {}


def test_no_such_group() -> None:
    found = Regex("a").search("a")
    assert found is not None
    with pytest.raises(IndexError):
        found.group(1)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?=a)", "'(?=a)' is not a regex: look-around is not supported"),
        ("(?!a)b", "look-around"),
        ("(?<=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back-references are not supported"),
        ("(?P<x>a)(?P=x)", "back-references are not supported"),
        (r"a\Z", "write $ for the end"),
        ("(?>a)", "atomic"),
        ("a++", "possessive"),
        ("(?x) a", "verbose"),
        ("a{2000}", "a repeat is too large"),
        ("(a{100}){100}", "a repeat is too large"),
        ("(", "missing )"),
        ("[z-a]", "invalid character class range: z-a"),
        ("\udcff", "is not a regex"),
    ],
)
def test_what_cannot_be_run_says_why(pattern: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Regex(pattern)
    assert message in str(error.value)


def test_two_of_one_pattern_are_equal() -> None:
    assert Regex("a") == Regex("a") != Regex("b")
    assert len({Regex("a"), Regex("a")}) == 1
    assert Regex("a") != "a"
    assert (str(Regex("a")), repr(Regex("a"))) == ("a", "<Regex 'a'>")


def test_what_stalls_others_does_not_stall_this() -> None:
    assert not Regex("^(a+)+$").test("a" * 50_000 + "b")


@given(st.binary(max_size=60))
def test_any_bytes_of_a_client_can_be_searched(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    assert groups("^(.*)$", text) == [text, text]
    assert Regex(f"^.{{{len(text)}}}$").test(text)
