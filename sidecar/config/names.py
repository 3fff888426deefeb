"""Finds the declarations that headers and keys name, and for a wrong name the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from .schema import Option, Section, header, options

DEFAULTS: Final = "defaults"  # the kind of the sections that give defaults to a kind
_FEW: Final = 12  # names a message can list

Classes = Mapping[str, type[Section]]


class Misnamed(Exception):
    """A header or a key that names nothing. `meant` is the option that was likely meant, or empty."""

    def __init__(self, text: str, meant: str = "") -> None:
        super().__init__(text)
        self.meant = meant


def _nearest(word: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1)), "")


def find_section(classes: Classes, kind: str, name: str) -> type[Section]:
    """The declaration of `[kind name]`, or of the kind that `[defaults name]` is about. Raises Misnamed."""
    if kind == DEFAULTS:
        return _find_defaults(classes, name)
    section = classes.get(kind)
    if section is None:
        raise Misnamed(f"is not a known section: {_sections_advice(classes, kind, name)}")
    if section.NAMED and not name:
        raise Misnamed(f"needs a name: write {header(kind, 'NAME')}")
    if name and not section.NAMED:
        raise Misnamed(f"takes no name: write {header(kind, '')}")
    return section


def _find_defaults(classes: Classes, kind: str) -> type[Section]:
    named = {one: section for one, section in classes.items() if section.NAMED}
    if kind in named:
        return named[kind]
    if kind in classes:
        raise Misnamed(f"has no effect, there is one such section: write {header(kind, '')}")
    near = _nearest(kind, named)
    if near:
        raise Misnamed(f"names no kind of section: did you mean {header(DEFAULTS, near)}?")
    known = ", ".join(header(DEFAULTS, one) for one in named)
    raise Misnamed(f"names no kind of section: write one of {known}")


def _sections_advice(classes: Classes, kind: str, name: str) -> str:
    near = _nearest(kind, [*classes, DEFAULTS])
    if near:
        takes_name = near == DEFAULTS or classes[near].NAMED
        return f"did you mean {header(near, (name or 'NAME') if takes_name else '')}?"
    known = [header(one, "NAME" if section.NAMED else "") for one, section in classes.items()]
    return f"known are {', '.join(known)}"


def find_key(classes: Classes, section: type[Section], key: str) -> tuple[Option, str]:
    """The option that `key` names in a section, and the NAME in a family. Raises Misnamed."""
    base, dot, name = key.partition(".")
    option = options(section).get(base)
    if option is None:
        raise _unknown(classes, section, base, name)
    if option.is_family and not name:
        raise Misnamed(f"needs a name: write {base}.NAME = …", base)
    if dot and not option.is_family:
        raise Misnamed(f"takes no name: write {base} = …", base)
    return option, name


def is_key(section: type[Section], key: str) -> bool:
    """Whether `key` names an option of the section."""
    base, dot, name = key.partition(".")
    option = options(section).get(base)
    return option is not None and (bool(name) if option.is_family else not dot)


def _unknown(classes: Classes, section: type[Section], base: str, name: str) -> Misnamed:
    known = options(section)
    near = _nearest(base, known)
    if near:
        meant = f"{near}.{name or 'NAME'}" if known[near].is_family else near
        return Misnamed(f"is not a known option: did you mean {meant}?", near)
    elsewhere = [
        header(kind, "NAME" if one.NAMED else "") for kind, one in classes.items() if base in options(one)
    ]
    if elsewhere:
        return Misnamed(f"is not an option of this section: it belongs into {' or '.join(elsewhere)}")
    if len(known) <= _FEW:
        return Misnamed(f"is not a known option: known are {', '.join(o.written for o in known.values())}")
    return Misnamed(f"is not a known option: `sidecar manual` lists those of [{section.KIND}]")
