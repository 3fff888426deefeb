"""What a client of the demo upstream may ask for in the query, and within which bounds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

MAX_SIZE: Final = 1 << 30  # bytes
MAX_SECONDS: Final = 60.0
_MAX_PARAMETERS: Final = 64


class Refused(Exception):
    """A request that gets an error and the end of its connection."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Wishes:
    """The parameters of the query."""

    status: int = 200
    size: int = -1  # bytes; -1: the description
    delay: float = 0.0  # seconds
    drip: float = 0.0  # seconds
    chunked: bool = False
    trailers: bool = False
    close: bool = False


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,6})?", text) or float(text) > MAX_SECONDS:
        raise ValueError(f"write seconds from 0 to {MAX_SECONDS:g}, like 1.5")
    return float(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("write 1 or 0")
    return text == "1"


_PARAMETERS: Final[dict[str, Callable[[str], Any]]] = {
    "status": _integer(200, 599),
    "size": _integer(0, MAX_SIZE),
    "delay": _seconds,
    "drip": _seconds,
    "chunked": _flag,
    "trailers": _flag,
    "close": _flag,
}


def read_query(query: str, is_http_1_1: bool) -> Wishes:
    """Read the query; what it does not know is left to the one who sent it. Raises Refused."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise Refused(400, f"more than {_MAX_PARAMETERS} parameters in the query") from None
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in values:
            raise Refused(400, f"{name} is given twice")
        if name in _PARAMETERS:
            try:
                values[name] = _PARAMETERS[name](text)
            except ValueError as error:
                raise Refused(400, f"{name}={text[:40]!r}: {error}") from None
    wishes = Wishes(**values)
    if (wishes.chunked or wishes.trailers) and wishes.close:
        raise Refused(400, "close does not go with chunked or trailers: a body ends in one way")
    if (wishes.chunked or wishes.trailers) and not is_http_1_1:
        raise Refused(400, "chunked and trailers need a request in HTTP/1.1")
    return wishes
