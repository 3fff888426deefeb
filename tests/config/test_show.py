"""What is shown is what is in effect, and reads back as the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.environment import escape
from sidecar.config.kinds import DURATION_OR_OFF, TEXT, list_of, optional
from sidecar.config.merge import Configuration, load
from sidecar.config.schema import Kind, Section, family, option
from sidecar.config.show import as_json, as_text

LINES: Kind[str] = Kind("lines", str)


@dataclass(frozen=True, slots=True)
class Process(Section):
    KIND: ClassVar[str] = "process"
    NAMED: ClassVar[bool] = False
    level: str = option("info", TEXT, "How much.")


@dataclass(frozen=True, slots=True)
class Pool(Section):
    KIND: ClassVar[str] = "pool"
    listen: tuple[str, ...] = option((), list_of(TEXT), "Where.")
    wait: float | None = option(None, optional(DURATION_OR_OFF), "How long.")
    note: str = option("", LINES, "Several lines.")
    server: dict[str, str] = family(TEXT, "Servers.")


SECTIONS = (Process, Pool)

GIVEN = """\
[defaults pool]
wait = off
[pool a]
listen = x
  y
note = one
  two
server.B = $$1 ${HOST}
"""

SHOWN = """\
# default
[process]
# default
level = info

# DIR/0.ini:3
[pool a]
# DIR/0.ini:4
listen = x, y
# DIR/0.ini:2
wait = off
# DIR/0.ini:6
note = one
    two
# DIR/0.ini:8
server.B = $$1 app
"""


def configure(directory: Path, text: str) -> Configuration:
    (directory / "0.ini").write_text(text)
    return load(directory, SECTIONS, {"HOST": "app"})


def test_the_text_is_ini_with_origins(tmp_path: Path) -> None:
    configuration = configure(tmp_path, GIVEN)
    text = as_text(configuration)
    assert text.replace(str(tmp_path), "DIR") == SHOWN
    again = configure(tmp_path, text)
    assert again.named(Pool) == configuration.named(Pool)
    assert again.only(Process) == configuration.only(Process)


def test_notes_are_comments_at_the_end_of_a_section(tmp_path: Path) -> None:
    configuration = configure(tmp_path, GIVEN)
    text = as_text(configuration, lambda section: ("one", "two") if isinstance(section, Pool) else ())
    shown = f"{SHOWN}# one\n# two\n"
    assert text.replace(str(tmp_path), "DIR") == shown
    assert configure(tmp_path, text).named(Pool) == configuration.named(Pool)


def test_json_has_values_and_origins(tmp_path: Path) -> None:
    configuration = configure(tmp_path, GIVEN)
    shown = json.loads(as_json(configuration))
    assert shown["fingerprint"] == configuration.fingerprint
    process, pool = shown["sections"]
    assert process == {
        "kind": "process",
        "name": "",
        "origin": None,
        "options": {"level": {"value": "info", "origin": None}},
    }
    assert (pool["kind"], pool["name"], pool["origin"]) == ("pool", "a", f"{tmp_path}/0.ini:3")
    assert pool["options"]["server.B"] == {"value": "$1 app", "origin": f"{tmp_path}/0.ini:8"}


@dataclass(frozen=True, slots=True)
class Guarded(Section):
    KIND: ClassVar[str] = "guarded"
    NAMED: ClassVar[bool] = False
    key: str = option("", TEXT, "What nobody sees.", secret=True)


def test_a_secret_is_not_shown_and_its_place_is(tmp_path: Path) -> None:
    (tmp_path / "0.ini").write_text("[guarded]\nkey = s3cret\n")
    configuration = load(tmp_path, (Guarded,), {})
    assert configuration.only(Guarded).key == "s3cret"
    text = as_text(configuration)
    assert text == (f"# {tmp_path}/0.ini:1\n[guarded]\n# {tmp_path}/0.ini:2\n# key = (set, not shown)\n")
    shown = json.loads(as_json(configuration))
    assert shown["sections"][0]["options"] == {
        "key": {"value": "(set, not shown)", "origin": f"{tmp_path}/0.ini:2"}
    }
    # What reads it back has none, and not one that everybody knows.
    (tmp_path / "0.ini").write_text(text)
    again = load(tmp_path, (Guarded,), {})
    assert again.only(Guarded).key == ""
    assert "key =\n" in as_text(again)


words = st.text(alphabet="ab${}=[]#;é ,", max_size=12).map(str.strip)


@given(st.dictionaries(st.sampled_from(["a", "B", "c.d"]), words), words)
def test_what_is_shown_reads_back_as_the_same(servers: dict[str, str], level: str) -> None:
    lines = ["[process]", f"level = {escape(level)}", "[pool p]"]
    lines += [f"server.{name} = {escape(text)}" for name, text in servers.items()]
    with TemporaryDirectory() as name:
        directory = Path(name)
        first = configure(directory, "\n".join(lines))
        second = configure(directory, as_text(first))
    assert first.only(Process).level == (level or "info")
    assert second.only(Process) == first.only(Process)
    assert second.named(Pool) == first.named(Pool)
