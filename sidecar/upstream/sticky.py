# cython: language_level=3, annotation_typing=False
"""Clients that stay with their server: a signed cookie names it.

The values are made when the configuration is loaded, so a request costs one look into a table, and a value
that nobody signed is one that is not there.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ..message import Request, Response
from .server import Server

_SIGNED: Final = 32  # hexadecimal digits of the HMAC that are the value
#: A client decides how many cookies it sends; after so many the right one is not looked for any more.
_MOST_COOKIES: Final = 100


class Sticky:
    """The cookies of one upstream. Processes with the same `secret` understand each other's."""

    __slots__ = ("_lines", "_name", "_servers")

    def __init__(self, name: str, secret: bytes, upstream: str, servers: Sequence[Server]) -> None:
        self._name = name.encode()
        self._servers: dict[bytes, Server] = {}
        self._lines: dict[Server, bytes] = {}
        for server in servers:
            signed = hmac.new(secret, f"{upstream}\0{server.name}".encode(), sha256)
            value = signed.hexdigest()[:_SIGNED].encode()
            self._servers[value] = server
            self._lines[server] = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax" % (self._name, value)

    def find(self, request: Request) -> Server | None:
        """The server that the client's cookie names; None: no cookie, or none of ours."""
        for line in request.head.get_all(b"cookie"):
            for pair in line.split(b";", _MOST_COOKIES)[:_MOST_COOKIES]:
                name, _, value = pair.strip(b" \t").partition(b"=")
                if name == self._name:
                    server = self._servers.get(value)
                    if server is not None:
                        return server
        return None

    def mark(self, request: Request, response: Response, server: Server) -> None:
        """Tell the client its server, unless it knows. One that was replaced meanwhile is not told."""
        line = self._lines.get(server)
        if line is not None and self.find(request) is not server:
            secure = b"; Secure\r\n" if request.scheme == "https" else b"\r\n"
            response.extra += line + secure
