"""Files merge in the order of their names, and every mistake is told at its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.kinds import DURATION, TEXT, integer, list_of
from sidecar.config.merge import Configuration, load
from sidecar.config.schema import Section, family, option, required
from sidecar.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Guarded(Section):
    KIND: ClassVar[str] = "guarded"
    NAMED: ClassVar[bool] = False
    key: str = option("", TEXT, "What nobody sees.", secret=True)


@dataclass(frozen=True, slots=True)
class Process(Section):
    KIND: ClassVar[str] = "process"
    NAMED: ClassVar[bool] = False
    level: str = option("info", TEXT, "How much.")
    wait: float = option(1.0, DURATION, "How long.")


@dataclass(frozen=True, slots=True)
class Pool(Section):
    KIND: ClassVar[str] = "pool"
    listen: tuple[str, ...] = required(list_of(TEXT), "Where to listen.")
    low: int = option(1, integer(0, 99), "The least.")
    high: int = option(9, integer(0, 99), "The most.")
    server: dict[str, str] = family(TEXT, "Servers.")

    def check(self) -> Iterable[tuple[str, str]]:
        if self.low > self.high:
            yield "low", "is more than high: lower it"
        if not self.server:
            yield "server", "no server is given: write server.a = …"


SECTIONS = (Process, Pool)
WHOLE = "[pool a]\nlisten = x\nserver.A = 1\n"


def configure(directory: Path, *files: str, environ: Mapping[str, str] | None = None) -> Configuration:
    directory.mkdir(exist_ok=True)
    for number, text in enumerate(files):
        (directory / f"{number}.ini").write_text(text)
    return load(directory, SECTIONS, environ or {})


def refused(directory: Path, *files: str) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        configure(directory, *files)
    return [mistake.removeprefix(f"{directory}/") for mistake in error.value.mistakes]


def test_an_empty_directory_gives_defaults(tmp_path: Path) -> None:
    configuration = configure(tmp_path)
    assert configuration.only(Process) == Process()
    assert configuration.named(Pool) == {}
    assert configuration.origin("process", "", "level") is None
    assert configuration.origin("process", "", "") is None
    assert configuration.mistake("process", "", "level", "x") == f"{tmp_path}: [process] level: x"


def test_the_later_file_wins_key_by_key(tmp_path: Path) -> None:
    configuration = configure(tmp_path, WHOLE + "low = 2\nhigh = 3\n", "[pool a]\nhigh = 4\nserver.b = 2\n")
    pool = configuration.named(Pool)["a"]
    assert (pool.listen, pool.low, pool.high, pool.server) == (("x",), 2, 4, {"A": "1", "b": "2"})
    assert str(configuration.origin("pool", "a", "low")) == f"{tmp_path}/0.ini:4"
    assert str(configuration.origin("pool", "a", "high")) == f"{tmp_path}/1.ini:2"
    assert str(configuration.origin("pool", "a", "server.b")) == f"{tmp_path}/1.ini:3"
    assert str(configuration.origin("pool", "a", "")) == f"{tmp_path}/0.ini:1"


def test_an_empty_value_returns_to_the_default_and_removes_from_a_family(tmp_path: Path) -> None:
    configuration = configure(
        tmp_path,
        WHOLE + "low = 2\nserver.B = 2\n",
        "[pool a]\nlow =\nserver.A =\n[process]\nlevel = ${X:-}\n",
    )
    pool = configuration.named(Pool)["a"]
    assert (pool.low, pool.server) == (1, {"B": "2"})
    assert configuration.only(Process).level == "info"
    assert configuration.origin("pool", "a", "low") is None


def test_defaults_stand_under_every_section_of_their_kind(tmp_path: Path) -> None:
    configuration = configure(
        tmp_path,
        "[pool a]\nlisten = x\nlow =\nserver.Z =\nserver.a = 1\n[pool b]\nlow = 5\n",
        "[defaults pool]\nlisten = d\nlow = 3\nserver.Z = 0\n",
    )
    a, b = configuration.named(Pool).values()
    assert (a.listen, a.low, a.server) == (("x",), 3, {"a": "1"})
    assert (b.listen, b.low, b.server) == (("d",), 5, {"Z": "0"})
    assert str(configuration.origin("pool", "a", "low")) == f"{tmp_path}/1.ini:3"


def test_variables_expand_in_every_value(tmp_path: Path) -> None:
    text = "[pool a]\nlisten = ${LIST}\nserver.A = ${HOST:-app}:$$1$\nlow = ${LOW}\n"
    pool = configure(tmp_path, text, environ={"LIST": "x, y\nz", "LOW": "7"}).named(Pool)["a"]
    assert (pool.listen, pool.server, pool.low) == (("x", "y", "z"), {"A": "app:$1$"}, 7)


def test_a_mistake_found_later_is_told_at_its_place(tmp_path: Path) -> None:
    configuration = configure(tmp_path, WHOLE)
    assert (
        configuration.mistake("pool", "a", "listen", "taken") == f"{tmp_path}/0.ini:2: [pool a] listen: taken"
    )
    assert configuration.mistake("pool", "a", "low", "bad") == f"{tmp_path}/0.ini:1: [pool a] low: bad"


MISTAKES = [
    ("[pol a]\n", ["0.ini:1: [pol a]: is not a known section: did you mean [pool a]?"]),
    ("[pool]\nlisten = x\n", ["0.ini:1: [pool]: needs a name: write [pool NAME]"]),
    (WHOLE + "lo = 1\n", ["0.ini:4: [pool a] lo: is not a known option: did you mean low?"]),
    (WHOLE + "low = 100\n", ["0.ini:4: [pool a] low: 100 is not between 0 and 99"]),
    (WHOLE + "low = 10\n", ["0.ini:4: [pool a] low: is more than high: lower it"]),
    ("[pool a]\nlisten = x\n", ["0.ini:1: [pool a] server: no server is given: write server.a = …"]),
    ("[pool a]\nserver.A = 1\n", ["0.ini:1: [pool a] listen: is required: Where to listen."]),
    ("[pool a]\nlisen = x\n", ["0.ini:2: [pool a] lisen: is not a known option: did you mean listen?"]),
    (
        "[pool a]\nlisten = ,\n",
        ["0.ini:2: [pool a] listen: ',' has an empty item: remove the comma that has nothing beside it"],
    ),
    (
        "[defaults pool]\nlow = x\n",
        ["0.ini:2: [defaults pool] low: 'x' is not a whole number: write one between 0 and 99"],
    ),
    (
        "[process]\nlevel = ${LEVEL}\n",
        ["0.ini:2: [process] level: the variable LEVEL is not set: set it, or write ${LEVEL:-default}"],
    ),
    (
        "[process]\nlevel = info\n  wait = 2s\n",
        ["0.ini:2: [process] level: goes on with 'wait = 2s': remove the spaces before that option"],
    ),
    (
        "[process x]\n[defaults process]\n",
        [
            "0.ini:1: [process x]: takes no name: write [process]",
            "0.ini:2: [defaults process]: has no effect, there is one such section: write [process]",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_mistakes_have_their_place_and_a_remedy(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert refused(tmp_path, text) == expected


def test_a_mistake_in_a_secret_does_not_tell_it(tmp_path: Path) -> None:
    (tmp_path / "0.ini").write_text("[guarded]\nkey = s3'c\tret\n")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, (Guarded,), {})
    assert caught.value.mistakes == [
        f"{tmp_path}/0.ini:2: [guarded] key: the value holds the control character U+0009: remove it"
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    first = "[process]\nwait = long\nnonsense\n[pool a]\nlow = 50\nlow = 51\n"
    second = "[pool a]\nbig = 1\n[pool b]\nlisten = x\nserver.a = 1\nlow = 10\n"
    assert refused(tmp_path, first, second) == [
        "0.ini:2: [process] wait: 'long' is not a duration: write 250ms, 3s, 5m or 1h",
        "0.ini:3: [process]: 'nonsense' has no '=': write key = value",
        "0.ini:4: [pool a] listen: is required: Where to listen.",
        "0.ini:6: [pool a] low: is given in line 5 already: keep one",
        "1.ini:2: [pool a] big: is not a known option: known are listen, low, high, server.NAME",
        "1.ini:6: [pool b] low: is more than high: lower it",
    ]


def test_a_mistake_in_defaults_is_told_once(tmp_path: Path) -> None:
    text = "[defaults pool]\nlow = x\n[pool a]\nlisten = x\nserver.a = 1\n[pool b]\nlisten = y\n"
    assert refused(tmp_path, text) == [
        "0.ini:2: [defaults pool] low: 'x' is not a whole number: write one between 0 and 99"
    ]


def test_an_overridden_value_is_not_looked_at(tmp_path: Path) -> None:
    assert (
        configure(tmp_path, "[process]\nwait = ${NO}\n", "[process]\nwait = 2s\n").only(Process).wait == 2.0
    )


def test_a_missing_directory_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(tmp_path / "none", SECTIONS, {})
    assert len(error.value.mistakes) == 1


def test_the_fingerprint_tells_whether_anything_changed(tmp_path: Path) -> None:
    text = "[process]\nlevel = ${LEVEL:-info}\n"
    first = configure(tmp_path, text, environ={"OTHER": "1"}).fingerprint
    assert configure(tmp_path, text, environ={"OTHER": "2"}).fingerprint == first
    assert configure(tmp_path, text, environ={"LEVEL": "info"}).fingerprint != first
    assert configure(tmp_path, text + "#\n").fingerprint != first
    (tmp_path / "0.ini").rename(tmp_path / "1.ini")
    (tmp_path / "1.ini").write_text(text)
    assert load(tmp_path, SECTIONS, {}).fingerprint != first


pools = st.dictionaries(
    st.sampled_from(["low", "high", "server.a", "server.B"]), st.sampled_from(["", "3", "4", "5"])
)


def written(keys: dict[str, str]) -> str:
    return "[pool a]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def pool_of(*files: str) -> Pool:
    with TemporaryDirectory() as directory:
        base = "[pool a]\nlisten = x\nserver.Keep = 1\nhigh = 50\n"
        return configure(Path(directory), base, *files).named(Pool)["a"]


@given(st.lists(pools, max_size=4))
def test_merging_files_is_merging_dictionaries(files: list[dict[str, str]]) -> None:
    union: dict[str, str] = {"high": "50"}
    for keys in files:
        union |= keys
    expected = {key: value for key, value in union.items() if value}
    try:
        pool = pool_of(*map(written, files))
    except ConfigurationError:
        assert int(expected.get("low", "1")) > int(expected.get("high", "9"))
        return
    assert pool.low == int(expected.get("low", "1"))
    assert pool.high == int(expected.get("high", "9"))
    servers = {key.removeprefix("server."): v for key, v in expected.items() if key.startswith("server.")}
    assert pool.server == {"Keep": "1"} | servers


@given(pools)
def test_a_file_read_twice_changes_nothing(keys: dict[str, str]) -> None:
    keys.pop("low", None)
    assert pool_of(written(keys)) == pool_of(written(keys), written(keys))
