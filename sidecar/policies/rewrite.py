"""What the upstream is asked for: the target (`replace_prefix`, `rewrite`) and the host (`host_header`).

How a target changes is said in `routing.target`, which `explain` uses too.
"""

from __future__ import annotations

import re
from typing import Final, Self

from ..errors import Malformed
from ..message import Handler, Request, Response
from ..routing.settings import RouteSettings
from ..routing.target import Retarget, retarget
from ..template import Template
from .base import Policy

#: uri-host [ ":" port ] (RFC 9110 section 7.2), as strict as what clients may send.
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~!$&'()*+,;=-]{1,255})(?::[0-9]{1,5})?"
)


class Rewrite(Policy):
    """Sends another target than the client's."""

    __slots__ = ("_change",)

    def __init__(self, change: Retarget) -> None:
        self._change = change

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for `replace_prefix` or `rewrite`; None when neither is given."""
        change = retarget(settings)
        return None if change is None else cls(change)

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with the new target. Raises Malformed("bad_path") when it would leave the root."""
        request.target = self._change(request)
        return forward(request)


class HostHeader(Policy):
    """Says which Host the upstream sees."""

    __slots__ = ("_template",)

    def __init__(self, template: Template) -> None:
        self._template = template

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for `host_header`; None when it is not given."""
        return cls(settings.host_header) if settings.host_header is not None else None

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with that Host; an empty one leaves the client's. Raises Malformed("bad_host")."""
        host = self._template.render_bytes(request)
        if host:
            if self._template.constant is None and not _AUTHORITY.fullmatch(host):
                raise Malformed("bad_host")
            request.host_header = host
        return forward(request)
