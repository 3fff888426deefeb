from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.target import normal_path, quote_path

#: Pieces that make normalisation work: generated paths of these are rarely plain.
PIECES = st.sampled_from(
    [b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%2f", b"%2F", b"%25", b"a", b"\xff", b"%c3%bc", b"%3f", b";"]
)
PATHS = st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/", "/"),
        (b"/api/users", "/api/users"),
        (b"/api/", "/api/"),
        (b"*", "*"),
        # escapes are decoded, once
        (b"/%61pi", "/api"),
        (b"/a%20b", "/a b"),
        (b"/%2561", "/%61"),
        (b"/%252e%252e/a", "/%2e%2e/a"),
        (b"/a%3Fb%23c", "/a?b#c"),
        (b"/%c3%bc", "/ü"),
        (b"/\xc3\xbc", "/ü"),
        (b"/%ff", "/\udcff"),
        (b"/\xff", "/\udcff"),
        (b"/a+b", "/a+b"),
        # slashes are merged, encoded ones too
        (b"//", "/"),
        (b"//api//users", "/api/users"),
        (b"/a%2Fb", "/a/b"),
        (b"/a%2f%2fb", "/a/b"),
        (b"/%2F/", "/"),
        # dot segments are resolved after that
        (b"/.", "/"),
        (b"/./a", "/a"),
        (b"/a/.", "/a/"),
        (b"/a/./b", "/a/b"),
        (b"/a/..", "/"),
        (b"/a/../", "/"),
        (b"/a/b/..", "/a/"),
        (b"/a/b/../c", "/a/c"),
        (b"/a//../b", "/b"),
        (b"/a/b//../../c", "/c"),
        (b"/public/..%2fadmin", "/admin"),
        (b"/public/%2e%2e/admin", "/admin"),
        (b"/public/.%2E/admin", "/admin"),
        # what only looks like a dot segment
        (b"/...", "/..."),
        (b"/.hidden", "/.hidden"),
        (b"/a/..b", "/a/..b"),
        (b"/a./b..", "/a./b.."),
        (b"/a/..;/b", "/a/..;/b"),
    ],
)
def test_a_path_is_normalised(raw: bytes, expected: str) -> None:
    assert normal_path(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"/..",
        b"/../a",
        b"/a/../..",
        b"/a/../../a",
        b"//..",
        b"/%2e%2e",
        b"/..%2f",
        b"/%00",
        b"/a%00b",
        b"/%",
        b"/%a",
        b"/%zz",
        b"/%2",
        b"/%+1",
        b"/%u0041",
        b"",
        b"a",
        b"%2Fa",
        b"**",
    ],
)
def test_a_path_that_cannot_be_normalised_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        normal_path(raw)
    assert (caught.value.rule, caught.value.status) == ("bad_path", 400)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/users", b"/api/users"),
        ("/a b", b"/a%20b"),
        ("/50%", b"/50%25"),
        ("/a?b#c", b"/a%3Fb%23c"),
        ("/ü", b"/%C3%BC"),
        ("/\udcff", b"/%FF"),
        ('/"<>\\^`{|}', b"/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/\r\n", b"/%0D%0A"),
        ("/-._~!$&'()*+,;=:@", b"/-._~!$&'()*+,;=:@"),
        ("*", b"*"),
    ],
)
def test_a_rewritten_path_is_encoded_again(path: str, expected: bytes) -> None:
    assert quote_path(path) == expected


@given(PATHS)
@example(b"/a/%2e%2e/%2e%2e")
def test_the_result_is_normal_and_normalising_it_again_changes_nothing(raw: bytes) -> None:
    try:
        path = normal_path(raw)
    except Malformed:
        return
    assert path.startswith("/")
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))
    assert normal_path(quote_path(path)) == path


@given(st.binary())
def test_any_bytes_give_a_path_or_are_refused(raw: bytes) -> None:
    try:
        path = normal_path(b"/" + raw)
    except Malformed as refusal:
        assert refusal.rule == "bad_path"
    else:
        assert normal_path(quote_path(path)) == path
