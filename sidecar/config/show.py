"""Shows a configuration as it is in effect, every value with its origin: as INI, or as data for programs.

Law: the INI text, read again, gives an equal configuration. But for secrets: that one is set is a comment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from .environment import escape
from .ini import Origin
from .merge import Configuration
from .schema import Section, header, options

#: In place of a secret.
HIDDEN: Final = "(set, not shown)"


#: What else there is to say about a section: sentences, a line each.
Notes = Callable[[Section], Iterable[str]]


class Shown(NamedTuple):
    """One effective value. `text` is what a file would say, `$` not escaped; a default has no origin."""

    key: str
    text: str
    origin: Origin | None
    is_hidden: bool = False  # `text` only says that there is a value


def sections(configuration: Configuration) -> Iterator[tuple[str, str, Section]]:
    """All sections as (kind, name, section), kinds in the order they are declared in."""
    for cls in configuration.sections:
        if cls.NAMED:
            for name, section in configuration.named(cls).items():
                yield cls.KIND, name, section
        else:
            yield cls.KIND, "", configuration.only(cls)


def values(configuration: Configuration, kind: str, name: str, section: Section) -> Iterator[Shown]:
    """The values of one section, defaults included, in the order they are declared in."""
    for option in options(type(section)).values():
        value = getattr(section, option.key)
        written = (
            {f"{option.key}.{one}": value[one] for one in value} if option.is_family else {option.key: value}
        )
        for key, one in written.items():
            text, is_hidden = option.kind.show(one), option.is_secret and one != option.default
            yield Shown(key, HIDDEN if is_hidden else text, configuration.origin(kind, name, key), is_hidden)


def as_text(configuration: Configuration, notes: Notes | None = None) -> str:
    """The configuration as one INI file; the line above a value says where it comes from.

    `notes` are comments at the end of a section.
    """
    parts = []
    for kind, name, section in sections(configuration):
        lines = [f"# {configuration.origin(kind, name, '') or 'default'}", header(kind, name)]
        for shown in values(configuration, kind, name, section):
            lines.append(f"# {shown.origin or 'default'}")
            line = f"{shown.key} = {escape(shown.text)}".rstrip().replace("\n", "\n    ")
            lines.append(f"# {line}" if shown.is_hidden else line)
        lines += (f"# {note}" for note in (notes(section) if notes is not None else ()))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def as_dict(configuration: Configuration) -> dict[str, Any]:
    """The configuration as plain data; `origin` is `file:line`, or null for a default."""
    return {
        "fingerprint": configuration.fingerprint,
        "sections": [
            {
                "kind": kind,
                "name": name,
                "origin": _written(configuration.origin(kind, name, "")),
                "options": {
                    shown.key: {"value": shown.text, "origin": _written(shown.origin)}
                    for shown in values(configuration, kind, name, section)
                },
            }
            for kind, name, section in sections(configuration)
        ],
    }


def as_json(configuration: Configuration) -> str:
    """`as_dict`, as JSON."""
    return json.dumps(as_dict(configuration), indent=2) + "\n"


def _written(origin: Origin | None) -> str | None:
    return None if origin is None else str(origin)
