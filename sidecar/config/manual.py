"""The reference of every option, written from the declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .schema import Option, Section, header, options

_LANGUAGE: Final = """\
# Configuration

All files `conf.d/*.ini` are read in the order of their names. The same section in several files is merged
key by key; the later file wins.

* Files are UTF-8. A section is `[kind]` or `[kind name]`, an option is `key = value`.
* A comment is a whole line that starts with `#` or `;`.
* An indented line continues the value above it. A list takes commas or lines.
* An empty value returns a key to its default. A key of a family, `key.NAME`, is removed by it.
* `[defaults KIND]` gives defaults to every section of a kind.
* `${NAME}` is the environment variable NAME, which must be set; `${NAME:-text}` is `text` when NAME is unset
  or empty; `$$` is a dollar sign.
* The value of a secret is never shown; `${NAME}` keeps it out of the files.
* A duration is `250ms`, `3s`, `5m`, `1h` or `1d`. A size is bytes, or `16k`, `10m`, `1g` in steps of 1024.

All mistakes are reported at once, each as `file:line: [section] key: what is wrong and what would be right`.
"""


def manual(sections: Sequence[type[Section]]) -> str:
    """The reference in Markdown: the language, then a table for each section."""
    return "\n".join([_LANGUAGE, *(_section(section) for section in sections)])


def _section(section: type[Section]) -> str:
    lines = [
        f"## {header(section.KIND, 'NAME' if section.NAMED else '')}",
        "",
        section.DOC,
        "",
        "| option | kind | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for option in options(section).values():
        kind = f"{option.kind.name}, secret" if option.is_secret else option.kind.name
        cells = (f"`{option.written}`", kind, _default(option), option.doc)
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    if option.is_required:
        return "required"
    shown = "" if option.is_family else option.kind.show(option.default)
    return f"`{shown}`" if shown else "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
