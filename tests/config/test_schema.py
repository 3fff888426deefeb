"""A declaration is a dataclass field and everything that is derived from it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from sidecar.config.kinds import ON_OFF, TEXT, integer
from sidecar.config.schema import Section, family, header, option, options, quoted, required


@dataclasses.dataclass(frozen=True, slots=True)
class Sample(Section):
    """A section."""

    KIND: ClassVar[str] = "sample"
    DOC: ClassVar[str] = "For tests."

    count: int = option(3, integer(1, 9), "How many.")
    label: str = required(TEXT, "What it is called.")
    header: dict[str, str] = family(TEXT, "Fields.")


def test_options_are_declared_in_order() -> None:
    declared = options(Sample)
    assert list(declared) == ["count", "label", "header"]
    assert declared["count"].default == 3
    assert declared["count"].doc == "How many."
    assert [option.is_required for option in declared.values()] == [False, True, False]
    assert [option.written for option in declared.values()] == ["count", "label", "header.NAME"]
    assert options(Sample) is declared


def test_a_section_is_frozen_and_has_its_defaults() -> None:
    sample = Sample(label="x")
    assert (sample.count, sample.header, list(sample.check())) == (3, {}, [])
    assert Sample(label="y").header is not sample.header
    assert not hasattr(sample, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.count = 4  # type: ignore[misc]


def test_headers_are_written_with_and_without_a_name() -> None:
    assert (header("route", "api"), header("sidecar", "")) == ("[route api]", "[sidecar]")


def test_quoted_text_stays_on_one_line_of_bounded_length() -> None:
    assert quoted("a\nb\x00\u2028\udcff") == "'a\\nb\\x00\\u2028\\udcff'"
    assert quoted("é" * 100) == "'" + "é" * 79 + "…'"


def test_a_kind_tells_its_name() -> None:
    assert repr(ON_OFF) == "<Kind on | off>"
