"""The reader gives entries and mistakes, each with its line, whatever the bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.ini import MAX_FILE_SIZE, MAX_MISTAKES, read_directory, read_text


def entries(text: str) -> list[tuple[str, str, str, int]]:
    blocks, mistakes = read_text("a.ini", text.encode())
    assert not mistakes
    return [(b.header, e.key, e.value, e.origin.line) for b in blocks for e in b.entries.values()]


def mistakes(data: bytes) -> list[str]:
    return [str(mistake) for mistake in read_text("a.ini", data)[1]]


def test_sections_keys_and_lines() -> None:
    text = "# top\n[sidecar]\nlog_level = info\n\n[upstream app]\n; note\nserver.A=a:1 b=c\nempty =\n"
    assert entries(text) == [
        ("[sidecar]", "log_level", "info", 3),
        ("[upstream app]", "server.A", "a:1 b=c", 7),
        ("[upstream app]", "empty", "", 8),
    ]


def test_indented_lines_continue_a_value_over_comments() -> None:
    text = "[a x]\nlist =\n  one\n\t# note\n# note\n  [::1]:80\n  k = v\nnext = 1\n"
    assert entries(text) == [("[a x]", "list", "one\n[::1]:80\nk = v", 2), ("[a x]", "next", "1", 8)]


def test_a_repeated_header_continues_its_section() -> None:
    assert entries("[a x]\none = 1\n[b]\n[a x]\ntwo = 2\n") == [
        ("[a x]", "one", "1", 2),
        ("[a x]", "two", "2", 5),
    ]


def test_windows_line_ends_and_a_byte_order_mark_are_taken() -> None:
    assert entries("\ufeff[a]\r\nkey = 1\r\n  2\r\n") == [("[a]", "key", "1\n2", 2)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"key = 1\n", ["a.ini:1: 'key' stands before any section: write a [section] line above it"]),
        (b"[a]\nkey\n", ["a.ini:2: [a]: 'key' has no '=': write key = value"]),
        (b"[a x]\nkey: 1\n", ["a.ini:2: [a x]: 'key: 1' has no '=': write key = value"]),
        (b"[a]\n= 1\n", ["a.ini:2: [a]: '' is not a key: write one word before the '='"]),
        (b"[a]\na b = 1\n", ["a.ini:2: [a]: 'a b' is not a key: write one word before the '='"]),
        (b"[a]\nk = 1\nk = 2\n  3\n", ["a.ini:3: [a] k: is given in line 2 already: keep one"]),
        (
            b"[a]\nk = \xff\n  go on\n",
            ["a.ini:2: [a]: byte 5 of the line is not UTF-8: save the file as UTF-8"],
        ),
        (b"[a]\nk = \x00\n", ["a.ini:2: [a]: the line holds the control character U+0000: remove it"]),
        (b"[a]\nk = 1\rl = 2\n", ["a.ini:2: [a]: the line holds the control character U+000D: remove it"]),
        (
            b"[a]\nk = 1\n\n  l = 2\n  m = 3\n",
            ["a.ini:4: [a]: 'l = 2' is indented, and there is no value to continue: remove the spaces"],
        ),
        (
            b"[a]\nk = 1\n  [b x]\nl = 2\n",
            ["a.ini:3: '[b x]' looks like a section: remove the spaces before it"],
        ),
        (
            b"[A x]\nk = 1\n",
            ["a.ini:1: '[A x]' is not a section: write [kind] or [kind name], in lower case"],
        ),
        (
            b"[a x] # note\n  k\n",
            ["a.ini:1: '[a x] # note' is not a section: write [kind] or [kind name], in lower case"],
        ),
        (
            b"[a x/y]\n",
            ["a.ini:1: 'x/y' is not a name: write up to 64 letters, digits, '_', '-' or '.'"],
        ),
    ],
)
def test_mistakes_have_their_line_and_a_remedy(data: bytes, expected: list[str]) -> None:
    assert mistakes(data) == expected


def test_every_mistake_of_a_file_is_told() -> None:
    found = mistakes(b"x = 1\n[a]\n\xff\nno\nk = 1\nk = 2\n")
    assert [line.split(" ")[0] for line in found] == ["a.ini:1:", "a.ini:3:", "a.ini:4:", "a.ini:6:"]


def test_a_file_that_is_no_configuration_is_given_up() -> None:
    found = mistakes(b"\x00\n" * 1000)
    assert len(found) == MAX_MISTAKES + 1
    assert found[-1] == f"a.ini:{MAX_MISTAKES}: too many mistakes: what follows is not read"


@given(st.binary())
def test_any_bytes_give_entries_or_mistakes(data: bytes) -> None:
    blocks, found = read_text("a.ini", data)
    assert all("\n" not in str(mistake) and str(mistake).isprintable() for mistake in found)
    assert all(e.value == e.value.strip() for b in blocks for e in b.entries.values())


@given(st.text(alphabet="[]a b=#;\n\r\t$\u2028\x00", max_size=60))
def test_any_text_gives_entries_or_mistakes(text: str) -> None:
    blocks, _ = read_text("a.ini", text.encode())
    for entry in (entry for block in blocks for entry in block.entries.values()):
        assert entry.origin.line <= text.count("\n") + 1
        assert entry.key


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "20-b.ini").write_text("[b]\n")
    (tmp_path / "20-b.ini").symlink_to("..data/20-b.ini")
    (tmp_path / "10-a.ini").write_text("[a]\n")
    for ignored in (".c.ini", ".#d.ini", "e.ini~", "f.ini.swp", "#g.ini#", "h.ini.rpmsave", "README"):
        (tmp_path / ignored).write_text("nonsense")
    source = read_directory(tmp_path)
    assert [block.header for block in source.blocks] == ["[a]", "[b]"]
    assert not source.mistakes
    assert [data for _, data in source.files] == [b"[a]\n", b"[b]\n"]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.ini").mkdir()
    os.mkfifo(tmp_path / "b.ini")
    (tmp_path / "c.ini").symlink_to("nowhere")
    (tmp_path / "d.ini").write_bytes(b"#" * (MAX_FILE_SIZE + 1))
    (tmp_path / "e\n.ini").write_text("x")
    assert [str(mistake).removeprefix(f"{tmp_path}/") for mistake in read_directory(tmp_path).mistakes] == [
        "a.ini: is not a file: move it away, or rename it so that it does not end in .ini",
        "b.ini: is not a file: move it away, or rename it so that it does not end in .ini",
        "c.ini: is a link to nowhere, which does not exist: make that, or remove the link",
        "d.ini: is larger than 1048576 bytes: split it",
        "e\\n.ini:1: 'x' has no '=': write key = value",
    ]


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    text = b"[a]\nk =\n"
    (tmp_path / "a.ini").write_bytes((text + b" x\n" * MAX_FILE_SIZE)[:MAX_FILE_SIZE])
    source = read_directory(tmp_path)
    assert not source.mistakes
    assert source.blocks[0].entries["k"].value.count("\n") > 300_000


def test_a_missing_directory_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    assert [str(mistake) for mistake in read_directory(tmp_path / "conf.d").mistakes] == [
        f"{tmp_path}/conf.d: there is no such directory: create it, or name another with --conf DIR"
    ]
    (tmp_path / "file").write_text("")
    assert [str(mistake) for mistake in read_directory(tmp_path / "file").mistakes] == [
        f"{tmp_path}/file: is not a directory: name the one that holds the .ini files with --conf DIR"
    ]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Let a call to the system fail."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.EACCES, f"uid {os.geteuid()} may not list it: change its permissions, or name another with"),
        (errno.EIO, "cannot be read: Input/output error: repair it, or name another with"),
    ],
)
def test_a_directory_that_cannot_be_listed_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    refuse(monkeypatch, "listdir", code)
    assert [str(mistake) for mistake in read_directory(tmp_path).mistakes] == [
        f"{tmp_path}: {told} --conf DIR"
    ]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            errno.EACCES,
            f"uid {os.geteuid()} may not read it: change the permissions of the file or of its directory",
        ),
        (errno.ELOOP, "is a link that leads back to itself: remove it"),
        (errno.EIO, "cannot be read: Input/output error: repair it, or move it away"),
    ],
)
def test_a_file_that_cannot_be_opened_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    (tmp_path / "a.ini").write_text("")
    refuse(monkeypatch, "open", code)
    assert [str(mistake) for mistake in read_directory(tmp_path).mistakes] == [f"{tmp_path}/a.ini: {told}"]


def test_a_file_that_went_away_as_the_directory_was_read_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.ini").write_text("[a]\n")
    monkeypatch.setattr(os, "listdir", lambda _: ["a.ini", "gone.ini"])
    source = read_directory(tmp_path)
    assert [block.header for block in source.blocks] == ["[a]"]
    assert not source.mistakes
