"""What survives a reload: values keyed by what they are and by the settings that give them meaning.

A generation asks for each value it needs with `Kept.claim`; when the generation that replaced it has
claimed its own, `Kept.sweep` closes what nobody claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast


class Closable(Protocol):
    """Something that holds resources."""

    def close(self) -> None:
        """Give them back."""


T = TypeVar("T", bound=Closable)


class Kept:
    """The store. Claims are collected in a round; a round that fails is forgotten without effect."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Closable] = {}
        self._claimed: dict[Hashable, Closable] = {}

    def begin(self) -> None:
        """Start a round: a new generation is being built."""
        self._claimed = {}

    def claim(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, kept from an earlier generation or made now."""
        # Values may be falsy (an empty cache): only their presence counts.
        value = self._claimed[key] if key in self._claimed else self._values.get(key)
        if value is None:
            value = make()
        self._claimed[key] = value
        return cast(T, value)

    def has(self, key: Hashable) -> bool:
        """Whether an earlier generation has made the value of `key`."""
        return key in self._values

    def abandon(self) -> None:
        """The round failed: close what was made for it, keep what was there."""
        for key, value in self._claimed.items():
            if self._values.get(key) is not value:
                value.close()
        self._claimed = {}

    def sweep(self) -> None:
        """The round succeeded: close what it did not claim."""
        gone = [value for key, value in self._values.items() if key not in self._claimed]
        self._values, self._claimed = self._claimed, {}
        for value in gone:
            value.close()
