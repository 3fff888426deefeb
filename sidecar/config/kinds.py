"""The kinds of values that options share: time, size, numbers, words, lists, networks.

Law: `kind.parse(kind.show(value)) == value` for every value that `parse` can give.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeVar

from .schema import Kind, quoted

T = TypeVar("T")
Network = IPv4Network | IPv6Network

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# Text and words ---------------------------------------------------------------------------------------------


def _parse_text(text: str) -> str:
    joined = " ".join(line.strip() for line in text.split("\n")).strip()
    found = _CONTROL.search(joined)
    if found:
        raise ValueError(f"{quoted(joined)} holds the control character U+{ord(found[0]):04X}: remove it")
    return joined


#: One line of text; the lines of a continued value are joined with a space.
TEXT: Final[Kind[str]] = Kind("text", _parse_text)


def choice(*words: str) -> Kind[str]:
    """One of `words`."""

    def parse(text: str) -> str:
        if text in words:
            return text
        near = difflib.get_close_matches(text.lower(), words, n=1)
        advice = f"did you mean {near[0]}?" if near else f"write {_either(words)}"
        one = f"one of {', '.join(words)}" if len(words) > 1 else words[0]
        raise ValueError(f"{quoted(text)} is not {one}: {advice}")

    return Kind(" | ".join(words), parse)


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _parse_on_off(text: str) -> bool:
    if text in ("on", "off"):
        return text == "on"
    raise ValueError(f"{quoted(text)} is neither on nor off: write on or off")


ON_OFF: Final[Kind[bool]] = Kind("on | off", _parse_on_off, lambda value: "on" if value else "off")


# Numbers ----------------------------------------------------------------------------------------------------

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


def integer(lo: int, hi: int) -> Kind[int]:
    """A whole number between `lo` and `hi`, both included."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise ValueError(f"{quoted(text)} is not a whole number: write one between {lo} and {hi}")
        value = int(text)
        if not lo <= value <= hi:
            raise ValueError(f"{text} is not between {lo} and {hi}")
        return value

    return Kind(f"{lo} … {hi}", parse)


# Time -------------------------------------------------------------------------------------------------------

_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_MILLISECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_LONGEST: Final = 365  # days


def _parse_duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{quoted(text)} is not a duration: write 250ms, 3s, 5m or 1h")
    milliseconds = Decimal(found[1]) * _MILLISECONDS[found[2]]
    if milliseconds != int(milliseconds):
        raise ValueError(f"{quoted(text)} is finer than a millisecond: write whole milliseconds")
    if milliseconds > _LONGEST * _MILLISECONDS["d"]:
        raise ValueError(f"{quoted(text)} is too long: write at most {_LONGEST}d")
    return int(milliseconds) / 1000


def _parse_timeout(text: str) -> float:
    value = _parse_duration(text)
    if not value:
        raise ValueError(f"{quoted(text)} leaves no time at all: write at least 1ms")
    return value


def _show_duration(value: float) -> str:
    milliseconds = round(value * 1000)
    if not milliseconds:
        return "0s"
    unit = next(unit for unit, size in _MILLISECONDS.items() if milliseconds % size == 0)
    return f"{milliseconds // _MILLISECONDS[unit]}{unit}"


#: Seconds, to the millisecond; 0s is allowed.
DURATION: Final[Kind[float]] = Kind("duration", _parse_duration, _show_duration)

#: Seconds, to the millisecond; at least 1ms.
TIMEOUT: Final[Kind[float]] = Kind("duration", _parse_timeout, _show_duration)


# Size -------------------------------------------------------------------------------------------------------

_SIZE: Final = re.compile(r"([0-9]{1,15})([kmg]?)", re.IGNORECASE)
_BYTES: Final = {"g": 1 << 30, "m": 1 << 20, "k": 1 << 10, "": 1}
_LARGEST: Final = 1 << 60


def _show_size(value: int) -> str:
    unit = next(unit for unit, size in _BYTES.items() if value % size == 0) if value else ""
    return f"{value // _BYTES[unit]}{unit}"


def size(lo: int, hi: int) -> Kind[int]:
    """Bytes between `lo` and `hi`, both included; `k`, `m` and `g` count in steps of 1024."""

    def parse(text: str) -> int:
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ValueError(f"{quoted(text)} is not a size: write bytes, or 16k, 10m, 1g")
        value = int(found[1]) * _BYTES[found[2].lower()]
        if not lo <= value <= hi:
            raise ValueError(f"{quoted(text)} is not between {_show_size(lo)} and {_show_size(hi)}")
        return value

    return Kind("size" if hi == _LARGEST else f"size, {_show_size(lo)} … {_show_size(hi)}", parse, _show_size)


#: Bytes.
SIZE: Final[Kind[int]] = size(0, _LARGEST)


# Composed kinds ---------------------------------------------------------------------------------------------


def or_off(kind: Kind[T], off: T) -> Kind[T]:
    """`kind`, or the word `off`, which gives `off`. That value has no other spelling."""

    def parse(text: str) -> T:
        if text == "off":
            return off
        try:
            value = kind.parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or off") from None
        if value == off:
            raise ValueError(f"{quoted(text)} would switch it off: write off")
        return value

    return Kind(f"{kind.name} | off", parse, lambda value: "off" if value == off else kind.show(value))


#: Seconds; `off` is 0.
DURATION_OR_OFF: Final[Kind[float]] = or_off(DURATION, 0.0)

#: Bytes; `off` is 0.
SIZE_OR_OFF: Final[Kind[int]] = or_off(SIZE, 0)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """`kind` for an option whose default is None, which is written by leaving the option out."""

    def parse(text: str) -> T | None:
        return kind.parse(text)

    return Kind(kind.name, parse, lambda value: "" if value is None else kind.show(value))


def list_of(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """Values of `kind` between commas, on lines of their own, or both; the value is a tuple."""

    def parse(text: str) -> tuple[T, ...]:
        return tuple(kind.parse(item) for item in _items(text))

    def show(values: tuple[T, ...]) -> str:
        return ", ".join(kind.show(value) for value in values)

    return Kind(f"list: {kind.name}", parse, show)


def _items(text: str) -> list[str]:
    """The items of a list. A line may end with a comma; between two commas there must be something."""
    if "," not in text and "\n" not in text:
        return [alone] if (alone := text.strip()) else []
    items: list[str] = []
    for line in text.split("\n"):
        line = line.strip()
        if line:
            items += [item.strip() for item in line.removesuffix(",").split(",")]
    if not all(items):
        raise ValueError(f"{quoted(text)} has an empty item: remove the comma that has nothing beside it")
    return items


# Networks ---------------------------------------------------------------------------------------------------


def parse_network(text: str) -> Network:
    """The network written as CIDR; an address alone is a network of one. Raises ValueError with advice."""
    if "%" in text:
        raise ValueError(f"{quoted(text)} names an interface: write the network without %…")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is not a network: write 10.0.0.0/8, 192.0.2.7 or fd00::/8"
        ) from None
    if _has_host_bits(text):
        raise ValueError(f"{quoted(text)} has bits beyond its mask: write {network}")
    return network


def _has_host_bits(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return True
    return False


_EVERYONE: Final[tuple[Network, ...]] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def _cidrs(name: str, with_all: bool) -> Kind[tuple[Network, ...]]:
    networks = list_of(Kind("network", parse_network))

    def parse(text: str) -> tuple[Network, ...]:
        if text == "all" and with_all:
            return _EVERYONE
        return networks.parse(text)

    def show(values: tuple[Network, ...]) -> str:
        return "all" if with_all and values == _EVERYONE else networks.show(values)

    return Kind(name, parse, show)


#: Networks in CIDR form.
CIDRS: Final[Kind[tuple[Network, ...]]] = _cidrs("list of networks", with_all=False)

#: Networks in CIDR form, or the word `all`.
CIDRS_OR_ALL: Final[Kind[tuple[Network, ...]]] = _cidrs("list of networks | all", with_all=True)


def checked(kind: Kind[T], check: Callable[[T], str | None]) -> Kind[T]:
    """`kind` with one rule more: `check` tells what is wrong with a value and what is right, or None."""

    def parse(text: str) -> T:
        value = kind.parse(text)
        wrong = check(value)
        if wrong:
            raise ValueError(wrong)
        return value

    return Kind(kind.name, parse, kind.show)


_PERCENT: Final = re.compile(r"([0-9]{1,3})%")


def percent(lo: int, hi: int) -> Kind[int]:
    """A share in whole percent between `lo` and `hi`, both included."""

    def parse(text: str) -> int:
        found = _PERCENT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{quoted(text)} is not a share: write whole percent, like {max(lo, min(20, hi))}%"
            )
        value = int(found[1])
        if not lo <= value <= hi:
            raise ValueError(f"{text} is not between {lo}% and {hi}%")
        return value

    return Kind(f"{lo}% … {hi}%", parse, lambda value: f"{value}%")
