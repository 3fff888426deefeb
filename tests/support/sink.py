"""An upstream for large bodies: it takes them in and tells their digest, or makes one up as it goes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

LARGE: Final = 64 << 20
_BLOCK: Final = 1 << 18


def blocks(size: int) -> Iterator[bytes]:
    """`size` bytes, no two blocks of which are alike."""
    for at in range(0, size, _BLOCK):
        seed = hashlib.sha512(at.to_bytes(8, "big")).digest()
        yield (seed * (_BLOCK // len(seed)))[: size - at]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._head(LARGE)
        for block in blocks(LARGE):
            self.wfile.write(block)

    def do_PUT(self) -> None:
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read(min(left, _BLOCK))):
            digest.update(piece)
            left -= len(piece)
        told = digest.hexdigest().encode()
        self._head(len(told))
        self.wfile.write(told)

    def _head(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()


class Sink:
    """On a port of 127.0.0.1 that the system chooses."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
