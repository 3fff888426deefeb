"""Which certificate a client gets: by the name it asks for.

Law: the table is replaced whole, so a handshake sees all of a renewal or nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .tls import ServerContext


class Chosen(Protocol):
    """A certificate that serves."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is for now, lower case."""

    @property
    def context(self) -> ServerContext:
        """What serves now."""

    @property
    def demands(self) -> object:
        """What clients have to show; equal when that is the same."""


class Choice:
    """Which context a client gets: by the name it asks for, exact before wildcard, else the first's."""

    __slots__ = ("_certificates", "_table", "differ")

    def __init__(self, certificates: Sequence[Chosen]) -> None:
        """`certificates`: at least one, the default first; the earlier ones win."""
        self._certificates = certificates
        self._table: dict[str, Chosen] = {}
        #: Whether what a client must show depends on the name.
        self.differ = len({one.demands for one in certificates}) > 1
        self.renew()

    def renew(self) -> None:
        """Some certificate may be for other names now."""
        table: dict[str, Chosen] = {}
        for certificate in self._certificates:
            for name in certificate.names:
                table.setdefault(name, certificate)
        # No server has an empty name: it stands for what nobody is for.
        table[""] = self._certificates[0]
        self._table = table

    def __call__(self, name: str) -> ServerContext:
        """`name`: as the client sent it, empty when it sent none."""
        return self._find(name).context

    def demands(self, name: str) -> object:
        """What a client has to show for that name."""
        return self._find(name).demands

    def _find(self, name: str) -> Chosen:
        table = self._table
        # A Host may end with a dot and mean the same.
        name = name.lower().removesuffix(".")
        found = table.get(name)
        if found is None:
            found = table.get(f"*{name[at:]}") if (at := name.find(".")) > 0 else None
        return table[""] if found is None else found
