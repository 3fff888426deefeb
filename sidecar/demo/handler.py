"""One connection to the demo upstream: requests in, descriptions of them out."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Protocol, cast

from ..config.addresses import Address
from .body import PIECE, Received, pieces
from .websocket import accept_key, echo
from .wishes import Refused, Wishes, read_query

_TIMEOUT: Final = 75.0  # seconds for one read or write, and between two requests
_DRIPS: Final = 10  # pieces of a body that drips, at least


class Host(Protocol):
    """What a connection needs of its server."""

    name: str
    is_leaving: bool  # connections end after the next answer

    def pause(self, seconds: float) -> None:
        """Wait. Raises ConnectionError when the server stops meanwhile."""


class Handler(BaseHTTPRequestHandler):
    """One connection; a greenlet where the standard library is patched, else a thread."""

    protocol_version = "HTTP/1.1"
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n%(explain)s\n"
    timeout = _TIMEOUT

    def setup(self) -> None:
        """Heads and bodies are sent one after the other and must not wait for acknowledgements."""
        super().setup()
        self._host = cast(Host, self.server)
        if self.connection.family != socket.AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The standard library looks for `do_` and the method; here every method is answered alike.
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def version_string(self) -> str:
        """The field Server."""
        return "sidecar-demo"

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a log of this server."""

    def _answer(self) -> None:
        try:
            if self.command == "CONNECT":
                raise Refused(405, "this is no proxy")
            received = self._receive()
            path, _, query = self._target.partition("?")
            if path == "/ws" and self.headers.get("Upgrade", "").lower() == "websocket":
                self._accept_websocket()
                return
            wishes = read_query(query, self.request_version != "HTTP/1.0")
            self._host.pause(wishes.delay)
            self._respond(wishes, received)
        except Refused as refused:
            self.send_error(refused.status, explain=refused.text)

    @property
    def _target(self) -> str:
        # `self.path` is not what was sent: leading slashes are merged in it.
        return self.requestline.split()[1]

    def _receive(self) -> Received:
        received = Received()
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        if self.headers.defects or (lengths and codings) or len(set(lengths)) > 1:
            raise Refused(400, "the header is malformed, or tells two lengths of the body")
        if codings:
            if [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise Refused(501, "the only transfer coding here is chunked")
            received.read_chunks(self.rfile)
        elif lengths:
            if not re.fullmatch("[0-9]{1,18}", lengths[0]):
                raise Refused(400, "Content-Length is not a number")
            received.read(self.rfile, int(lengths[0]))
        return received

    def _describe(self, received: Received) -> bytes:
        peer = self.client_address
        description = {
            "method": self.command,
            "target": self._target,
            "version": self.request_version,
            "headers": list(self.headers.items()),
            **received.description(),
            "client": str(Address(*peer[:2])) if peer else "unix:",
            "server": self._host.name,
        }
        return json.dumps(description, indent=2).encode() + b"\n"

    def _respond(self, wishes: Wishes, received: Received) -> None:
        body = self._describe(received) if wishes.size < 0 else None
        size = wishes.size if body is None else len(body)
        if wishes.status == 205:
            body, size = b"", 0  # RFC 9110 section 15.3.6
        is_chunked = wishes.chunked or wishes.trailers
        self.close_connection = self.close_connection or self._host.is_leaving
        self.send_response(wishes.status)
        self.send_header("Content-Type", "application/json" if body else "text/plain")
        if wishes.status not in (204, 304):
            self._send_framing(wishes, size)
        if self.close_connection:
            self.send_header("Connection", "close")
        elif self.request_version == "HTTP/1.0":
            self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command == "HEAD" or wishes.status in (204, 304):
            return
        digest = hashlib.sha256()
        step = min(PIECE, max(1, -(-size // _DRIPS))) if wishes.drip else PIECE
        for piece in pieces(body, size, step):
            self._host.pause(wishes.drip * step / size)
            digest.update(piece)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            trailer = f"X-Demo-Sha256: {digest.hexdigest()}\r\n" if wishes.trailers else ""
            self.wfile.write(f"0\r\n{trailer}\r\n".encode())

    def _send_framing(self, wishes: Wishes, size: int) -> None:
        if wishes.close:
            self.close_connection = True
        elif wishes.chunked or wishes.trailers:
            self.send_header("Transfer-Encoding", "chunked")
            if wishes.trailers:
                self.send_header("Trailer", "X-Demo-Sha256")
        else:
            self.send_header("Content-Length", str(size))

    def _accept_websocket(self) -> None:
        key = accept_key(self.headers)
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", key)
        self.end_headers()
        self.close_connection = True
        echo(self.rfile, self.wfile.write)
