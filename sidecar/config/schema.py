"""How options are declared: a kind, a default and one sentence, once, beside the code that uses them.

Everything else about an option (parsing, checks, `show`, the manual) is derived from its declaration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

T = TypeVar("T")

_QUOTED: Final = 80  # characters of a user's text that a message repeats


def quoted(text: str) -> str:
    """`text` as messages show it: in quotes, control characters escaped, on one line and not longer."""
    shown = text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return f"'{escaped}'"


class Kind(Generic[T]):
    """What the values of an option are: how they are read and how they are shown."""

    __slots__ = ("_parse", "_show", "name")

    def __init__(self, name: str, parse: Callable[[str], T], show: Callable[[T], str] = str) -> None:
        self.name = name
        self._parse = parse
        self._show = show

    def parse(self, text: str) -> T:
        """The value that `text` stands for. `text` is stripped and not empty; lines are joined with newlines.

        Raises ValueError; its text says what is wrong and what would be right.
        """
        return self._parse(text)

    def show(self, value: T) -> str:
        """The text that `parse` reads as `value`; empty when the value is written by leaving it out."""
        return self._show(value)

    def __repr__(self) -> str:
        return f"<Kind {self.name}>"


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One declared option. A family has a value for each `<key>.<NAME>` that is written."""

    key: str
    kind: Kind[Any]
    doc: str
    default: Any  # dataclasses.MISSING when the option must be given
    is_family: bool
    is_secret: bool = False  # its value is never shown

    @property
    def is_required(self) -> bool:
        """Whether a section without this option is a mistake."""
        return self.default is dataclasses.MISSING

    @property
    def written(self) -> str:
        """The key as the manual writes it."""
        return f"{self.key}.NAME" if self.is_family else self.key


_OPTION: Final = "sidecar.option"


def option(default: T, kind: Kind[T], doc: str, *, secret: bool = False) -> T:
    """Declare an option: a dataclass field. `doc` is one sentence with the unit; `default` is immutable.

    The value of a `secret` one is never shown, by no command and in no message.
    """
    metadata = {_OPTION: (kind, doc, secret)}
    declared: Any = dataclasses.field(default=default, kw_only=True, metadata=metadata)
    return cast(T, declared)


def required(kind: Kind[T], doc: str) -> T:
    """Declare an option that has no default."""
    declared: Any = dataclasses.field(kw_only=True, metadata={_OPTION: (kind, doc, False)})
    return cast(T, declared)


def family(kind: Kind[T], doc: str) -> dict[str, T]:
    """Declare options written `<field>.<NAME> = value`; the field is a dict by NAME, whose case is kept."""
    metadata = {_OPTION: (kind, doc, False)}
    declared: Any = dataclasses.field(default_factory=dict, kw_only=True, metadata=metadata)
    return cast("dict[str, T]", declared)


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """The base of sections: each a frozen dataclass with slots whose fields are declared options."""

    KIND: ClassVar[str]  # the first word of the header
    NAMED: ClassVar[bool] = True  # whether the header has a second word, and there may be several
    DOC: ClassVar[str]  # what the section is for, one sentence for the manual

    def check(self) -> Iterable[tuple[str, str]]:
        """Mistakes that only the options together show, each the key to blame and what is wrong with it."""
        return ()


S = TypeVar("S", bound=Section)


_DECLARED: Final[dict[type[Section], dict[str, Option]]] = {}


def options(section: type[Section]) -> dict[str, Option]:
    """The options of a section by key, in the order of their declaration."""
    declared = _DECLARED.get(section)
    if declared is None:
        declared = _DECLARED[section] = {
            field.name: _declared(field) for field in dataclasses.fields(section) if _OPTION in field.metadata
        }
    return declared


def _declared(field: dataclasses.Field[Any]) -> Option:
    kind, doc, is_secret = field.metadata[_OPTION]
    is_family = field.default_factory is not dataclasses.MISSING
    return Option(field.name, kind, doc, {} if is_family else field.default, is_family, is_secret)


def header(kind: str, name: str) -> str:
    """A section's header as it is written."""
    return f"[{kind} {name}]" if name else f"[{kind}]"
