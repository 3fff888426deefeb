"""Events are declared, are one line each, and say what a program can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.events import EVENTS, Events, Format, Level
from sidecar.runtime import FakeClock

ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.binary(max_size=20),
        st.text(st.characters(), max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


class Lines(list[bytes]):
    """An output that remembers."""

    def __init__(self, is_terminal: bool = False) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def write(self, line: bytes) -> None:
        self.append(line)


def log(fmt: Format = "json", level: Level = "info", terminal: bool = False) -> tuple[Events, Lines]:
    lines = Lines(terminal)
    return Events(lines, fmt, level, FakeClock()), lines


def strict(line: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    value = json.loads(line.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # no lone surrogate
    return value


def caught(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_json_begins_with_time_level_and_event() -> None:
    events, lines = log()
    events.event("listener_bound", listener="public", address="0.0.0.0:80", backlog=511)
    assert lines == [
        b'{"time":"2023-11-14T22:13:20.000Z","level":"info","event":"listener_bound",'
        b'"listener":"public","address":"0.0.0.0:80","backlog":511}\n'
    ]


def test_a_person_gets_words() -> None:
    events, lines = log("console")
    events.event("listener_failed", listener="public", error="in use", tries=3, kept=True)
    assert lines == [
        b'2023-11-14T22:13:20.000Z error   listener_failed listener=public error="in use" tries=3 kept=true\n'
    ]


def test_colour_is_for_a_terminal() -> None:
    events, lines = log("console", terminal=True)
    events.event("accept_paused")
    assert b"\x1b[33mwarning\x1b[0m" in lines[0]
    events, lines = log("json", terminal=True)
    events.event("accept_paused")
    assert b"\x1b" not in lines[0]


def test_a_name_that_is_not_declared_is_a_mistake() -> None:
    events, _ = log()
    with pytest.raises(LookupError):
        events.event("listener_bond")


def test_the_fields_of_every_event_cannot_be_given() -> None:
    events, _ = log()
    with pytest.raises(ValueError, match="level"):
        events.event("started", level="x")


def test_the_level_hides_what_is_below() -> None:
    events, lines = log(level="error")
    events.event("accept_paused")
    events.event("task_died", task="x")
    assert [strict(line)["event"] for line in lines] == ["task_died"]


def test_a_dead_task_shows_its_traceback() -> None:
    events, lines = log()
    events.event("task_died", task="resolver", exc_info=caught("boom"))
    fields = strict(lines[0])
    assert fields["task"] == "resolver"
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("ValueError: boom")


def test_a_traceback_for_a_person_is_indented_and_quiet() -> None:
    events, lines = log("console")
    events.event("exchange_failed", exc_info=caught("a\n2023-11-14T22:13:20.000Z info stopped\x1b[2J\x85b"))
    rows = lines[0].decode().split("\n")
    assert rows[1] == "    Traceback (most recent call last):"
    assert all(row.startswith("    ") for row in rows[1:-1])
    assert all(row.isprintable() for row in rows)


def test_a_long_text_is_cut_and_of_a_long_traceback_the_end_stays() -> None:
    events, lines = log()
    events.event("exchange_failed", detail="x" * 10_000, exc_info=caught("y" * 50_000 + "end"))
    fields = strict(lines[0])
    assert len(fields["detail"]) == 4096
    assert fields["exception"].endswith("end")
    assert len(lines[0]) < 32_000


def test_long_and_deep_values_are_cut() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    events, lines = log()
    events.event("started", many=list(range(1000)), table={n: n for n in range(1000)}, deep=deep)
    fields = strict(lines[0])
    assert len(fields["many"]) == len(fields["table"]) == 64
    assert fields["deep"][0][0][0][0].startswith("[")


@given(ANYTHING)
def test_whatever_a_field_holds_json_is_one_strict_line(value: Any) -> None:
    events, lines = log()
    events.event("started", value=value)
    assert lines[0].count(b"\n") == 1
    assert lines[0].endswith(b"\n")
    assert set(strict(lines[0])) == {"time", "level", "event", "value"}


@given(ANYTHING)
def test_whatever_a_field_holds_a_person_gets_one_printable_line(value: Any) -> None:
    events, lines = log("console")
    events.event("started", value=value)
    text = lines[0].decode()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_names_and_meanings_are_fit_for_the_manual() -> None:
    for name, declared in EVENTS.items():
        assert name.replace("_", "").isalnum() and name[0].isalpha()
        assert name.islower()
        assert declared.meaning.endswith(".")
