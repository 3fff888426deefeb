"""From the files of a directory to one configuration: merged, expanded, checked, every value with its origin.

Law: all mistakes are reported at once, or there is none and the configuration is whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

from ..errors import ConfigurationError
from .environment import Environment
from .ini import Block, Entry, Mistake, Origin, Source, read_directory
from .names import DEFAULTS, Classes, Misnamed, find_key, find_section, is_key
from .schema import Kind, Option, Section, header, options, quoted

S = TypeVar("S", bound=Section)

#: What a message repeats of the user's text, from the first quotation mark to the last.
_REPEATED: Final = re.compile("'.*'", re.DOTALL)


class Value(NamedTuple):
    """The last word on a key in the sections of one header."""

    option: Option
    name: str  # in a family
    entry: Entry
    value: Any


Values = dict[str, Value]  # by the whole key: `bind`, `server.a`


class Place(NamedTuple):
    """Where a section and its values are written."""

    header: Origin | None  # of its first block; None when only its defaults hold
    values: Values

    def of(self, key: str) -> Origin | None:
        """Where a value is written, or with an empty key the section; None when nowhere."""
        if not key:
            return self.header
        value = self.values.get(key)
        return None if value is None else value.entry.origin


class Configuration:
    """The sections of one load. Nothing in it changes."""

    __slots__ = ("_places", "_root", "_sections", "fingerprint", "sections")

    def __init__(
        self,
        root: Origin,
        sections: Sequence[type[Section]],
        read: dict[str, dict[str, Section]],
        places: dict[tuple[str, str], Place],
        fingerprint: str,
    ) -> None:
        self._root = root
        self._sections = read
        self._places = places
        self.sections = tuple(sections)  # the declarations it was read by
        self.fingerprint = fingerprint  # the same as long as files and the variables they use are

    def named(self, cls: type[S]) -> dict[str, S]:
        """The sections of a kind by name, in the order of their first headers."""
        return cast("dict[str, S]", dict(self._sections[cls.KIND]))

    def only(self, cls: type[S]) -> S:
        """The section of a kind that has no names; its defaults when it is not written."""
        return cast(S, self._sections[cls.KIND][""])

    def origin(self, kind: str, name: str, key: str) -> Origin | None:
        """Where a value is written; None for a default. With an empty key: where its section begins."""
        place = self._places.get((kind, name))
        return None if place is None else place.of(key)

    def mistake(self, kind: str, name: str, key: str, text: str) -> str:
        """The line that tells of a mistake found later, at the place of the value or else of its section."""
        origin = self.origin(kind, name, key) or self.origin(kind, name, "") or self._root
        return str(Mistake(origin, header(kind, name), key, text))


def load(directory: Path, sections: Sequence[type[Section]], environ: Mapping[str, str]) -> Configuration:
    """Read, merge and check the files of `directory`. `environ` holds the variables that values may use.

    Raises ConfigurationError with every mistake, in the order of files and lines.
    """
    source = read_directory(directory)
    environment = Environment(environ)
    loader = _Loader(source, sections, environment)
    read = loader.read()
    if loader.mistakes:
        raise ConfigurationError(
            [str(mistake) for mistake in sorted(dict.fromkeys(loader.mistakes), key=_place)]
        )
    root = Origin(source.name, 0)
    return Configuration(root, sections, read, loader.places, _fingerprint(source, environment))


def _place(mistake: Mistake) -> Origin:
    return mistake.origin


def _fingerprint(source: Source, environment: Environment) -> str:
    seen = repr((source.files, sorted(environment.used.items())))
    return hashlib.sha256(seen.encode()).hexdigest()


class _Layer:
    """What the sections of one header say together."""

    __slots__ = ("emptied", "excused", "is_sound", "origin", "values")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.values: Values = {}
        self.emptied: list[str] = []  # keys that are written without a value
        self.excused: frozenset[str] = frozenset()  # required, and missing because of another mistake
        self.is_sound = True

    def spoil(self, key: str) -> None:
        """Note a mistake in it: `key` is the option that it concerns, empty when that is not known."""
        self.excused |= {key}
        self.is_sound = False


class _Words:
    """What the keys and the values of one load mean: looked up, and parsed, once for all sections."""

    __slots__ = ("_classes", "_environment", "_keys", "_values")

    def __init__(self, classes: Classes, environment: Environment) -> None:
        self._classes = classes
        self._environment = environment
        self._keys: dict[tuple[type[Section], str], tuple[Option, str]] = {}
        # Sections may share a value: it never changes, as those of `[defaults KIND]` show.
        self._values: dict[tuple[Kind[Any], str], Any] = {}

    def key(self, section: type[Section], key: str) -> tuple[Option, str]:
        """As `find_key`. Raises Misnamed."""
        found = self._keys.get((section, key))
        if found is None:
            found = self._keys[section, key] = find_key(self._classes, section, key)
        return found

    def text(self, section: type[Section], written: str) -> str:
        """What is written, variables expanded. Raises ValueError."""
        if "\n" in written:
            for line in written.split("\n")[1:]:
                key, equals, _ = line.partition("=")
                if equals and is_key(section, key.strip()):
                    raise ValueError(f"goes on with {quoted(line)}: remove the spaces before that option")
        return self._environment.expand(written)

    def value(self, kind: Kind[Any], text: str) -> Any:
        """As `kind.parse`. Raises ValueError."""
        at = kind, text
        if at not in self._values:
            self._values[at] = kind.parse(text)
        return self._values[at]


class _Loader:
    """One load, from blocks to sections."""

    def __init__(self, source: Source, sections: Sequence[type[Section]], environment: Environment) -> None:
        self._root = Origin(source.name, 0)
        self._blocks = source.blocks
        self._classes = {section.KIND: section for section in sections}
        self._words = _Words(self._classes, environment)
        self._required = {one: [o for o in options(one).values() if o.is_required] for one in sections}
        self.mistakes = list(source.mistakes)
        self.places: dict[tuple[str, str], Place] = {}

    def read(self) -> dict[str, dict[str, Section]]:
        """All sections by kind and name; incomplete when there are mistakes."""
        layers = self._layers()
        for kind, section in self._classes.items():
            if not section.NAMED:
                layers.setdefault((kind, ""), _Layer(self._root))
        read: dict[str, dict[str, Section]] = {kind: {} for kind in self._classes}
        for (kind, name), layer in layers.items():
            if kind != DEFAULTS:
                built = self._build(kind, name, layer, layers.get((DEFAULTS, kind)))
                if built is not None:
                    read[kind][name] = built
        return read

    def _wrong(self, origin: Origin, section: str, key: str, text: str) -> None:
        self.mistakes.append(Mistake(origin, section, key, text))

    def _layers(self) -> dict[tuple[str, str], _Layer]:
        """One layer for each header, in the order of their first blocks."""
        groups: dict[tuple[str, str], list[Block]] = {}
        for block in self._blocks:
            groups.setdefault((block.kind, block.name), []).append(block)
        return {
            key: self._layer(section, blocks)
            for key, blocks in groups.items()
            if (section := self._declaration(blocks)) is not None
        }

    def _declaration(self, blocks: list[Block]) -> type[Section] | None:
        try:
            return find_section(self._classes, blocks[0].kind, blocks[0].name)
        except Misnamed as error:
            for block in blocks:
                self._wrong(block.origin, block.header, "", str(error))
        return None

    def _layer(self, section: type[Section], blocks: list[Block]) -> _Layer:
        layer = _Layer(blocks[0].origin)
        last: dict[str, tuple[Option, str, Entry]] = {}
        for block in blocks:
            for key, entry in block.entries.items():
                try:
                    last[key] = (*self._words.key(section, key), entry)
                except Misnamed as error:
                    self._wrong(entry.origin, block.header, key, str(error))
                    layer.spoil(error.meant)
        for key, (option, name, entry) in last.items():
            try:
                text = self._words.text(section, entry.value)
                value = self._words.value(option.kind, text) if text else None
            except ValueError as error:
                wrong = _REPEATED.sub("the value", str(error)) if option.is_secret else str(error)
                self._wrong(entry.origin, blocks[0].header, key, wrong)
                layer.spoil(option.key)
                continue
            if text:
                layer.values[key] = Value(option, name, entry, value)
            else:
                layer.emptied.append(key)
        return layer

    def _build(self, kind: str, name: str, layer: _Layer, defaults: _Layer | None) -> Section | None:
        section = self._classes[kind]
        values = _effective(layer, defaults)
        fields: dict[str, Any] = {}
        for key, value in values.items():
            if value.option.is_family:
                fields.setdefault(value.option.key, {})[value.name] = value.value
            else:
                fields[key] = value.value
        place = Place(layer.origin if layer.origin != self._root else None, values)
        self.places[kind, name] = place
        missing = [option for option in self._required[section] if option.key not in fields]
        if missing:
            excused = layer.excused | (defaults.excused if defaults else frozenset())
            self._miss([option for option in missing if option.key not in excused], kind, name, layer)
        if missing or not layer.is_sound or (defaults and not defaults.is_sound):
            return None
        built = section(**fields)
        for key, text in built.check():
            self._wrong(place.of(key) or layer.origin, header(kind, name), key, text)
        return built

    def _miss(self, missing: list[Option], kind: str, name: str, layer: _Layer) -> None:
        for option in missing:
            self._wrong(layer.origin, header(kind, name), option.key, f"is required: {option.doc}")


def _effective(layer: _Layer, defaults: _Layer | None) -> Values:
    """The values that hold for a section, over `[defaults KIND]`, in the order they are written."""
    if defaults is None:
        return layer.values
    merged = defaults.values | layer.values
    for key in layer.emptied:
        # An empty value falls back to the default; in a family there is none, so it takes the key away.
        if key in merged and merged[key].option.is_family:
            del merged[key]
    return merged
