"""A wrong name is answered with the name that was meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from sidecar.config.kinds import SIZE, TEXT
from sidecar.config.names import Misnamed, find_key, find_section, is_key
from sidecar.config.schema import Section, family, option


@dataclass(frozen=True, slots=True)
class Process(Section):
    KIND: ClassVar[str] = "process"
    NAMED: ClassVar[bool] = False
    level: str = option("info", TEXT, "How much.")


@dataclass(frozen=True, slots=True)
class Pool(Section):
    KIND: ClassVar[str] = "pool"
    server: dict[str, str] = family(TEXT, "Servers.")
    keepalive: int = option(0, SIZE, "Bytes.")


@dataclass(frozen=True, slots=True)
class Large(Section):
    KIND: ClassVar[str] = "large"
    a: str = option("", TEXT, "A.")
    b: str = option("", TEXT, "B.")
    c: str = option("", TEXT, "C.")
    d: str = option("", TEXT, "D.")
    e: str = option("", TEXT, "E.")
    f: str = option("", TEXT, "F.")
    g: str = option("", TEXT, "G.")
    h: str = option("", TEXT, "H.")
    i: str = option("", TEXT, "I.")
    j: str = option("", TEXT, "J.")
    k: str = option("", TEXT, "K.")
    m: str = option("", TEXT, "L.")
    n: str = option("", TEXT, "M.")


CLASSES: dict[str, type[Section]] = {cls.KIND: cls for cls in (Process, Pool, Large)}


@pytest.mark.parametrize(("kind", "name"), [("process", ""), ("pool", "a"), ("defaults", "pool")])
def test_sections_are_found(kind: str, name: str) -> None:
    assert find_section(CLASSES, kind, name) is CLASSES[kind if kind in CLASSES else name]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("pol", "a", "is not a known section: did you mean [pool a]?"),
        ("pool", "", "needs a name: write [pool NAME]"),
        ("pol", "", "is not a known section: did you mean [pool NAME]?"),
        ("proces", "x", "is not a known section: did you mean [process]?"),
        ("process", "x", "takes no name: write [process]"),
        ("default", "pool", "is not a known section: did you mean [defaults pool]?"),
        ("x", "", "is not a known section: known are [process], [pool NAME], [large NAME]"),
        ("defaults", "pol", "names no kind of section: did you mean [defaults pool]?"),
        ("defaults", "", "names no kind of section: write one of [defaults pool], [defaults large]"),
        ("defaults", "process", "has no effect, there is one such section: write [process]"),
    ],
)
def test_wrong_headers(kind: str, name: str, message: str) -> None:
    with pytest.raises(Misnamed) as wrong:
        find_section(CLASSES, kind, name)
    assert str(wrong.value) == message


@pytest.mark.parametrize(
    ("section", "key", "message", "meant"),
    [
        (Pool, "sever.A", "is not a known option: did you mean server.A?", "server"),
        (Pool, "serve", "is not a known option: did you mean server.NAME?", "server"),
        (Pool, "KeepAlive", "is not a known option: did you mean keepalive?", "keepalive"),
        (Pool, "server", "needs a name: write server.NAME = …", "server"),
        (Pool, "server.", "needs a name: write server.NAME = …", "server"),
        (Pool, "keepalive.a", "takes no name: write keepalive = …", "keepalive"),
        (Pool, "level", "is not an option of this section: it belongs into [process]", ""),
        (Process, "xyz", "is not a known option: known are level", ""),
        (Large, "xyz", "is not a known option: `sidecar manual` lists those of [large]", ""),
    ],
)
def test_wrong_keys(section: type[Section], key: str, message: str, meant: str) -> None:
    with pytest.raises(Misnamed) as wrong:
        find_key(CLASSES, section, key)
    assert (str(wrong.value), wrong.value.meant) == (message, meant)
    assert not is_key(section, key)


def test_keys_are_found_and_names_keep_their_case() -> None:
    option, name = find_key(CLASSES, Pool, "server.A.b")
    assert (option.key, name) == ("server", "A.b")
    assert is_key(Pool, "server.A.b")
    assert is_key(Pool, "keepalive")
