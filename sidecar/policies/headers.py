"""The fields that a route sets, adds, defaults and removes, of requests and of responses.

Of one name, removing comes first, then setting, then the default, then adding. What is the same for every
request is rendered when the policy is built. A value that renders empty is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from ..message import Handler, Request, Response
from ..net.client_address import CLIENT_CERTIFICATE_FIELDS
from ..routing.settings import RouteSettings
from ..template import Template
from ..wire.head import Names
from .base import Policy

#: What the listener puts into `request.extra`; a route that sets or removes one of these wins.
_FORWARDING: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip"}
)
#: The same of `client_certificate_header`; off, those of a trusted proxy are passed on as they came.
_CLIENT_CERTIFICATE: Final = frozenset(name.lower() for name in CLIENT_CERTIFICATE_FIELDS)
#: Sets of names are joined once for each place that dropped fields before; those are few.
_REMEMBERED_UNIONS: Final = 64


class Verbs(NamedTuple):
    """What a route says about the fields of one direction."""

    put: Mapping[str, Template]
    add: Mapping[str, Template]
    default: Mapping[str, Template]
    remove: Sequence[str]


class _Piece(NamedTuple):
    """Field lines to write, unless a field named `unless` is there; `value` completes `line` when given."""

    line: bytes
    value: Template | None
    unless: bytes


class Edits:
    """Verbs, compiled: the names to leave out and the lines to write."""

    __slots__ = ("_pieces", "_unions", "constant", "names", "removed")

    def __init__(self, verbs: Verbs) -> None:
        self.removed = frozenset(_key(name) for name in (*verbs.put, *verbs.remove))
        self.names = Names(sorted(self.removed)) if self.removed else None
        pieces = [_piece(name, value) for name, value in verbs.put.items()]
        pieces += [
            _piece(name, value, b"" if _key(name) in self.removed else _key(name))
            for name, value in verbs.default.items()
            if name.lower() not in {put.lower() for put in verbs.put}
        ]
        pieces += [_piece(name, value) for name, value in verbs.add.items()]
        self._pieces = _merged(pieces)
        #: All lines, when they do not depend on the request; else None.
        self.constant = _constant(self._pieces)
        self._unions: dict[Names | None, Names | None] = {None: self.names}

    def lines(self, request: Request, is_there: Callable[[bytes], bool]) -> bytes:
        """The lines to write; `is_there` tells whether the message has a field of a lower-case name."""
        if self.constant is not None:
            return self.constant
        written = []
        for line, value, unless in self._pieces:
            if unless and is_there(unless):
                continue
            if value is None:
                written.append(line)
            elif rendered := value.render_bytes(request):
                written.append(b"%b%b\r\n" % (line, rendered))
        return b"".join(written)

    def dropped(self, already: Names | None) -> Names | None:
        """The names to leave out, with those left out already."""
        try:
            return self._unions[already]
        except KeyError:
            if len(self._unions) >= _REMEMBERED_UNIONS:
                self._unions = {None: self.names}
            before: Any = already
            union: Names = before if self.names is None else before | self.names
            self._unions[already] = union
            return union


class RequestHeaders(Policy):
    """Edits the fields that the upstream gets."""

    __slots__ = ("_edits", "_replaced")

    def __init__(self, edits: Edits) -> None:
        self._edits = edits
        self._replaced = edits.removed & (_FORWARDING | _CLIENT_CERTIFICATE)

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for the request_header options; None when none is given."""
        verbs = Verbs(
            settings.request_header,
            settings.request_header_add,
            settings.request_header_default,
            settings.request_header_remove,
        )
        return cls(Edits(verbs)) if any(verbs) else None

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with the edits noted on the request."""
        extra = request.extra
        if self._replaced:
            extra = _without(extra, self._replaced)

        def is_there(name: bytes) -> bool:
            # Of the client's fields those dropped and those written anew below do not reach the upstream.
            drop: Any = request.drop
            if (
                name not in _FORWARDING
                and (drop is None or name not in drop)
                and request.head.get(name) is not None
            ):
                return True
            return _has_line(extra, name)

        lines = self._edits.lines(request, is_there)
        request.drop = self._edits.dropped(request.drop)
        request.extra = extra + lines
        return forward(request)


class ResponseHeaders(Policy):
    """Edits the fields that the client gets, whatever the status and whoever answered."""

    __slots__ = ("_edits",)

    def __init__(self, edits: Edits) -> None:
        self._edits = edits

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for the response_header options; None when none is given."""
        verbs = Verbs(
            settings.response_header,
            settings.response_header_add,
            settings.response_header_default,
            settings.response_header_remove,
        )
        return cls(Edits(verbs)) if any(verbs) else None

    @classmethod
    def always(cls, name: str, value: str) -> Self:
        """The policy for one field, in place of those of its name."""
        return cls(Edits(Verbs({name: Template.parse(value)}, {}, {}, ())))

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward, then note the edits on the response."""
        response = forward(request)
        self.edit(request, response)
        return response

    def edit(self, request: Request, response: Response) -> None:
        """Note the edits on `response`; called alone for a failure, which passes `handle` as an exception."""
        edits = self._edits
        extra = response.extra
        if extra and edits.removed:
            extra = _without(extra, edits.removed)

        def is_there(name: bytes) -> bool:
            return response.head.get(name) is not None or _has_line(extra, name)

        response.extra = extra + edits.lines(request, is_there)
        response.drop = edits.dropped(response.drop)


def _key(name: str) -> bytes:
    return name.lower().encode("ascii")


def _piece(name: str, value: Template, unless: bytes = b"") -> _Piece:
    start = name.encode("ascii") + b": "
    constant = value.constant_bytes
    if constant is None:
        return _Piece(start, value, unless)
    return _Piece(b"%b%b\r\n" % (start, constant) if constant else b"", None, unless)


def _merged(pieces: list[_Piece]) -> tuple[_Piece, ...]:
    """The same lines in fewer pieces: neighbours that are always written become one."""
    merged: list[_Piece] = []
    for piece in pieces:
        if piece.value is None and not piece.unless and merged and merged[-1][1:] == (None, b""):
            merged[-1] = _Piece(merged[-1].line + piece.line, None, b"")
        else:
            merged.append(piece)
    return tuple(merged)


def _constant(pieces: tuple[_Piece, ...]) -> bytes | None:
    if not pieces:
        return b""
    return pieces[0].line if len(pieces) == 1 and pieces[0][1:] == (None, b"") else None


def _without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Field lines but those of these names."""
    kept = [line for line in lines.split(b"\r\n")[:-1] if line.partition(b":")[0].lower() not in names]
    return b"".join([line + b"\r\n" for line in kept])


def _has_line(lines: bytes, name: bytes) -> bool:
    return any(line.partition(b":")[0].lower() == name for line in lines.split(b"\r\n"))
