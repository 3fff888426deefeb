"""The manual says what the declarations say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sidecar.config.kinds import DURATION, ON_OFF, TEXT
from sidecar.config.manual import manual
from sidecar.config.schema import Section, family, option, required


@dataclass(frozen=True, slots=True)
class Process(Section):
    KIND: ClassVar[str] = "process"
    NAMED: ClassVar[bool] = False
    DOC: ClassVar[str] = "The process."
    wait: float = option(0.25, DURATION, "How long it waits.")
    quiet: bool = option(False, ON_OFF, "Whether it speaks.")
    note: str = option("", TEXT, "A note.", secret=True)


@dataclass(frozen=True, slots=True)
class Pool(Section):
    KIND: ClassVar[str] = "pool"
    DOC: ClassVar[str] = "A pool."
    listen: str = required(TEXT, "Where.")
    server: dict[str, str] = family(TEXT, "Servers.")


TABLES = """\
## [process]

The process.

| option | kind | default | meaning |
| --- | --- | --- | --- |
| `wait` | duration | `250ms` | How long it waits. |
| `quiet` | on \\| off | `off` | Whether it speaks. |
| `note` | text, secret | none | A note. |

## [pool NAME]

A pool.

| option | kind | default | meaning |
| --- | --- | --- | --- |
| `listen` | text | required | Where. |
| `server.NAME` | text | none | Servers. |
"""


def test_the_manual_has_the_language_and_a_table_for_each_section() -> None:
    text = manual((Process, Pool))
    assert text.startswith("# Configuration\n")
    assert text.endswith("\n" + TABLES)
